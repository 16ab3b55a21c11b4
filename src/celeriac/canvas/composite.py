"""What chain, group and chord have in common: signatures that are made of signatures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from celeriac.canvas.signature import Signature, _copied, listed, maybe_signature

if TYPE_CHECKING:
    from celeriac.result import EagerResult


class Composite(Signature[Any]):
    """Its arguments are put in front of those of its first tasks. What it is made of is copied
    before it is changed, so that copies may share it."""

    @classmethod
    def make(
        cls, kind: str, kwargs: dict[str, Any], options: Mapping[str, Any], app: Any = None
    ) -> Any:
        made = dict.__new__(cls)
        made.update(
            task=f"celery.{kind}",
            args=(),
            kwargs=kwargs,
            options=dict(options),
            subtask_type=kind,
            immutable=False,
        )
        made._app = app
        return made

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], app: Any = None) -> Any:
        made = cls._filled(value, app)
        made["kwargs"] = dict(made["kwargs"])
        made._read_parts()
        return made

    def _read_parts(self) -> None:
        """Make signatures of the dictionaries that the parts may be."""
        self["kwargs"]["tasks"] = signatures(self["kwargs"].get("tasks"), self._app)

    def _find_app(self) -> Any:
        found = (part._find_app() for part in self._parts())
        return self._app or next((app for app in found if app is not None), None)

    @property
    def type(self) -> Any:
        return None

    def _parts(self) -> list[Signature[Any]]:
        """The signatures directly inside."""
        return list(self.tasks)

    @property
    def tasks(self) -> list[Signature[Any]]:
        found: list[Signature[Any]] = self["kwargs"]["tasks"]
        return found

    @tasks.setter
    def tasks(self, tasks: Iterable[Any]) -> None:
        self["kwargs"]["tasks"] = signatures(tasks, self._app)

    def _take_kwargs(self, kwargs: Mapping[str, Any]) -> None:
        """Keyword arguments for the first tasks."""
        raise NotImplementedError

    def clone(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        made = type(self).from_dict(self, self._app)
        if not self.immutable:
            made["args"] = (*(args or ()), *self.args)
            if kwargs:
                made._take_kwargs(kwargs)
        given = {key: value for key, value in options.items() if value is not None}
        made["options"] = _copied({**self.options, **given})
        return made

    partial = clone

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Send what can begin now; the result of the whole. Raises as ``Task.delay``. With
        thousands of tasks: what was sent before an error stays sent."""
        return self.app.dispatcher.send_canvas(self, args, kwargs, options)

    async def aapply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        return await self.app.dispatcher.asend_canvas(self, args, kwargs, options)

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[Any]:
        """Run it here and now; nothing is sent."""
        from celeriac.canvas.eager import run

        result: EagerResult[Any] = run(self.clone(args, kwargs), options)
        return result

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.apply_async(args, **options)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made = self.clone()
        for position, part in enumerate(made["kwargs"].get("tasks") or ()):
            made["kwargs"]["tasks"][position] = part.__deepcopy__(memo)
        return made

    def with_links(self) -> list[Signature[Any]]:
        """The tasks of a chain or group, with its errbacks on each of them."""
        errbacks = listed(self.options.get("link_error"))
        return [with_errbacks(task, errbacks) for task in self.tasks] if errbacks else self.tasks


def with_errbacks(task: Signature[Any], errbacks: list[Any]) -> Signature[Any]:
    """A copy with these errbacks too; itself if there are none."""
    if not errbacks:
        return task
    made: Signature[Any] = task.clone()
    for errback in errbacks:
        made.link_error(errback)
    return made


def with_callbacks(task: Signature[Any], callbacks: list[Any]) -> Signature[Any]:
    """A copy with these callbacks too; itself if there are none."""
    if not callbacks:
        return task
    made: Signature[Any] = task.clone()
    for callback in callbacks:
        made.link(callback)
    return made


def signatures(values: Any, app: Any = None) -> list[Signature[Any]]:
    """A list of signatures from anything iterable of signatures and dictionaries."""
    if values is None:
        return []
    return [
        value if isinstance(value, Signature) else maybe_signature(value, app=app)
        for value in values
    ]
