"""Signature: one call of a task, as a dictionary that Celery reads and writes too.

The keys are those of the wire format: ``task``, ``args``, ``kwargs``, ``options``,
``subtask_type``, ``immutable``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from celeriac.utils import uuid

if TYPE_CHECKING:
    from celeriac.result import AsyncResult


class Signature(dict[str, Any]):
    """A task's name with arguments and options. Later arguments are put in front of its own;
    an immutable one takes none."""

    _app: Any = None
    _type: Any = None

    def __init__(
        self,
        task: Any = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        type: Any = None,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Any = None,
        **more_options: Any,
    ) -> None:
        self._app = app
        if isinstance(task, dict):
            super().__init__(task)
            return
        name = task if isinstance(task, str) or task is None else task.name
        if task is not None and not isinstance(task, str):
            self._type = task
        elif type is not None:
            self._type = type
        super().__init__(
            task=name,
            args=tuple(args or ()),
            kwargs=dict(kwargs or {}),
            options={**(options or {}), **more_options},
            subtask_type=subtask_type,
            immutable=immutable,
        )

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], app: Any = None) -> Signature:
        """The signature that a dictionary describes."""
        made = cls(dict(value), app=app)
        for key, default in _DEFAULTS.items():
            made.setdefault(key, copy.copy(default))
        return made

    @property
    def task(self) -> str:
        return cast(str, self["task"])

    @property
    def name(self) -> str:
        return self.task

    @property
    def args(self) -> tuple[Any, ...]:
        return tuple(self["args"] or ())

    @property
    def kwargs(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self["kwargs"])

    @property
    def options(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self["options"])

    @property
    def immutable(self) -> bool:
        return bool(self.get("immutable"))

    @property
    def id(self) -> str | None:
        return self.options.get("task_id")

    @property
    def app(self) -> Any:
        if self._app is None:
            from celeriac.app import get_current_app

            self._app = self._type.app if self._type is not None else get_current_app()
        return self._app

    @property
    def type(self) -> Any:
        """The task, if it is registered here; else None."""
        if self._type is None:
            self._type = self.app.tasks.get(self.task)
        return self._type

    def _merge(
        self,
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        merged = {**self.options, **{k: v for k, v in options.items() if v is not None}}
        if self.immutable:
            return self.args, dict(self.kwargs), merged
        return (*(args or ()), *self.args), {**self.kwargs, **(kwargs or {})}, merged

    def clone(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Signature:
        """A copy with the arguments put in front and the options merged; self is unchanged."""
        new_args, new_kwargs, new_options = self._merge(args, kwargs, options)
        made = Signature.from_dict(self, app=self._app)
        made._type = self._type
        made.update(args=new_args, kwargs=new_kwargs, options=copy.deepcopy(new_options))
        return made

    partial = clone

    def set(self, immutable: bool | None = None, **options: Any) -> Signature:
        """Change options in place; returns self."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        self["immutable"] = immutable

    def freeze(self, task_id: str | None = None, **options: Any) -> AsyncResult[Any]:
        """Fix the id now; the result that sending it will give."""
        if task_id is not None:
            self.options["task_id"] = task_id
        self.options.setdefault("task_id", uuid())
        self.options.update({k: v for k, v in options.items() if v is not None})
        return cast("AsyncResult[Any]", self.app.AsyncResult(self.options["task_id"]))

    def _append(self, key: str, value: Any) -> Any:
        items = self.options.setdefault(key, [])
        if not isinstance(items, list):
            items = self.options[key] = [items]
        if value not in items:
            items.append(value)
        return value

    def link(self, callback: Any) -> Any:
        """Send ``callback`` with the return value when the task succeeds; returns it."""
        return self._append("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Send ``errback`` when the task fails; returns it."""
        return self._append("link_error", errback)

    def on_error(self, errback: Any) -> Signature:
        """``link_error`` that returns self."""
        self.link_error(errback)
        return self

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Send it. Raises OperationalError if the broker cannot be reached in time."""
        new_args, new_kwargs, new_options = self._merge(args, kwargs, options)
        task = self.type
        if task is not None:
            return cast("AsyncResult[Any]", task.apply_async(new_args, new_kwargs, **new_options))
        return cast(
            "AsyncResult[Any]",
            self.app.send_task(self.task, new_args, new_kwargs, **new_options),
        )

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        return self.apply_async(args, kwargs)

    async def adelay(self, *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        """``delay`` for coroutines: the event loop is not blocked."""
        new_args, new_kwargs, new_options = self._merge(args, kwargs, {})
        return cast(
            "AsyncResult[Any]",
            await self.app.asend_task(self.task, new_args, new_kwargs, **new_options),
        )

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Run it here and now; an EagerResult."""
        new_args, new_kwargs, new_options = self._merge(args, kwargs, options)
        return self.type.apply(new_args, new_kwargs, **new_options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        new_args, new_kwargs, _ = self._merge(args, kwargs, {})
        return self.type(*new_args, **new_kwargs)

    def __invert__(self) -> Any:
        return self.apply_async().get()

    def reprcall(self, *args: Any) -> str:
        shown = [repr(value) for value in (*args, *self.args)]
        shown += [f"{key}={value!r}" for key, value in self.kwargs.items()]
        return f"{self.task}({', '.join(shown)})"

    def __repr__(self) -> str:
        return self.reprcall()

    def __deepcopy__(self, memo: dict[int, Any]) -> Signature:
        made = Signature.from_dict({k: copy.deepcopy(v, memo) for k, v in self.items()})
        made._app, made._type = self._app, self._type
        return made

    def __reduce__(self) -> Any:
        return Signature.from_dict, (dict(self),)


_DEFAULTS: dict[str, Any] = {
    "task": None,
    "args": (),
    "kwargs": {},
    "options": {},
    "subtask_type": None,
    "immutable": False,
}


def signature(varies: Any, *args: Any, **kwargs: Any) -> Signature:
    """A signature from a task, a task's name, or a dictionary of one."""
    app = kwargs.pop("app", None)
    if isinstance(varies, Signature):
        return varies.clone()
    if isinstance(varies, Mapping):
        return Signature.from_dict(varies, app=app)
    return Signature(varies, *args, app=app, **kwargs)


subtask = signature


def maybe_signature(value: Any, app: Any = None, clone: bool = False) -> Any:
    """A signature from a dictionary of one; anything else as it is."""
    if value is None:
        return None
    if isinstance(value, Signature):
        made = value.clone() if clone else value
    elif isinstance(value, Mapping):
        made = Signature.from_dict(value, app=app)
    else:
        return value
    if app is not None:
        made._app = app
    return made
