"""What ``|`` makes of two signatures (celery-api.md 4)."""

from __future__ import annotations

from typing import Any

from celeriac.canvas.chains import chain, linked
from celeriac.canvas.chords import chord
from celeriac.canvas.groups import group
from celeriac.canvas.signature import Signature, listed


def compose(left: Signature[Any], right: Signature[Any]) -> Any:
    """``left``, then ``right`` with its result. Neither is changed."""
    if not isinstance(left, chain):
        steps = [left.clone()]
        join_steps(steps, right.clone())
        return steps[0] if len(steps) == 1 else chain.make("chain", {"tasks": steps}, {}, left._app)
    steps = _unchained(left)
    join_steps(steps, right.clone())
    options = {k: v for k, v in left.options.items() if k not in ("link", "link_error")}
    made = chain.make("chain", {"tasks": steps}, options, left._app)
    made["args"], made["immutable"] = left["args"], left["immutable"]
    return made


def join_steps(steps: list[Signature[Any]], step: Signature[Any]) -> None:
    """Put one more step at the end of those of a chain: a chain's own steps one by one, the only
    task of a group as itself; a group that was the last becomes the header of a chord. A group
    of none after a group or a chain is nothing."""
    if isinstance(step, chain):
        for inner in _unchained(step):
            join_steps(steps, inner)
        return
    after_group = bool(steps) and isinstance(steps[-1], group)
    if (after_group or len(steps) > 1) and is_empty_group(step):
        return
    step = _plain(step, first=not steps or (after_group and len(steps) == 1))
    if isinstance(step, chain):
        join_steps(steps, step)
        return
    if steps:
        last = _plain(steps[-1], first=len(steps) == 1)
        if isinstance(last, group):
            steps[-1] = _upgraded(last, step)
            return
        if isinstance(last, chord) and not isinstance(step, group):
            steps[-1] = last.followed_by(step)
            return
    steps.append(step)


def is_empty_group(step: Any) -> bool:
    return isinstance(step, group) and not step.tasks


def only_member(step: Any) -> Any:
    """The member of a group of one, which is itself a step of a chain; any other step."""
    return _plain(step, first=False) if isinstance(step, group) else step


def _plain(step: Any, first: bool) -> Signature[Any]:
    """Chunks as the group that they are, a group of one as its member; but not at the beginning:
    ``group(a) | b`` gives b a list, too, and ``group(a, b) | group(c)`` a list of one."""
    if step.subtask_type == "chunks":
        step = step.group()
    if not first and isinstance(step, group) and len(step.tasks) == 1:
        (only,) = step.with_links()
        step = only.clone(step.args)
    found: Signature[Any] = step
    return found


def _upgraded(header: group, body: Signature[Any]) -> chord:
    """A chord of a group and what follows it, with the group's options and arguments."""
    options = {k: v for k, v in header.options.items() if k != "task_id"}
    made: chord = chord(header, body, args=header.args, **options)
    plain = made.header.clone()
    plain["args"] = ()
    plain["options"] = {k: v for k, v in header.options.items() if k == "task_id"}
    made["kwargs"]["header"] = plain
    return made


def _unchained(outer: chain) -> list[Signature[Any]]:
    """The tasks of a chain with what is linked to it, and its arguments, on them."""
    steps = linked(
        outer.tasks, listed(outer.options.get("link")), listed(outer.options.get("link_error"))
    )
    if outer.args and steps:
        steps = [steps[0].clone(outer.args), *steps[1:]]
    return list(steps)
