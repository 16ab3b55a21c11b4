"""Letting other tasks take the place of a running call, or join it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celeriac.canvas.compiling import Compiler
from celeriac.canvas.signature import Signature
from celeriac.exceptions import Ignore
from celeriac.execution import Replaced
from celeriac.request import Request

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.task.base import Task


def replacement(task: Task[Any, Any], sig: Signature[Any]) -> Signature[Any]:
    """What is to be sent in the place of the running call: ``sig``, followed by what follows that.
    Raises RuntimeError outside a call."""
    request = task.request
    if sig.subtask_type == "chunks":
        sig = sig.group()  # type: ignore[attr-defined]
    if sig.subtask_type == "group":
        sig = sig | task.app.signature("celery.accumulate", kwargs={"index": 0})
    if request.called_directly:
        raise RuntimeError(f"{task.name} was called as a function: there is nothing to replace")
    replacement = sig.clone()
    for errback in request.errbacks or ():
        replacement.link_error(errback)
    for callback in request.callbacks or ():
        replacement.link(callback)
    return replacement


def replace(task: Task[Any, Any], sig: Signature[Any]) -> Any:
    """Send it when the call is settled, and end the call by raising Ignore; eagerly, run it, and
    end the call with its value."""
    request = task.request
    if request.is_eager:
        raise Replaced(sig.apply().get(disable_sync_subtasks=False))
    _take_place(task.app, request, sig)
    raise Ignore("Replaced by new task")


def _take_place(app: Celeriac, request: Request, sig: Signature[Any]) -> None:
    given = {
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "chain": request.chain,
        "group_id": request.group,
        "group_index": request.group_index,
        "chord": request.chord,
        "replaced_task_nesting": request.replaced_task_nesting + 1,
    }
    options = {key: value for key, value in given.items() if value is not None}
    if request.chord is None:
        options.pop("group_index", None)
    sig = sig.clone()
    sig.freeze(request.id)
    compiled = Compiler(app.dispatcher.first_message, app.conf.result_chord_expires)
    compiled.add(sig, (), None, options)
    request._followups = [*(request._followups or ()), *compiled.messages]
    request._joins = [*(request._joins or ()), *compiled.joins]
    request._replaced = True


def add_to_chord(task: Task[Any, Any], sig: Signature[Any], lazy: bool) -> Any:
    """``Task.add_to_chord``."""
    request = task.request
    if request.chord is None or request.group is None:
        raise ValueError(f"{task.name}[{request.id}] is not part of the header of a chord")
    added = sig.clone()
    result = added.freeze()
    request._added = [*(request._added or ()), added]
    return added if lazy else result
