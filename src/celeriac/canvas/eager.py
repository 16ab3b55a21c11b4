"""Running a workflow here and now, in the order of its tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celeriac import states
from celeriac.canvas.chains import chain, linked
from celeriac.canvas.chords import chord
from celeriac.canvas.compiling import ends, errbacks_of
from celeriac.canvas.groups import group
from celeriac.canvas.signature import Signature, listed, maybe_signature
from celeriac.errbacks import call_errback
from celeriac.exceptions import ChordError
from celeriac.request import Request
from celeriac.result import EagerResult, oldest


def run(sig: Any, options: Mapping[str, Any] | None = None) -> Any:
    """The result of a workflow that is not frozen yet: an EagerResult, or a GroupResult of them.
    None for an empty chain."""
    given = {key: value for key, value in (options or {}).items() if value is not None}
    task_id = given.pop("task_id", None)
    if sig.freeze(task_id) is None:
        return None
    return _run(sig, (), given)


def _run(sig: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    if isinstance(sig, chain):
        return _run_chain(sig, args, options)
    if isinstance(sig, group):
        members = [_run(task, (*args, *sig.args), options) for task in sig.with_links()]
        return sig.app.GroupResult(sig.options["task_id"], members)
    if isinstance(sig, chord):
        return _run_chord(sig, args, options)
    return sig.apply(args, **options)


def _run_chain(sig: chain, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    steps = linked(
        sig.tasks, listed(sig.options.get("link")), listed(sig.options.get("link_error"))
    )
    args = (*args, *sig.args)
    last: Any = None
    for step in steps:
        if last is None:
            result = _run(step, args, options)
        elif not last.successful():
            result = _failed(step, _error_of(last))
        else:
            result = _run(step, (last.get(disable_sync_subtasks=False),), {})
        if last is not None:
            oldest(result).parent = last
        last = result
    return last


def _run_chord(sig: chord, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    header = _run(sig.header, (*args, *sig.args), {**options, **sig["kwargs"]["kwargs"]})
    if sig.body is None:
        return header
    if header.successful():
        result = _run(sig.body, (header.get(disable_sync_subtasks=False),), {})
    else:
        broken = next(one for one in header.results if not one.successful())
        error = ChordError(f"Dependency {broken.id} raised {_error_of(broken)!r}")
        result = _failed(sig.body, error)
        for member, errbacks in errbacks_of(sig.body):
            _call(sig.app, member, errbacks, error)
    oldest(result).parent = header
    return result


def _error_of(result: Any) -> BaseException:
    found = result.get(propagate=False, disable_sync_subtasks=False)
    if isinstance(found, list):
        found = next((one for one in found if isinstance(one, BaseException)), None)
    error = found if isinstance(found, BaseException) else result.result
    return error if isinstance(error, BaseException) else Exception(error)


def _failed(sig: Any, error: BaseException) -> Any:
    """The result of what will not run."""
    if isinstance(sig, group):
        return sig.app.GroupResult(
            sig.options["task_id"], [_failed(task, error) for task in sig.tasks]
        )
    ids = [end.id for end in ends(sig)]
    return EagerResult(ids[-1] or "", error, states.FAILURE, app=sig.app)


def _call(app: Any, member: Any, errbacks: list[Any], error: BaseException) -> None:
    request = Request(
        id=(member.get("options") or {}).get("task_id"), task=member["task"], is_eager=True
    )
    for errback in errbacks:
        call_errback(request, maybe_signature(errback, app=app, clone=True), error)


__all__ = ["Signature", "run"]
