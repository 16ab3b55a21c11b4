"""chain: tasks one after the other, each with the result of the one before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from celeriac.canvas.composite import Composite, with_callbacks, with_errbacks
from celeriac.canvas.signature import Signature, listed, maybe_signature
from celeriac.result import oldest


@Signature.register_type("chain")
class chain(Composite):
    """``chain(a, b, c)``, the same as ``a | b | c``: a chord, if the first is a group and there
    is one more. The result is that of the last; ``parent`` leads back. As Celery has it, a group
    of one in a chain is its member, at the beginning too, and one of none is left out."""

    def __new__(cls, *tasks: Any, **options: Any) -> Any:
        from celeriac.canvas.composing import is_empty_group, join_steps, only_member

        app = options.pop("app", None)
        given: Iterable[Any] = tasks
        if len(tasks) == 1 and not isinstance(tasks[0], Mapping):
            (given,) = tasks
        made = [maybe_signature(task, app=app, clone=True) for task in given]
        count = len(made)
        if count > 1:
            made = [only_member(made[0]), *(step for step in made[1:] if not is_empty_group(step))]
        steps: list[Signature[Any]] = []
        for step in made:
            join_steps(steps, step)
        if count > 1 and len(steps) == 1 and not options:
            return steps[0]
        return cls.make("chain", {"tasks": steps}, options, app)

    def __init__(self, *tasks: Any, **options: Any) -> None:
        pass  # all is done by __new__

    def _take_kwargs(self, kwargs: Mapping[str, Any]) -> None:
        if self.tasks:
            self["kwargs"]["tasks"] = [self.tasks[0].clone(kwargs=kwargs), *self.tasks[1:]]

    def steps(self) -> list[Signature[Any]]:
        """The tasks as they will run: chains inside unrolled, groups that something follows made
        chords, what is linked to the chain on the task that it belongs to."""
        from celeriac.canvas.composing import join_steps

        steps: list[Signature[Any]] = []
        for task in self.tasks:
            join_steps(steps, task)
        last = steps[-1] if len(steps) > 1 else None
        if last is not None and last.subtask_type == "group" and not last["kwargs"]["tasks"]:
            steps.pop()  # an empty group at the end is nothing
        return linked(
            steps, listed(self.options.get("link")), listed(self.options.get("link_error"))
        )

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
        """Fix all ids; the result of the last task. None for an empty chain."""
        own = self["options"]
        links = {key: own.pop(key) for key in ("link", "link_error") if key in own}
        steps = [step.clone() for step in self.steps()]
        own.update(links)
        result = None
        for position, step in enumerate(steps):
            place: dict[str, Any] = {}
            if position == len(steps) - 1:
                place = {"group_id": group_id, "chord": chord, "group_index": group_index}
                place["_id"] = _id or own.get("task_id")
            if position == 0:
                place["parent_id"] = parent_id
            made = step.freeze(root_id=root_id, **place)
            if result is not None:
                oldest(made).parent = result
            result = made
        self["kwargs"]["tasks"] = steps
        if result is not None:
            own["task_id"] = result.id
        return result

    def unchain_tasks(self) -> list[Signature[Any]]:
        """Copies of the tasks, with what is linked to the chain on those that it belongs to."""
        return [step.clone() for step in self.steps()]

    def set_immutable(self, immutable: bool) -> None:
        """Of the first task."""
        if self.tasks:
            self["kwargs"]["tasks"] = [
                self.tasks[0].clone().set(immutable=immutable),
                *self.tasks[1:],
            ]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.apply_async(args, kwargs)

    def __repr__(self) -> str:
        if not self.tasks:
            return "<chain: empty>"
        return " | ".join(map(repr, self.tasks))


def linked(
    steps: list[Signature[Any]], callbacks: list[Any], errbacks: list[Any]
) -> list[Signature[Any]]:
    """Steps of a chain with callbacks on the last and errbacks on each."""
    if errbacks:
        steps = [with_errbacks(step, errbacks) for step in steps]
    if callbacks and steps:
        steps = [*steps[:-1], with_callbacks(steps[-1], callbacks)]
    return steps
