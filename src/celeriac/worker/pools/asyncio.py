"""The pool ``asyncio``: several tasks at once on one event loop.

Coroutine functions run on the loop; others in threads beside it. The broker is asked from one
helper thread and settled with from another, so that the loop never waits for a store.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from celeriac.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded
from celeriac.execution import ExceptionInfo, Outcome
from celeriac.message import Delivery, Settlement, Verdict
from celeriac.states import FAILURE
from celeriac.worker.executor import Job
from celeriac.worker.process import EXIT_OK
from celeriac.worker.runner import WAIT, BaseRunner

logger = logging.getLogger("celeriac.worker.pools")

T = TypeVar("T")

# How often a running task looks whether it is to be cancelled (seconds).
CANCEL_POLL = 0.25


class AsyncioRunner(BaseRunner):
    """One loop, ``concurrency`` tasks at once."""

    def work(self) -> int:
        return asyncio.run(self._main())

    async def _main(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._claimer = ThreadPoolExecutor(1, "celeriac-claim")
        self._settling = ThreadPoolExecutor(1, "celeriac-settle")
        self._free = asyncio.Semaphore(self.options.concurrency)
        self._seats = list(range(self.options.concurrency))
        self._running: set[asyncio.Task[None]] = set()
        self._flushing: asyncio.Future[None] | None = None
        watcher = asyncio.create_task(self._watch())
        code = EXIT_OK
        try:
            while not self.stopping and not code:
                await self._feed()
                code = self.worn_out()
            while self._running:
                await asyncio.wait(self._running, timeout=WAIT)
        finally:
            watcher.cancel()
            await self._in(self._settling, self.settler.flush)
            self._claimer.shutdown()
            self._settling.shutdown()
        return code

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(pool, work)

    async def _feed(self) -> None:
        """Claim one message for each free seat, and start them."""
        try:
            await asyncio.wait_for(self._free.acquire(), WAIT)
        except TimeoutError:
            return
        free = 1
        while not self._free.locked():
            await self._free.acquire()
            free += 1
        started = 0
        deliveries = await self._in(self._claimer, lambda: self.claim(free))
        for delivery in deliveries:
            started += self._start(delivery)
        if not self.settler.empty:
            await self._in(self._settling, self.settler.flush)
        for _ in range(free - started):
            self._free.release()

    def _start(self, delivery: Delivery) -> int:
        admitted = self.executor.admit(delivery)
        if isinstance(admitted, Settlement):
            self.settler.add(admitted, time.monotonic())
            return 0
        task = asyncio.create_task(self._run(admitted), name=admitted.task.name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return 1

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._free.release()
        if not task.cancelled() and task.exception() is not None:
            logger.error("A task could not be finished", exc_info=task.exception())

    async def _run(self, job: Job) -> None:
        delivery, now = job.delivery, time.monotonic()
        if self.stopping:
            self.settler.add(Settlement(delivery=delivery, verdict=Verdict.RELEASE), now)
            await self._flush()
            return
        seat = self._seats.pop()
        slot = self.table.slot(seat)
        number = slot.start(delivery.tag, delivery.message.id, job.task.name, now, job.soft)
        try:
            if job.task.acks_late is False or job.task.track_started:
                if not await self._in(self._settling, lambda: self.executor.begin(job)):
                    return
            elif not self.executor.begin(job):
                return
            settlement = await self._limited(job, slot, number)
        finally:
            slot.finish()
            self._seats.append(seat)
        self.ran += 1
        self.count(settlement)
        self.settler.add(settlement, time.monotonic())
        await self._flush()

    async def _limited(self, job: Job, slot: Any, number: int) -> Settlement:
        """Run it under its limits: the soft one cancels it, and it fails with
        SoftTimeLimitExceeded; the hard one does not wait for it to end."""
        work = asyncio.create_task(self.executor.run_async(job))
        began = time.monotonic()
        error: BaseException | None = None
        while not work.done():
            await asyncio.wait({work}, timeout=self._next_look(job, began))
            ran = time.monotonic() - began
            if work.done():
                break
            if slot.cancel_requested == number:
                error = TaskRevokedError("terminated")
            elif job.hard and ran >= job.hard:
                error = TimeLimitExceeded(job.hard)
            elif job.soft and ran >= job.soft and error is None:
                error = SoftTimeLimitExceeded()
                work.cancel(str(error))
                continue
            else:
                continue
            work.cancel(str(error))
            break
        if error is None or (work.done() and not work.cancelled()):
            return await work
        if isinstance(error, TaskRevokedError):
            return self.executor.ended(job.delivery, "terminated", 0.0)
        outcome = Outcome(FAILURE, error, error)
        outcome.einfo = ExceptionInfo(error)
        return self.executor.finish(job, outcome)

    def _next_look(self, job: Job, began: float) -> float:
        left = [CANCEL_POLL]
        ran = time.monotonic() - began
        left += [limit - ran for limit in (job.soft, job.hard) if limit and limit > ran]
        return max(0.001, min(left))

    async def _flush(self) -> None:
        """Settle; those who finish while it goes on are taken along by the next."""
        while not self.settler.empty:
            if self._flushing is None or self._flushing.done():
                self._flushing = self._loop.run_in_executor(self._settling, self.settler.flush)
            await asyncio.shield(self._flushing)

    async def _watch(self) -> None:
        """Wake the claiming thread when the worker is to stop."""
        while not self.stopping:
            await asyncio.sleep(WAIT / 2)
        self.link.broker.wake()
