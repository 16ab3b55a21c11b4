"""map, starmap and chunks: many calls of one task, in one message or in a few."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from celeriac.canvas.composite import Composite
from celeriac.canvas.groups import group
from celeriac.canvas.signature import Signature, maybe_signature


class _Loop(Signature[Any]):
    """A message of the builtin task ``celery.map`` or ``celery.starmap``."""

    def __new__(cls, task: Any, it: Iterable[Any], app: Any = None, **options: Any) -> Any:
        made = dict.__new__(cls)
        made.update(
            task=cls.builtin,
            args=(),
            kwargs={"task": _described(task, app), "it": list(it)},
            options=options,
            subtask_type=None,  # for Celery it is a task as any other
            immutable=True,
        )
        made._app = app if app is not None else getattr(task, "_app", None)
        return made

    builtin = ""

    def __init__(self, *args: Any, **options: Any) -> None:
        pass  # all is done by __new__

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], app: Any = None) -> Any:
        return cls._filled(value, app)

    def __repr__(self) -> str:
        kwargs = self["kwargs"]
        star = "*" if self.builtin == "celery.starmap" else ""
        return f"[{kwargs['task']['task']}({star}x) for x in {kwargs['it']!r}]"


@Signature.register_type("xmap")
class xmap(_Loop):
    """``[task(x) for x in it]`` in one task."""

    builtin = "celery.map"


@Signature.register_type("xstarmap")
class xstarmap(_Loop):
    """``[task(*x) for x in it]`` in one task."""

    builtin = "celery.starmap"


@Signature.register_type("chunks")
class chunks(Composite):
    """``starmap`` over ``n`` items a message."""

    def __new__(cls, task: Any, it: Iterable[Any], n: int, app: Any = None, **options: Any) -> Any:
        kwargs = {"task": _described(task, app), "it": list(it), "n": n}
        if app is None:
            app = getattr(task, "_app", None)
        return cls.make("chunks", kwargs, options, app)

    def __init__(self, *args: Any, **options: Any) -> None:
        pass  # all is done by __new__

    def _read_parts(self) -> None:
        kwargs = self["kwargs"]
        kwargs["it"] = list(kwargs["it"])

    def _parts(self) -> list[Signature[Any]]:
        return []

    def freeze(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: freeze ``group()`` of it."""
        raise TypeError("chunks have no id of their own: use its group()")

    def group(self) -> group:
        """The group that it stands for."""
        kwargs = self["kwargs"]
        items = iter(kwargs["it"])
        task, size = kwargs["task"], int(kwargs["n"])
        parts = iter(lambda: list(itertools.islice(items, size)), [])
        made: group = group([xstarmap(task, part, app=self._app) for part in parts], app=self._app)
        made["options"].update(self.options)
        return made

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        return self.group().apply_async((), None, **options)

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        return self.group().apply((), None, **options)

    def __repr__(self) -> str:
        kwargs = self["kwargs"]
        return f"chunks({kwargs['task']['task']}, {kwargs['it']!r}, {kwargs['n']})"


def _described(task: Any, app: Any) -> Any:
    if isinstance(task, Mapping):
        return maybe_signature(task, app=app, clone=True)
    return task.s()
