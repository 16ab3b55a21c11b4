"""chord: several tasks at once, then one with all their results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from celeriac.canvas.composite import Composite, signatures
from celeriac.canvas.groups import group
from celeriac.canvas.signature import Signature, maybe_signature, new_id
from celeriac.result import oldest


@Signature.register_type("chord")
class chord(Composite):
    """``chord(header, body)`` or ``chord(header)(body)``: when all tasks of ``header`` have
    succeeded, ``body`` is called with the list of their results, in the order of the header."""

    def __new__(
        cls,
        header: Any = (),
        body: Any = None,
        task: str = "celery.chord",
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        app: Any = None,
        **options: Any,
    ) -> Any:
        parts = {
            "kwargs": dict(kwargs or {}),
            "header": _header(header, app, clone=True),
            "body": maybe_signature(body, app=app, clone=True),
        }
        made = cls.make("chord", parts, options, app)
        made["args"] = tuple(args)
        return made

    def __init__(self, *args: Any, **options: Any) -> None:
        pass  # all is done by __new__

    def _read_parts(self) -> None:
        parts = self["kwargs"]
        parts["header"] = _header(parts.get("header") or (), self._app)
        parts["body"] = maybe_signature(parts.get("body"), app=self._app)
        parts.setdefault("kwargs", {})

    def _parts(self) -> list[Signature[Any]]:
        return [*self.tasks, *([self.body] if self.body is not None else [])]

    @property
    def header(self) -> group:
        found: group = self["kwargs"]["header"]
        return found

    @property
    def tasks(self) -> list[Signature[Any]]:
        return self.header.tasks

    @tasks.setter
    def tasks(self, tasks: Iterable[Any]) -> None:
        header = self.header.clone()
        header["kwargs"]["tasks"] = signatures(tasks, self._app)
        self["kwargs"]["header"] = header

    @property
    def body(self) -> Any:
        return self["kwargs"].get("body")

    @body.setter
    def body(self, body: Any) -> None:
        self["kwargs"]["body"] = body

    def _take_kwargs(self, kwargs: Mapping[str, Any]) -> None:
        given = dict(kwargs)
        body = given.pop("body", None)
        if body is not None:
            self.body = maybe_signature(body, app=self._app, clone=True)
        self["kwargs"]["kwargs"] = {**self["kwargs"]["kwargs"], **given}

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send it, with this body."""
        return self.apply_async((), {"body": body} if body is not None else None, **options)

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
        **options: Any,
    ) -> Any:
        """Fix all ids; the result of the body, whose ``parent`` is the header's."""
        own = self["options"]
        header = self.header.clone()
        gid = header["options"].get("task_id") or own.get("task_id") or new_id()
        header_result = header.freeze(gid, root_id=root_id, parent_id=parent_id)
        own["task_id"] = gid  # that of the header, as Celery has it
        self["kwargs"]["header"] = header
        if self.body is None:
            return header_result
        body = self.body = self.body.clone()
        result = body.freeze(
            _id, group_id=group_id, chord=chord, root_id=root_id, group_index=group_index
        )
        if result is None:  # an empty chain
            return header_result
        oldest(result).parent = header_result
        return result

    def set_immutable(self, immutable: bool) -> None:
        """Of the body."""
        self.body = self.body.clone().set(immutable=immutable)

    def link(self, callback: Any) -> Any:
        """To the body."""
        self.body = self.body.clone()
        self.body.link(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """To the body; with ``task_allow_error_cb_on_chord_header`` to every task of the header
        too."""
        if self.app.conf.task_allow_error_cb_on_chord_header:
            header = self.header.clone()
            header.link_error(maybe_signature(errback, app=self._app, clone=True))
            self["kwargs"]["header"] = header
        if self.body is not None:
            self.body = self.body.clone()
            self.body.link_error(errback)
        return errback

    def followed_by(self, step: Signature[Any]) -> chord:
        """A copy with one more step after the body."""
        made: chord = self.clone()
        made.body = step if self.body is None else self.body | step
        return made

    def __length_hint__(self) -> int:
        return len(self.header.members())

    def __repr__(self) -> str:
        return f"chord([{', '.join(map(repr, self.tasks))}], {self.body!r})"


def _header(header: Any, app: Any, clone: bool = False) -> group:
    """A group of what a header may be: a group, its dictionary, or anything iterable."""
    if isinstance(header, Mapping):
        found = maybe_signature(header, app=app, clone=clone)
        if isinstance(found, group):
            return found
        header = [found]
    made: group = group.make("group", {"tasks": []}, {}, app)
    made["kwargs"]["tasks"] = [maybe_signature(task, app=app, clone=clone) for task in header]
    return made
