"""Calling a task elsewhere, or here."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from celeriac import eager
from celeriac.task.arguments import checked_args
from celeriac.task.options import TaskOptions
from celeriac.utils import uuid

if TYPE_CHECKING:
    from celeriac.result import AsyncResult, EagerResult

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Calling(TaskOptions, Generic[P, R]):
    """What sends a call of the task (``delay`` and its kin) or runs it in place (``apply``)."""

    @overload
    def delay(
        self: Calling[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncResult[T]: ...

    @overload
    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]: ...

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        """Send the call. When it returns, the message is durable in the broker.

        Raises TypeError if the arguments do not fit the function, EncodeError if they cannot be
        written, OperationalError if the broker cannot be reached within
        ``broker_publish_timeout`` seconds.
        """
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """``delay`` with options: ``countdown``, ``eta``, ``expires``, ``queue``, ``priority``,
        ``headers``, ``ignore_result``, ``serializer``, … (docs/calling.md). Raises as delay."""
        app = self.app
        if type(args) is not tuple:
            args = checked_args(self.name, args)
        if not self._bound:
            app.finalize(auto=True)
        if self._check is not None and self.typing:
            self._check(*args, **(kwargs or {}))
        if app.conf.task_always_eager:
            return self.apply(
                args,
                kwargs,
                task_id=task_id or uuid(),
                link=link,
                link_error=link_error,
                shadow=shadow,
                **options,
            )
        if task_id is not None:
            options["task_id"] = task_id
        if link is not None:
            options["link"] = link
        if link_error is not None:
            options["link_error"] = link_error
        if shadow is not None:
            options["shadow"] = shadow
        return cast(
            "AsyncResult[Any]", app.send_task(self.name, args, kwargs, task_type=self, **options)
        )

    @overload
    async def adelay(
        self: Calling[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncResult[T]: ...

    @overload
    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]: ...

    async def adelay(self, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        """``delay`` for coroutines: the event loop is not blocked. Raises as delay."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """``apply_async`` for coroutines."""
        app = self.app
        if type(args) is not tuple:
            args = checked_args(self.name, args)
        if not self._bound:
            app.finalize(auto=True)
        if self._check is not None and self.typing:
            self._check(*args, **(kwargs or {}))
        if app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        return cast(
            "AsyncResult[Any]",
            await app.asend_task(self.name, args, kwargs, task_type=self, **options),
        )

    @overload
    def delay_many(
        self: Calling[P, Coroutine[Any, Any, T]], calls: Iterable[Sequence[Any]], **options: Any
    ) -> list[AsyncResult[T]]: ...

    @overload
    def delay_many(
        self, calls: Iterable[Sequence[Any]], **options: Any
    ) -> list[AsyncResult[R]]: ...

    def delay_many(self, calls: Iterable[Sequence[Any]], **options: Any) -> list[Any]:
        """Send one call for each tuple of arguments, hundreds in one round trip; the results in
        order. Options are those of ``apply_async``, the same for all. Raises as delay; what was
        sent before an error stays sent."""
        app = self.app
        if not self._bound:
            app.finalize(auto=True)
        return cast("list[Any]", app.dispatcher.send_calls(self, calls, options))

    def check_arguments(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
        """Raises TypeError if the arguments do not fit the function, unless ``typing`` is off."""
        if not self._bound:
            self.app.finalize(auto=True)
        if self._check is not None and self.typing:
            self._check(*args, **kwargs)

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int = 0,
        throw: bool | None = None,
        **options: Any,
    ) -> EagerResult[Any]:
        """Run the call here and now, with retries, handlers and signals as in a worker; nothing
        is sent. ``throw``: raise what the task raises (default: ``task_eager_propagates``)."""
        if not self._bound:
            self.app.finalize(auto=True)
        return eager.apply(
            self,
            checked_args(self.name, args),
            dict(kwargs or {}),
            task_id=str(task_id) if task_id is not None else uuid(),
            retries=retries,
            throw=self.app.conf.task_eager_propagates if throw is None else throw,
            link=link,
            link_error=link_error,
            options=options,
        )
