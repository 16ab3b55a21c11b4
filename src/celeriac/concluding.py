"""From what came of a delivery to its settlement: the record, what follows, and the verdict."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.canvas.signature import maybe_signature
from celeriac.exceptions import (
    ContentError,
    EncodeError,
    Reject,
    Retry,
    TaskRevokedError,
)
from celeriac.execution import ExceptionInfo, Outcome, takes_several
from celeriac.message import Delivery, Message, Settlement, TaskRecord, Verdict
from celeriac.request import Request
from celeriac.sending import known_options
from celeriac.utils import uuid

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
            return self._success(delivery, task, request, outcome)
        if state == states.RETRY:
            return self._retry(delivery, task, request, outcome)
        if state == states.IGNORED:
            return Settlement(delivery=delivery, messages=tuple(request._followups or ()))
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

    def _success(
        self, delivery: Delivery, task: Any, request: Request, outcome: Outcome
    ) -> Settlement:
        messages: tuple[Message, ...] = ()
        try:
            if request.callbacks or request.chain:
                messages = tuple(self._followers(request, outcome.value))
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
        except Exception as exc:  # what it returned, or what should follow, cannot be written
            if not isinstance(exc, ContentError):
                logger.exception("What follows task %s[%s] cannot be sent", task.name, request.id)
            return self.failure(delivery, task, request, exc)
        if request._followups:
            messages = (*messages, *request._followups)
        return Settlement(delivery=delivery, records=records, messages=messages)

    def _followers(self, request: Request, value: Any) -> list[Message]:
        """The messages of the callbacks and of the next step of a chain. Raises EncodeError."""
        messages = []
        for callback in request.callbacks or ():
            messages.append(self._follow(callback, (value,), request))
        if request.chain:
            rest = list(request.chain[:-1])
            messages.append(self._follow(request.chain[-1], (value,), request, chain=rest or None))
        return messages

    def _follow(
        self, described: Any, args: tuple[Any, ...], request: Request, **options: Any
    ) -> Message:
        sig = maybe_signature(described, app=self.app, clone=True)
        sig = sig.clone(args, parent_id=request.id, root_id=request.root_id, **options)
        chosen = known_options(sig.options)
        if self.app.conf.task_inherit_parent_priority:
            chosen.setdefault("priority", request.delivery_info.get("priority"))
        message, _ = self.app._message(sig.task, sig.args, sig.kwargs, sig.type, chosen)
        request.children.append(self.app.AsyncResult(message.id))
        return message  # type: ignore[no-any-return]

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
        records: list[TaskRecord] = []
        messages: list[Message] = []
        if request is not None:
            if not _ignored(task, request) or _stores_errors(task):
                records.append(self._record(delivery, request, state, exc, text))
            for step in request.chain or ():
                step_id = (step.get("options") or {}).get("task_id")
                if step_id:
                    records.append(self.app.records.write(step_id, uuid(), state, exc))
            for errback in request.errbacks or ():
                self._call_errback(errback, request, exc, text, messages)
            messages.extend(request._followups or ())
        return Settlement(
            delivery=delivery,
            verdict=Verdict.BURY if bury else Verdict.DONE,
            records=tuple(records),
            messages=tuple(messages),
            reason=bury.encode(errors="backslashreplace").decode(),
        )

    def revoked(
        self, delivery: Delivery, task: Any, request: Request | None, reason: str
    ) -> Settlement:
        """The settlement of a delivery that was revoked, has expired or was terminated."""
        return self.failure(
            delivery, task, request, TaskRevokedError(reason), state=states.REVOKED, trace=False
        )

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
            return write(message.id, message.run, state, plain, traceback=trace)

    def _call_errback(
        self,
        described: Any,
        request: Request,
        exc: BaseException,
        trace: str | None,
        messages: list[Message],
    ) -> None:
        """Celery's two conventions: a task that takes several arguments is called here with
        (request, exc, traceback); any other is sent with the id of the failed task."""
        errback = maybe_signature(described, app=self.app, clone=True)
        task = errback.type
        try:
            if task is not None and takes_several(task, len(errback.args)):
                errback(request, exc, trace)
            else:
                messages.append(self._follow(errback, (request.id,), request))
        except Exception:
            logger.exception("The errback %s of %s failed", errback, request)


def _ignored(task: Any, request: Request) -> bool:
    """Is no result to be stored? What the message says wins over the task."""
    if request.ignore_result is None:
        return bool(task is not None and task.ignore_result)
    return request.ignore_result


def _stores_errors(task: Any) -> bool:
    return bool(task is not None and task.store_errors_even_if_ignored)
