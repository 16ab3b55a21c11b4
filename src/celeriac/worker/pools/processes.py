"""The pools processes and solo: one task at a time, in the main thread.

The keeper (keeper.py) helps when a task turns out long.
"""

from __future__ import annotations

import threading
import time

from msgspec.structs import replace

from celeriac import states
from celeriac.exceptions import SoftTimeLimitExceeded
from celeriac.execution import Outcome
from celeriac.message import Delivery, Settlement, Verdict
from celeriac.worker.executor import Job
from celeriac.worker.keeper import Keeper
from celeriac.worker.process import EXIT_OK
from celeriac.worker.runner import BaseRunner
from celeriac.worker.slots import Stopping
from celeriac.worker.soft_limit import SoftLimit

__all__ = ["Runner"]


class Runner(BaseRunner):
    """One task at a time: the pools processes and solo."""

    def work(self) -> int:
        self.soft = SoftLimit() if threading.current_thread() is threading.main_thread() else None
        self.job: Job | None = None  # what runs; the keeper looks at it
        self.started = 0.0
        keeper = Keeper(self)
        keeper.start()
        try:
            kept: list[Delivery] = []
            while kept or not self.stopping:
                deliveries = kept or self.claim(self.within_life(self.pace.claim()))
                if not deliveries:
                    continue
                self.pending.extend(deliveries)
                keeper.wake()
                self._run_batch()
                kept = self.settler.take_kept()
                self.slot.count(claimed=len(kept))
                code = EXIT_OK if kept else self.worn_out()
                if code:
                    return code
        finally:
            keeper.stop()
        return EXIT_OK

    def _run_batch(self) -> None:
        settler, pending = self.settler, self.pending
        table = self.table
        while True:
            with self.lock:
                if not pending:
                    break
                delivery = pending.popleft()
            if table.stopping != Stopping.NO or self.executor.order:
                self.release([delivery])
                self.release_pending()
                break
            admitted = self.executor.admit(delivery)
            now = time.monotonic()
            if isinstance(admitted, Settlement):
                settler.add(admitted, now)
                if admitted.verdict is Verdict.DEFER:
                    self.slot.count(deferred=1)
            else:
                self._run_one(admitted, now)
                now = time.monotonic()
            if settler.due(now):
                settler.flush()
        settler.flush()

    def _run_one(self, job: Job, now: float) -> None:
        task, delivery = job.task, job.delivery
        if not self.pace.short(task.name) and (self.pending or not self.settler.empty):
            self.release_pending()
            self.settler.flush()
            now = time.monotonic()
        slot = self.slot
        slot.start(delivery.tag, delivery.message.id, task.name, now, job.soft, job.hard)
        try:
            if not self.begin(job):
                return
            self.started, self.job = now, job
            if job.soft and self.soft is not None:
                settlement = self.soft.call(job.soft, lambda: self.executor.run(job))
            else:
                settlement = self.executor.run(job)
        except SoftTimeLimitExceeded as late:  # the alarm rang when the task had just ended
            settlement = self.executor.finish(job, Outcome(states.FAILURE, late, late))
        finally:
            self.job = None
            slot.finish()
        end = time.monotonic()
        self.ran += 1
        self.pace.note(task.name, end - now)
        self.count(settlement)
        if settlement.messages or settlement.arrivals:
            settlement = self._with_wish(settlement)
        self.settler.add(settlement, end)

    def _with_wish(self, settlement: Settlement) -> Settlement:
        """What follows is to stay here, if there is nothing else to do: the next step of a chain
        need not go through the queue and wake somebody up."""
        if self.pending or self.stopping or self.worn_out():
            return settlement
        return replace(settlement, keep=tuple(self.queues()))

    def release_pending(self) -> None:
        """Give back what is claimed and not started, in its order."""
        with self.lock:
            unstarted = list(self.pending)
            self.pending.clear()
        self.release(unstarted)
