"""group: several tasks at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from celeriac.canvas.composite import Composite, with_callbacks
from celeriac.canvas.signature import Signature, maybe_signature, new_id


@Signature.register_type("group")
class group(Composite):
    """``group(a, b)``, ``group([a, b])`` or ``group(a for ...)``: all run at once, in any order;
    the result is a GroupResult with theirs, in this order. Groups inside are unrolled."""

    def __new__(cls, *tasks: Any, **options: Any) -> Any:
        app = options.pop("app", None)
        given: Iterable[Any] = tasks
        if len(tasks) == 1:
            (only,) = tasks
            if isinstance(only, group):
                given = only.tasks
            elif not isinstance(only, Mapping):
                given = only
        members = [maybe_signature(task, app=app, clone=True) for task in given]
        return cls.make("group", {"tasks": members}, options, app)

    def __init__(self, *tasks: Any, **options: Any) -> None:
        pass  # all is done by __new__, which from_dict and the like do not pass through

    def _take_kwargs(self, kwargs: Mapping[str, Any]) -> None:
        self["kwargs"]["tasks"] = [task.clone(kwargs=kwargs) for task in self.tasks]

    def __len__(self) -> int:
        """How many tasks it has, as in Celery."""
        return len(self.tasks)

    def __bool__(self) -> bool:
        return True  # an empty group is a group, and no empty dictionary

    def members(self) -> list[Signature[Any]]:
        """The tasks in order, those of groups inside among them."""
        return list(_unrolled(self))

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
        """Fix all ids; the GroupResult."""
        own = self["options"]
        gid = _id or own.get("task_id") or new_id()
        own["task_id"] = gid
        self._place(group_id, chord, group_index)
        results = []
        members = []
        for index, member in enumerate(self.members()):
            frozen = member.clone()
            results.append(frozen.freeze(root_id=root_id, parent_id=parent_id))
            frozen["options"]["group_index"] = index
            members.append(frozen)
        self["kwargs"]["tasks"] = members
        return self.app.GroupResult(gid, results)

    def _place(self, group_id: Any, chord: Any, index: Any) -> None:
        given = {"group_id": group_id, "chord": chord, "group_index": index}
        self["options"].update({k: v for k, v in given.items() if v is not None})

    def set_immutable(self, immutable: bool) -> None:
        """Of every task in it."""
        self["kwargs"]["tasks"] = [task.clone().set(immutable=immutable) for task in self.tasks]

    def link(self, callback: Any) -> Any:
        """To the first task only, which gives it no result: there is nobody else to send it."""
        if self.tasks:
            fixed = maybe_signature(callback, app=self._app, clone=True).set(immutable=True)
            self["kwargs"]["tasks"] = [with_callbacks(self.tasks[0], [fixed]), *self.tasks[1:]]
        return callback

    def link_error(self, errback: Any) -> Any:
        """To every task."""
        members = [task.clone() for task in self.tasks]
        for member in members:
            member.link_error(errback)
        self["kwargs"]["tasks"] = members
        return errback

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> group:
        """Let the tasks start one after the other: ``start`` seconds from now, then ``step``
        seconds apart, beginning again at ``stop``."""
        times = itertools.count(start, step)
        if stop is not None:
            count = max(1, int((stop - start) / step))
            times = itertools.cycle([start + number * step for number in range(count)])  # type: ignore[assignment]
        self["kwargs"]["tasks"] = [
            task.clone().set(countdown=wait) for task, wait in zip(self.tasks, times, strict=False)
        ]
        return self

    def __repr__(self) -> str:
        return f"group({', '.join(map(repr, self.tasks)) or '<empty>'})"


def _unrolled(outer: Any) -> Any:
    for task in outer.with_links():
        if task.subtask_type == "chunks":
            task = task.group()
        if isinstance(task, group):
            for inner in _unrolled(task):
                yield inner.clone(task.args) if task.args else inner
        else:
            yield task
