"""Signature: one call of a task, as a dictionary that Celery reads and writes too.

The keys are those of the wire format: ``task``, ``args``, ``kwargs``, ``options``,
``subtask_type``, ``immutable``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from celeriac.utils import uuid

if TYPE_CHECKING:
    from celeriac.result import AsyncResult as Result
    from celeriac.result import EagerResult


R = TypeVar("R")
C = TypeVar("C", bound=type)


class Signature(dict[str, Any], Generic[R]):
    """A task's name with arguments and options. Later arguments are put in front of its own;
    an immutable one takes none. ``R`` is what the task returns."""

    TYPES: ClassVar[dict[str, Any]] = {}  # subtask_type to class

    _app: Any = None
    _type: Any = None

    @classmethod
    def register_type(cls, name: str) -> Callable[[C], C]:
        """A class decorator: dictionaries with this ``subtask_type`` become objects of it."""

        def register(made: C) -> C:
            cls.TYPES[name] = made
            return made

        return register

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
    def from_dict(cls, value: Mapping[str, Any], app: Any = None) -> Signature[R]:
        """The signature that a dictionary describes, of the class that it names."""
        kind = value.get("subtask_type")
        if kind is not None and cls is Signature:
            named = cls.TYPES.get(kind)
            if named is not None:
                return cast("Signature[R]", named.from_dict(value, app))
        return cast("Signature[R]", cls._filled(value, app))

    @classmethod
    def _filled(cls, value: Mapping[str, Any], app: Any) -> Any:
        made: Any = dict.__new__(cls)
        dict.update(made, value)
        made._app = app
        for key, default in _DEFAULTS.items():
            if made.get(key) is None:
                made[key] = copy.copy(default)
        return made

    @property
    def task(self) -> str:
        return cast(str, self["task"])

    @task.setter
    def task(self, name: str) -> None:
        self["task"] = name

    @property
    def name(self) -> str:
        return self.task

    @property
    def args(self) -> tuple[Any, ...]:
        return tuple(self["args"] or ())

    @args.setter
    def args(self, args: Iterable[Any]) -> None:
        self["args"] = tuple(args)

    @property
    def kwargs(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self["kwargs"])

    @kwargs.setter
    def kwargs(self, kwargs: Mapping[str, Any]) -> None:
        self["kwargs"] = dict(kwargs)

    @property
    def options(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self["options"])

    @options.setter
    def options(self, options: Mapping[str, Any]) -> None:
        self["options"] = dict(options)

    @property
    def subtask_type(self) -> str | None:
        return self.get("subtask_type")

    @property
    def immutable(self) -> bool:
        return bool(self.get("immutable"))

    @immutable.setter
    def immutable(self, immutable: bool) -> None:
        self["immutable"] = immutable

    @property
    def id(self) -> str | None:
        return self.options.get("task_id")

    @property
    def parent_id(self) -> str | None:
        return self.options.get("parent_id")

    @property
    def root_id(self) -> str | None:
        return self.options.get("root_id")

    @property
    def AsyncResult(self) -> Any:
        """What makes a result of its task from an id."""
        task = self.type
        return task.AsyncResult if task is not None else self.app.AsyncResult

    @property
    def app(self) -> Any:
        if self._app is None:
            self._app = self._find_app()
        if self._app is None:
            from celeriac.app import get_current_app

            self._app = get_current_app()
        return self._app

    def _find_app(self) -> Any:
        """The application that it was made with; None if that was left open."""
        if self._app is None and self._type is not None:
            return self._type.app
        return self._app

    @property
    def type(self) -> Any:
        """The task, if it is registered here; else None."""
        if self._type is None:
            self._type = self.app.tasks.get(self.task)
        return self._type

    def _task_here(self) -> Any:
        """The task. Raises NotRegistered."""
        return self.type if self.type is not None else self.app.tasks[self.task]

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
    ) -> Signature[R]:
        """A copy with the arguments put in front and the options merged; self is unchanged."""
        new_args, new_kwargs, new_options = self._merge(args, kwargs, options)
        made: Signature[R] = Signature.from_dict(self, app=self._app)
        made._type = self._type
        made.update(args=new_args, kwargs=new_kwargs, options=_copied(new_options))
        return made

    partial = clone

    def set(self, immutable: bool | None = None, **options: Any) -> Signature[R]:
        """Change options in place; returns self."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        self["immutable"] = immutable

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
        **options: Any,
    ) -> Result[R]:
        """Fix the id now; the result that sending it will give."""
        own = self.options
        if _id is not None:
            own["task_id"] = _id
        if not own.get("task_id"):
            own["task_id"] = new_id()
        own.update(
            {
                key: value
                for key, value in {
                    "root_id": root_id,
                    "parent_id": parent_id,
                    "group_id": group_id,
                    "chord": chord,
                    "group_index": group_index,
                    **options,
                }.items()
                if value is not None
            }
        )
        result = self.app.AsyncResult(own["task_id"], task_name=self.task)
        ignored = own.get("ignore_result")
        if ignored is None and self.type is not None:
            ignored = self.type.ignore_result
        result.ignored = bool(ignored)
        return cast("Result[R]", result)

    def replace(
        self, args: Any = None, kwargs: Any = None, options: Mapping[str, Any] | None = None
    ) -> Signature[R]:
        """A copy in which what is given takes the place of its own."""
        made = self.clone()
        if args is not None:
            made.args = args
        if kwargs is not None:
            made.kwargs = kwargs
        if options is not None:
            made.options = options
        return made

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

    def on_error(self, errback: Any) -> Signature[R]:
        """``link_error`` that returns self."""
        self.link_error(errback)
        return self

    def append_to_list_option(self, key: str, value: Any) -> Any:
        return self._append(key, value)

    def extend_list_option(self, key: str, value: Any) -> None:
        for one in listed(value):
            self._append(key, one)

    def flatten_links(self) -> list[Any]:
        """The signature, and all that its callbacks lead to."""
        return [self, *self._links_below()]

    def _links_below(self) -> Iterator[Any]:
        for callback in listed(self.options.get("link")):
            yield from maybe_signature(callback, app=self._app).flatten_links()

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> None:
        """Put stamps on it and on what it leads to: headers that its tasks will carry. See
        StampingVisitor."""
        from celeriac.canvas.stamping import stamp

        stamp(self, visitor, append_stamps, headers)

    def stamp_links(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> None:
        """``stamp`` for callbacks and errbacks only."""
        from celeriac.canvas.stamping import stamp_links

        stamp_links(self, visitor, append_stamps, headers)

    def __or__(self, other: Any) -> Any:
        """This, then ``other`` with its result."""
        if not isinstance(other, Signature):
            return NotImplemented
        from celeriac.canvas.composing import compose

        return compose(self, other)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Result[R]:
        """Send it. Raises OperationalError if the broker cannot be reached in time."""
        new_args, new_kwargs, new_options = self._merge(args, kwargs, options)
        task = self.type
        if task is not None:
            return cast("Result[R]", task.apply_async(new_args, new_kwargs, **new_options))
        return cast(
            "Result[R]",
            self.app.send_task(self.task, new_args, new_kwargs, **new_options),
        )

    def delay(self, *args: Any, **kwargs: Any) -> Result[R]:
        return self.apply_async(args, kwargs)

    async def aapply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Result[R]:
        """``apply_async`` for coroutines: the event loop is not blocked."""
        new_args, new_kwargs, new_options = self._merge(args, kwargs, options)
        task = self.type
        if task is not None:
            sent = await task.aapply_async(new_args, new_kwargs, **new_options)
        else:
            sent = await self.app.asend_task(self.task, new_args, new_kwargs, **new_options)
        return cast("Result[R]", sent)

    async def adelay(self, *args: Any, **kwargs: Any) -> Result[R]:
        return await self.aapply_async(args, kwargs)

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[R]:
        """Run it here and now. Raises NotRegistered if the task is not known here."""
        new_args, new_kwargs, new_options = self._merge(args, kwargs, options)
        done = self._task_here().apply(new_args, new_kwargs, **new_options)
        return cast("EagerResult[R]", done)

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Call the function itself. Raises NotRegistered if the task is not known here."""
        new_args, new_kwargs, _ = self._merge(args, kwargs, {})
        return cast(R, self._task_here()(*new_args, **new_kwargs))

    def __invert__(self) -> R:
        return self.apply_async().get()

    def reprcall(self, *args: Any) -> str:
        shown = [repr(value) for value in (*args, *self.args)]
        shown += [f"{key}={value!r}" for key, value in self.kwargs.items()]
        return f"{self.task}({', '.join(shown)})"

    def __repr__(self) -> str:
        return self.reprcall()

    def __deepcopy__(self, memo: dict[int, Any]) -> Signature[R]:
        made: Signature[R] = Signature.from_dict(
            {k: copy.deepcopy(v, memo) for k, v in self.items()}
        )
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


_ids: ContextVar[Callable[[], str]] = ContextVar("celeriac_canvas_ids", default=uuid)


def new_id() -> str:
    """An id for a part of a workflow."""
    return _ids.get()()


@contextmanager
def ids_from(make: Callable[[], str]) -> Iterator[None]:
    """In this block parts without ids get theirs from ``make``."""
    token = _ids.set(make)
    try:
        yield
    finally:
        _ids.reset(token)


def _copied(options: Mapping[str, Any]) -> dict[str, Any]:
    """A copy whose lists and dictionaries can be changed; what they hold is shared."""
    return {
        key: list(value) if type(value) is list else dict(value) if type(value) is dict else value
        for key, value in options.items()
    }


def listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def signature(varies: Any, *args: Any, **kwargs: Any) -> Signature[Any]:
    """A signature from a task, a task's name, or a dictionary of one."""
    app: Any = kwargs.pop("app", None)
    if isinstance(varies, Signature):
        return varies.clone()
    if isinstance(varies, Mapping):
        return Signature.from_dict(varies, app=app)
    made: Signature[Any] = Signature(varies, *args, **kwargs)
    made._app = app if app is not None else made._app
    return made


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
