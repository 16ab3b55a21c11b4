"""One delivery to one settlement, as a pipeline of small steps.

``admit`` reads the message and decides whether it is to run at all; ``run`` calls the task;
``Concluder`` says what follows. Nothing here talks to a store but ``begin`` and ``started``.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from celeriac import drivers, signals, states
from celeriac.concluding import Concluder
from celeriac.exceptions import (
    ContentError,
    InvalidTaskError,
    NotRegistered,
    OperationalError,
    TimeLimitExceeded,
    WorkerLostError,
    WorkerShutdown,
    WorkerTerminate,
)
from celeriac.execution import ExceptionInfo, Outcome, execute, execute_async
from celeriac.following import arrivals_of_unread
from celeriac.joining import Joiner
from celeriac.message import Delivery, Settlement, TaskRecord, Verdict
from celeriac.protocol.reading import peek_task
from celeriac.protocol.times import parse_time
from celeriac.reading import Reader
from celeriac.request import Request
from celeriac.worker.outcome_log import log_outcome
from celeriac.worker.process import EXIT_OK, EXIT_SHUTDOWN, EXIT_TERMINATE

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.contracts import Broker, ResultBackend
    from celeriac.worker.limits import RateLimits
    from celeriac.worker.options import WorkerOptions

logger = logging.getLogger("celeriac.worker.task")

# The first wait of a task that this worker does not know (seconds); it doubles each time.
UNKNOWN_WAIT = 0.5


class Job:
    """A delivery that is to run."""

    __slots__ = ("delivery", "hard", "request", "soft", "task")

    def __init__(self, delivery: Delivery, task: Any, request: Request) -> None:
        self.delivery = delivery
        self.task = task
        self.request = request
        self.hard = 0.0
        self.soft = 0.0


class Executor:
    """Runs deliveries for one process of a worker."""

    def __init__(
        self,
        app: Celeriac,
        options: WorkerOptions,
        broker: Broker,
        results: ResultBackend | None,
        limits: RateLimits | None = None,
    ) -> None:
        self.app = app
        self.options = options
        self.broker = broker
        self.results = results
        self.limits = limits
        self.reader = Reader(app, options.hostname)
        self.concluder = Concluder(app, options.hostname)
        self.joiner = Joiner(app, options.hostname)
        # Two stores that do not change together, the results' one with a memory.
        self.split = (
            results is not None
            and results.capabilities.keeps_records
            and not drivers.one_store(broker, results)
        )
        self.tasks = app.tasks
        self.unknown_wait: float = app.conf.unknown_task_wait
        self.default_limits = (options.time_limit or 0.0, options.soft_time_limit or 0.0)
        self.loud = logger.isEnabledFor(logging.INFO)
        self._told: set[tuple[str, str]] = set()
        self.order = EXIT_OK  # the exit code that a task has ordered
        self._pid = os.getpid()

    # --- may it run? ------------------------------------------------------------------------

    def admit(self, delivery: Delivery) -> Job | Settlement:
        """The job, or the settlement of a delivery that is not to run now, or at all."""
        if delivery.note.startswith("ended "):  # the process before was ended because of it
            _, why, limit = delivery.note.split()
            return self.ended(delivery, why, float(limit))
        try:
            request = self.reader.read(delivery)
        except (ContentError, InvalidTaskError) as exc:
            return self._unreadable(delivery, exc)
        task = self.tasks.get(request.task) if request.task else None
        if delivery.cancelled:
            return self._revoked(delivery, task, request, "revoked")
        if task is None:
            return self._unknown(delivery, request)
        if self.split and (delivery.redelivered or delivery.publish_id):
            before = self._seen_before(delivery)
            if before is not None:
                return before
        if delivery.lost or delivery.begun:
            lost = self._after_loss(delivery, task, request)
            if lost is not None:
                return lost
        if request.expires is not None:
            expires = parse_time(request.expires)
            if expires is not None and expires <= time.time():
                return self._revoked(delivery, task, request, "expired")
        if self.limits is not None and self.limits.limited(task.name):
            free_at = self.limits.take(task.name, time.time(), delivery.note == "rate")
            if free_at:
                return _defer(delivery, free_at, "rate")
        job = Job(delivery, task, request)
        self._set_limits(job)
        return job

    def _seen_before(self, delivery: Delivery) -> Settlement | None:
        """The settlement of a delivery whose outcome is stored already, or that was published
        twice; None if it is to run."""
        results, message = self.results, delivery.message
        assert results is not None
        if delivery.redelivered:
            record = results.get([message.id])[0]
            if record is not None and record.ready and record.run == message.run:
                buried = record.state == states.FAILURE and self._too_often(delivery)
                return None if buried else self.follow(delivery, record)
        keyed = delivery.publish_id and message.dedupe_key
        if keyed and not results.admit(message.dedupe_key or "", delivery.publish_id):
            logger.info("Discarding %s: it was published twice", message.id)
            return Settlement(delivery=delivery)
        return None

    def follow(self, delivery: Delivery, record: TaskRecord) -> Settlement:
        """The settlement that had this final record of the delivery's run; nothing runs again."""
        try:
            request = self.reader.read(delivery)
            task = self.tasks.get(request.task) if request.task else None
            return self.concluder.stood(delivery, task, request, record)
        except (ContentError, InvalidTaskError):
            return Settlement(delivery=delivery)  # it has its outcome, and nothing can follow

    def _too_often(self, delivery: Delivery) -> bool:
        return delivery.lost >= self.options.max_deliveries

    def _set_limits(self, job: Job) -> None:
        hard, soft = job.request.timelimit or (None, None)
        default_hard, default_soft = self.default_limits
        if hard is None:
            hard = job.task.time_limit
        if soft is None:
            soft = job.task.soft_time_limit
        job.hard = float(hard or default_hard)
        job.soft = float(soft or default_soft)
        powers = self.options.powers
        can = job.task.is_async or self.options.pool != "asyncio"  # which cancels coroutines only
        if job.hard and not (can and powers.hard_limits):
            job.hard = self._unenforced(job, "hard")
        if job.soft and not (can and powers.soft_limits):
            job.soft = self._unenforced(job, "soft")

    def _unenforced(self, job: Job, kind: str) -> float:
        """A limit given with a call, which this pool cannot enforce (those of tasks and settings
        are refused when the worker starts). Said once for each task."""
        name = job.task.name
        if (name, kind) not in self._told:
            self._told.add((name, kind))
            logger.warning(
                "The pool %s cannot enforce the %s time limit that calls of %s ask for: they run "
                "without it. Use --pool=processes.",
                self.options.pool,
                kind,
                name,
            )
        return 0.0

    def _unreadable(self, delivery: Delivery, exc: Exception) -> Settlement:
        """A message that cannot be understood is buried at once, with its bytes."""
        name, _ = peek_task(delivery.message)
        logger.error(
            "A message of queue %s (task %s, id %s) cannot be read and is kept as a dead letter: "
            "%s",
            delivery.message.queue,
            name or "?",
            delivery.message.id or "?",
            exc,
        )
        if signals.task_rejected.receivers:
            signals.task_rejected.send(sender=self, message=delivery.message, exc=exc)
        return self._bury_unread(delivery, exc, f"{type(exc).__name__}: {exc}")

    def _bury_unread(self, delivery: Delivery, exc: Exception, reason: str) -> Settlement:
        records: tuple[Any, ...] = ()
        message = delivery.message
        if message.id and self.results is not None:
            records = (
                self.app.records.write(
                    message.id, message.run, states.FAILURE, exc, reply_to=message.reply_to
                ),
            )
        return Settlement(
            delivery=delivery,
            verdict=Verdict.BURY,
            records=records,
            arrivals=arrivals_of_unread(message, exc),
            reason=reason.encode(errors="backslashreplace").decode(),
        )

    def _revoked(self, delivery: Delivery, task: Any, request: Request, reason: str) -> Settlement:
        logger.info("Discarding %s task: %s[%s]", reason, request.task, request.id)
        if signals.task_revoked.receivers:
            signals.task_revoked.send(
                sender=task,
                request=request,
                terminated=reason == "terminated",
                signum=None,
                expired=reason == "expired",
            )
        return self.concluder.revoked(delivery, task, request, reason)

    def _unknown(self, delivery: Delivery, request: Request) -> Settlement:
        """Another worker, or the next deployment, may know it: wait a while, then bury it."""
        now = time.time()
        since, wait = now, UNKNOWN_WAIT
        if delivery.note.startswith("unknown "):
            first, last = delivery.note.split()[1:]
            since, wait = float(first), float(last) * 2
        left = since + self.unknown_wait - now
        if left > 0.001:
            if wait == UNKNOWN_WAIT:
                logger.warning(
                    "Task %s[%s] is not known to this worker: left to others for %s s. Is its "
                    "module imported (include=, imports, autodiscover_tasks)?",
                    request.task,
                    request.id,
                    self.unknown_wait,
                )
            wait = min(wait, left)
            return _defer(delivery, now + wait, f"unknown {since!r} {wait!r}", offered=True)
        error = NotRegistered(request.task)
        logger.error(
            "Task %s[%s] is known to no worker of queue %s: kept as a dead letter.",
            request.task,
            request.id,
            delivery.message.queue,
        )
        if signals.task_unknown.receivers:
            signals.task_unknown.send(
                sender=self, message=delivery.message, exc=error, name=request.task, id=request.id
            )
        return self.concluder.failure(
            delivery, None, request, error, bury=f"NotRegistered: {request.task}", trace=False
        )

    def _after_loss(self, delivery: Delivery, task: Any, request: Request) -> Settlement | None:
        """What a delivery whose process died becomes; None: it runs again."""
        if delivery.begun or not delivery.lost:
            return self.lost(delivery, task, request) if delivery.begun else None
        if self._too_often(delivery):
            error = WorkerLostError(
                f"{delivery.lost} processes died while they ran this task: it is kept as a dead "
                "letter."
            )
            logger.error(
                "Task %s[%s] killed %d processes: kept as a dead letter.",
                task.name,
                request.id,
                delivery.lost,
            )
            reason = f"WorkerLostError: {delivery.lost} processes died while they ran it"
            return self._failed(delivery, task, request, error, bury=reason)
        if task.acks_late is True and task.reject_on_worker_lost is False:
            return self.lost(delivery, task, request)
        return None

    def lost(self, delivery: Delivery, task: Any, request: Request) -> Settlement:
        """At most once, and the process died: the task has failed."""
        error = WorkerLostError("The process that ran this task died; it is not run again.")
        logger.error("Task %s[%s] was lost with its process.", request.task, request.id)
        return self._failed(delivery, task, request, error)

    def _failed(
        self, delivery: Delivery, task: Any, request: Request, exc: Exception, bury: str = ""
    ) -> Settlement:
        if signals.task_failure.receivers:
            signals.task_failure.send(
                sender=task,
                task_id=request.id,
                exception=exc,
                args=request.args,
                kwargs=request.kwargs,
                traceback=None,
                einfo=ExceptionInfo(exc),
            )
        return self.concluder.failure(delivery, task, request, exc, bury=bury, trace=False)

    # --- settlements of what a dead predecessor left -------------------------------------------

    def ended(self, delivery: Delivery, why: str, limit: float) -> Settlement:
        """The settlement of the delivery that ran when its process was ended on purpose: at its
        hard time ``limit`` (seconds; ``why`` is ``time_limit``) or on request (``terminated``)."""
        try:
            request = self.reader.read(delivery)
        except (ContentError, InvalidTaskError) as exc:
            return self._unreadable(delivery, exc)
        task = self.tasks.get(request.task) if request.task else None
        if why == "terminated":
            logger.warning("Task %s[%s] was terminated.", request.task, request.id)
            return self._revoked(delivery, task, request, "terminated")
        logger.error(
            "Task %s[%s] exceeded its hard limit of %g s.", request.task, request.id, limit
        )
        return self._failed(delivery, task, request, TimeLimitExceeded(limit))

    # --- running --------------------------------------------------------------------------------

    def begin(self, job: Job) -> bool:
        """The last step before the call; False if the delivery is no longer ours."""
        task = job.task
        if task.acks_late is False and self.broker.begin((job.delivery,)):
            return False
        if task.track_started and self.results is not None and not job.request.ignore_result:
            self._tell_started(job, self.results)
        if self.loud:
            name = job.request.shadow or task.name
            context = {"task_id": job.request.id, "task_name": name}
            logger.info("Task %s[%s] received", name, job.request.id, extra=context)
        if signals.task_received.receivers:
            signals.task_received.send(sender=self, request=job.request)
        return True

    def _tell_started(self, job: Job, results: ResultBackend) -> None:
        """Store STARTED; a task is not held up because that cannot be stored."""
        try:
            results.put((self.concluder.started(job.delivery, job.request, self._pid),))
        except OperationalError as exc:
            logger.warning("That %s has started cannot be stored: %s", job.request, exc)

    def run(self, job: Job) -> Settlement:
        """Call the task in this thread, under its soft limit, and conclude."""
        try:
            outcome = execute(job.task, job.request, self.concluder.success)
        except (WorkerShutdown, WorkerTerminate) as order:
            outcome = self._ordered(order)
        return self.finish(job, outcome)

    async def run_async(self, job: Job) -> Settlement:
        """The same in an event loop."""
        try:
            outcome = await execute_async(job.task, job.request, self.concluder.success)
        except (WorkerShutdown, WorkerTerminate) as order:
            outcome = self._ordered(order)
        return self.finish(job, outcome)

    def _ordered(self, order: BaseException) -> Outcome:
        """A task has ordered the worker to stop. It is settled as failed: run again, it would
        stop the next worker too."""
        self.order = EXIT_SHUTDOWN if isinstance(order, WorkerShutdown) else EXIT_TERMINATE
        return Outcome(states.FAILURE, order, order)

    def finish(self, job: Job, outcome: Outcome) -> Settlement:
        """Log and conclude."""
        if self.loud or outcome.exc is not None:
            log_outcome(job.task, job.request, outcome)
        if outcome.settlement is not None:
            return outcome.settlement
        try:
            return self.concluder.conclude(job.delivery, job.task, job.request, outcome)
        except Exception as exc:  # whatever it is, the message must not stay here for ever
            logger.exception("The end of %s cannot be told as it is", job.request)
            if signals.task_internal_error.receivers:
                signals.task_internal_error.send(
                    sender=job.task,
                    task_id=job.request.id,
                    args=job.request.args,
                    kwargs=job.request.kwargs,
                    request=job.request,
                    exception=exc,
                    traceback=exc.__traceback__,
                    einfo=ExceptionInfo(exc),
                )
            return self.concluder.failure(job.delivery, job.task, job.request, exc)


def _defer(delivery: Delivery, due_at: float, note: str, offered: bool = False) -> Settlement:
    return Settlement(
        delivery=delivery, verdict=Verdict.DEFER, due_at=due_at, note=note, offered=offered
    )
