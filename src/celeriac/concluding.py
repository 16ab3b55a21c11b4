"""From what came of a delivery to its settlement: the record, what follows, and the verdict."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from celeriac import states
from celeriac.canvas.signature import maybe_signature
from celeriac.errbacks import takes_several
from celeriac.exceptions import (
    ContentError,
    EncodeError,
    Ignore,
    Reject,
    Retry,
    TaskRevokedError,
)
from celeriac.execution import ExceptionInfo, Outcome
from celeriac.following import Following
from celeriac.message import Delivery, Settlement, TaskRecord, Verdict
from celeriac.request import Request

if TYPE_CHECKING:
    from celeriac.app import Celeriac

logger = logging.getLogger("celeriac.concluding")

# A message put back by Reject(requeue=True) waits this long (seconds), so that one which is
# always put back does not keep a worker busy with nothing.
REQUEUE_DELAY = 0.5


class Concluder:
    """Builds settlements for one application."""

    def __init__(self, app: Celeriac, hostname: str = "") -> None:
        self.app = app
        self.hostname = hostname or app.node_name

    def conclude(
        self, delivery: Delivery, task: Any, request: Request, outcome: Outcome
    ) -> Settlement:
        """The settlement of a call that was run."""
        state = outcome.state
        if state == states.SUCCESS:
            return self.success(delivery, task, request, outcome)
        if state == states.RETRY:
            return self._retry(delivery, task, request, outcome)
        if state == states.IGNORED:
            return self._without_outcome(delivery, request, outcome.exc or Ignore())
        if state == states.REJECTED and isinstance(outcome.exc, Reject) and outcome.exc.requeue:
            from time import time

            return Settlement(
                delivery=delivery, verdict=Verdict.DEFER, due_at=time() + REQUEUE_DELAY
            )
        assert outcome.exc is not None
        if state == states.REJECTED:
            return self.failure(
                delivery, task, request, outcome.exc, bury=f"rejected: {outcome.exc!r}"
            )
        return self.failure(delivery, task, request, outcome.exc, outcome.einfo)

    def success(
        self, delivery: Delivery, task: Any, request: Request, outcome: Outcome
    ) -> Settlement:
        """The settlement of a call that returned. Raises whatever keeps its value from being
        written or what follows it from being sent: then it has failed."""
        following = None
        try:
            if request.callbacks or request.chain or request.chord:
                following = Following(self.app, request)
                following.after_success(outcome.value)
        except ContentError:
            raise
        except Exception:
            logger.exception("What follows task %s[%s] cannot be sent", task.name, request.id)
            raise
        records: tuple[TaskRecord, ...] = ()
        if not _ignored(task, request):
            children = request._children
            records = (
                self.app.records.write(
                    delivery.message.id,
                    delivery.message.run,
                    states.SUCCESS,
                    outcome.value,
                    request=request,
                    children=[child.as_tuple() for child in children] if children else (),
                    hostname=self.hostname,
                ),
            )
        settlement = Settlement(delivery=delivery, records=records)
        if following is not None:
            settlement = following.added_to(settlement)
        if request._followups:
            messages = (*settlement.messages, *request._followups)
            settlement = replace(settlement, messages=messages)
        return settlement

    def _without_outcome(
        self, delivery: Delivery, request: Request, exc: BaseException
    ) -> Settlement:
        """The settlement of a call that leaves its state as it is: nothing of its own is stored.
        Unless another call takes its place, nothing comes after it, and a join cannot wait."""
        settlement = Settlement(
            delivery=delivery,
            messages=tuple(request._followups or ()),
            joins=tuple(request._joins or ()),
        )
        if request._replaced:
            return settlement
        following = Following(self.app, request)
        following.after_failure(states.IGNORED, exc)
        return following.added_to(settlement)

    def _retry(
        self, delivery: Delivery, task: Any, request: Request, outcome: Outcome
    ) -> Settlement:
        retry = outcome.exc
        assert isinstance(retry, Retry)
        records: tuple[TaskRecord, ...] = ()
        if not _ignored(task, request):
            trace = outcome.einfo.traceback if outcome.einfo is not None else None
            records = (self._record(delivery, request, states.RETRY, retry.exc or retry, trace),)
        return Settlement(
            delivery=delivery, records=records, messages=tuple(request._followups or ())
        )

    def failure(
        self,
        delivery: Delivery,
        task: Any,
        request: Request | None,
        exc: BaseException,
        einfo: ExceptionInfo | None = None,
        *,
        bury: str = "",
        state: str = states.FAILURE,
        trace: bool = True,
    ) -> Settlement:
        """The settlement of a delivery that has failed: its record, the same for the steps of a
        chain that will not come, errbacks; a dead letter with the reason ``bury``."""
        text = None
        if trace and exc.__traceback__ is not None:
            text = (einfo or ExceptionInfo(exc)).traceback
        settlement = Settlement(
            delivery=delivery,
            verdict=Verdict.BURY if bury else Verdict.DONE,
            reason=bury.encode(errors="backslashreplace").decode(),
        )
        if request is None:
            return settlement
        following = Following(self.app, request)
        if not _ignored(task, request) or _stores_errors(task):
            following.records.append(self._record(delivery, request, state, exc, text))
        if request.chain or request.chord:
            following.after_failure(state, exc)
        for number, errback in enumerate(request.errbacks or ()):
            call_errback(following, errback, request, exc, text, f"errback {number}")
        following.messages += request._followups or ()
        return following.added_to(settlement)

    def revoked(
        self, delivery: Delivery, task: Any, request: Request | None, reason: str
    ) -> Settlement:
        """The settlement of a delivery that was revoked, has expired or was terminated."""
        return self.failure(
            delivery, task, request, TaskRevokedError(reason), state=states.REVOKED, trace=False
        )

    def stood(
        self, delivery: Delivery, task: Any, request: Request, record: TaskRecord
    ) -> Settlement:
        """The settlement that had this record, without the record: what followed it, for a
        delivery that has come again."""
        found = self.app.records.read(record).get("result")
        if record.state == states.SUCCESS:
            following = Following(self.app, request)
            following.after_success(found)
            return following.added_to(Settlement(delivery=delivery))
        exc = found if isinstance(found, BaseException) else Exception(found)
        settlement = self.failure(delivery, task, request, exc, state=record.state, trace=False)
        others = tuple(one for one in settlement.records if one.id != delivery.message.id)
        return replace(settlement, records=others)

    def started(self, delivery: Delivery, request: Request, pid: int) -> TaskRecord:
        """The record of a call that starts now."""
        meta = {"pid": pid, "hostname": self.hostname}
        return self.app.records.write(
            delivery.message.id, delivery.message.run, states.STARTED, meta, request=request
        )

    def _record(
        self,
        delivery: Delivery,
        request: Request,
        state: str,
        exc: BaseException,
        trace: str | None,
    ) -> TaskRecord:
        write = self.app.records.write
        message = delivery.message
        children = [child.as_tuple() for child in request._children or ()]
        try:
            return write(
                message.id,
                message.run,
                state,
                exc,
                traceback=trace,
                request=request,
                children=children,
                hostname=self.hostname,
            )
        except ContentError as unwritable:
            # The error must be known even if it cannot be written as it is.
            plain = EncodeError(f"{type(exc).__name__}: {exc} (not stored whole: {unwritable})")
            return write(
                message.id, message.run, state, plain, traceback=trace, reply_to=message.reply_to
            )


def call_errback(
    following: Following,
    described: Any,
    request: Request,
    exc: BaseException,
    trace: str | None,
    place: str,
    *,
    again: bool = False,
) -> None:
    """Celery's two conventions: a task that takes several arguments is called here with
    (request, exc, traceback), but not ``again``; any other is sent with the id of the failed
    task, and is among ``following``."""
    errback = maybe_signature(described, app=following.app, clone=True)
    task = errback.type
    try:
        if task is not None and takes_several(task, len(errback.args)):
            if not again:
                errback(request, exc, trace)
        else:
            following.follow(errback, (request.id,), place)
    except Exception:
        logger.exception("The errback %s of %s failed", errback, request)


def _ignored(task: Any, request: Request) -> bool:
    """Is no result to be stored? What the message says wins over the task."""
    if request.ignore_result is None:
        return bool(task is not None and task.ignore_result)
    return request.ignore_result


def _stores_errors(task: Any) -> bool:
    return bool(task is not None and task.store_errors_even_if_ignored)
