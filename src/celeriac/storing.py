"""Records that are written outside a settlement: states of one's own, eager results, and
failures of what was never sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.canvas.compiling import ends, errbacks_of
from celeriac.canvas.signature import Signature, maybe_signature
from celeriac.errbacks import call_errback, takes_several
from celeriac.request import Request, running_request
from celeriac.utils import uuid

if TYPE_CHECKING:
    from celeriac.app import Celeriac


def store_state(app: Celeriac, task_id: str | None, run: str, state: str | None, meta: Any) -> None:
    """``Task.update_state``."""
    request = running_request()
    if request is not None and request.is_eager and request.id == task_id:
        return  # nothing is stored of a call that is run in place, while it runs
    results = app.producer.results
    if task_id and state and results is not None:
        reply_to = request.reply_to or "" if request is not None else ""
        results.put([app.records.write(task_id, run, state, meta, reply_to=reply_to)])


def store_outcome(app: Celeriac, request: Request, outcome: Any) -> None:
    """Eager mode with ``task_store_eager_result``."""
    results = app.producer.results
    if results is not None and request.id and outcome.state in states.READY_STATES:
        trace = outcome.einfo.traceback if outcome.einfo is not None else None
        record = app.records.write(
            request.id,
            request.id,
            outcome.state,
            outcome.value,
            traceback=trace,
            request=request,
        )
        results.put([record])


def fail_unsent(app: Celeriac, sig: Signature[Any], exc: BaseException) -> None:
    """Store this failure for every task of a signature that will not be sent, and tell its
    errbacks."""
    results = app.producer.results
    if results is not None:
        ids = [end.id for end in ends(sig) if end.id]
        reply_to = app.sender.reply_to
        results.put(
            [app.records.write(id, uuid(), states.FAILURE, exc, reply_to=reply_to) for id in ids]
        )
    for member, errbacks in errbacks_of(sig):
        options = member.get("options") or {}
        request = Request(id=options.get("task_id"), task=member["task"])
        for errback in errbacks:
            told = maybe_signature(errback, app=app, clone=True)
            if told.type is not None and takes_several(told.type, len(told.args)):
                call_errback(request, told, exc)
            else:
                told.apply_async((request.id,))
