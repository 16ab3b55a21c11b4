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
from typing import TypeVar

from celeriac.exceptions import SoftTimeLimitExceeded
from celeriac.message import Delivery, Settlement, Tag, Verdict
from celeriac.worker.executor import Job
from celeriac.worker.process import EXIT_OK
from celeriac.worker.runner import ALONE, WAIT, BaseRunner
from celeriac.worker.slots import Slot

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
        self._abandoned: set[asyncio.Task[Settlement]] = set()
        # For functions that are no coroutines: as many threads as can be needed.
        self._loop.set_default_executor(ThreadPoolExecutor(self.options.concurrency, "celeriac"))
        self._flushing: asyncio.Future[None] | None = None
        code = EXIT_OK
        try:
            while not self.stopping and not code:
                await self._feed()
                code = self.worn_out()
            while running := list(self._running):
                await self._in(self._settling, self.tend)
                await asyncio.wait(running, timeout=WAIT)
        finally:
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
            await self._in(self._settling, self.tend)
            return
        free = 1
        while not self._free.locked():
            await self._free.acquire()
            free += 1
        started = 0
        deliveries = await self._in(self._claimer, lambda: self.claim(self.within_life(free)))
        for delivery in deliveries:
            if self.suspect(delivery):
                free = await self._all_free(free)
            started += self._start(delivery)
        if not self.settler.empty:
            await self._in(self._settling, self.settler.flush)
        if self._running and started and self.suspect(deliveries[0]):
            await asyncio.wait(self._running, timeout=ALONE)
        for _ in range(free - started):
            self._free.release()

    async def _all_free(self, free: int) -> int:
        """Wait for what runs, so that a suspect runs alone; how many seats are held then."""
        until = time.monotonic() + ALONE
        while free < self.options.concurrency and not self.stopping:
            try:
                left = until - time.monotonic()
                await asyncio.wait_for(self._free.acquire(), max(0.0, min(WAIT, left)))
            except TimeoutError:
                if time.monotonic() >= until:
                    break
            else:
                free += 1
        return free

    def _start(self, delivery: Delivery) -> int:
        admitted = self.executor.admit(delivery)
        if isinstance(admitted, Settlement):
            self.settler.add(admitted, time.monotonic())
            return 0
        self.ran += 1
        self.in_hand.add(delivery.tag)
        task = asyncio.create_task(self._run(admitted), name=admitted.task.name)
        self._running.add(task)
        task.add_done_callback(lambda ended: self._done(ended, delivery.tag))
        return 1

    def _done(self, task: asyncio.Task[None], tag: Tag) -> None:
        self._running.discard(task)
        self.in_hand.discard(tag)
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
                begun = await self._in(self._settling, lambda: self.begin(job))
            else:
                begun = self.begin(job)
            settlement = await self._limited(job, slot, number) if begun else None
        finally:
            slot.finish()
            self._seats.append(seat)
        if settlement is not None:
            self.count(settlement)
            self.settler.add(settlement, time.monotonic())
        await self._flush()

    async def _limited(self, job: Job, slot: Slot, number: int) -> Settlement:
        """Run it under its limits. At the soft one it is cancelled, and has failed when it ends;
        at the hard one, and when it is terminated, nobody waits for its end."""
        work = asyncio.create_task(self.executor.run_async(job))
        began = time.monotonic()
        soft = job.soft
        while not work.done():
            ran = time.monotonic() - began
            if slot.cancel_requested == number:
                if job.task.is_async:
                    self._abandon(work)
                    return self.executor.ended(job.delivery, "terminated", 0.0)
                logger.warning(
                    "Cannot terminate %s, which is no coroutine: it goes on", job.request
                )
                number = 0
            if job.hard and ran >= job.hard:
                self._abandon(work)
                return self.executor.ended(job.delivery, "time_limit", job.hard)
            if soft and ran >= soft:
                soft = 0.0
                job.request._over_limit = SoftTimeLimitExceeded()
                work.cancel()
            left = [limit - ran for limit in (soft, job.hard) if limit]
            await asyncio.wait({work}, timeout=max(0.001, min([CANCEL_POLL, *left])))
        return await work

    def _abandon(self, work: asyncio.Task[Settlement]) -> None:
        """Cancel it; what comes of it is of no interest."""
        self._abandoned.add(work)
        work.add_done_callback(self._abandoned.discard)
        work.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        work.cancel()

    async def _flush(self) -> None:
        """Returns when all that was added before is settled; those who finish while it goes on
        are taken along by the next."""
        while True:
            if self._flushing is None or self._flushing.done():
                if self.settler.empty:
                    return
                self._flushing = self._loop.run_in_executor(self._settling, self.settler.flush)
            await asyncio.shield(self._flushing)
