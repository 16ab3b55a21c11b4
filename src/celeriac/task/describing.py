"""Describing a call of a task: signatures."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, overload

from celeriac.canvas import chunks, xmap, xstarmap
from celeriac.canvas.signature import Signature
from celeriac.task.options import TaskOptions

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Describing(TaskOptions, Generic[P, R]):
    """What describes a call of the task, to be sent or passed on."""

    @overload
    def signature(
        self: Describing[P, Coroutine[Any, Any, T]],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Signature[T]: ...

    @overload
    def signature(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Signature[R]: ...

    def signature(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Signature[Any]:
        """A description of the call, to be sent or passed on."""
        immutable = bool(options.pop("immutable", False) or self.immutable)
        return Signature(self, args, kwargs, options, immutable=immutable, app=self.app)

    subtask = signature

    @overload
    def s(
        self: Describing[P, Coroutine[Any, Any, T]], *args: Any, **kwargs: Any
    ) -> Signature[T]: ...

    @overload
    def s(self, *args: Any, **kwargs: Any) -> Signature[R]: ...

    def s(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """``signature`` with the arguments written as in a call."""
        return self.signature(args, kwargs)

    @overload
    def si(
        self: Describing[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> Signature[T]: ...

    @overload
    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]: ...

    def si(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """An immutable signature: it takes no result of the task before it."""
        return self.signature(args, kwargs, immutable=True)

    def map(self, it: Iterable[Any]) -> Any:
        """One task that calls this one with each item."""
        return xmap(self.s(), it, app=self.app)

    def starmap(self, it: Iterable[Any]) -> Any:
        """One task that calls this one with the arguments that each item is."""
        return xstarmap(self.s(), it, app=self.app)

    def chunks(self, it: Iterable[Any], n: int) -> Any:
        """``starmap`` in tasks of ``n`` items each."""
        return chunks(self.s(), it, n, app=self.app)
