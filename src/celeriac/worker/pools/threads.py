"""The pool ``threads``: several tasks at once in one process, each in a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
import time

from celeriac.message import Settlement, Verdict
from celeriac.worker.executor import Job
from celeriac.worker.process import EXIT_OK
from celeriac.worker.runner import ALONE, WAIT, BaseRunner

logger = logging.getLogger("celeriac.worker.pools")


class ThreadsRunner(BaseRunner):
    """The main thread claims for threads that are free; each settles what it has run."""

    def work(self) -> int:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._free = threading.Semaphore(self.options.concurrency)
        self._seats: queue.SimpleQueue[int] = queue.SimpleQueue()
        for seat in range(self.options.concurrency):
            self._seats.put(seat)
        threads = [
            threading.Thread(target=self._thread, name=f"Thread-{n + 1}", daemon=True)
            for n in range(self.options.concurrency)
        ]
        for thread in threads:
            thread.start()
        code = EXIT_OK
        try:
            while not self.stopping and not code:
                self._feed()
                code = self.worn_out()
        finally:
            for _ in threads:
                self._jobs.put(None)
            for thread in threads:
                self._join(thread)
        return code

    def _join(self, thread: threading.Thread) -> None:
        """Wait for what runs; the supervisor ends the process when its time is up."""
        while thread.is_alive():
            self.tend()
            thread.join(timeout=WAIT)

    def _feed(self) -> None:
        """Claim one message for each free thread, and hand them out."""
        if not self._free.acquire(timeout=WAIT):
            self.tend()
            return
        free = 1
        while free < self.options.concurrency and self._free.acquire(blocking=False):
            free += 1
        started = 0
        deliveries = self.claim(self.within_life(free)) if not self.stopping else []
        for delivery in deliveries:
            admitted = self.executor.admit(delivery)
            if isinstance(admitted, Settlement):
                self.settler.add(admitted, time.monotonic())
                continue
            if self.suspect(delivery):
                free = self._all_free(free)
            started += 1
            self.ran += 1
            self.in_hand.add(delivery.tag)
            self._jobs.put(admitted)
        self.settler.flush()
        if started and self.suspect(deliveries[0]):
            started -= self._free.acquire(timeout=ALONE)  # its own: it has ended
        for _ in range(free - started):
            self._free.release()

    def _all_free(self, free: int) -> int:
        """Wait for what runs, so that a suspect runs alone; how many threads are held then."""
        until = time.monotonic() + ALONE
        while free < self.options.concurrency and not self.stopping:
            left = until - time.monotonic()
            if left <= 0:
                break
            free += self._free.acquire(timeout=min(left, WAIT))
        return free

    def _thread(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._run(job)
            except BaseException:
                logger.exception("A thread could not finish %s", job.request)
            finally:
                self.in_hand.discard(job.delivery.tag)
                self._free.release()

    def _run(self, job: Job) -> None:
        now = time.monotonic()
        if self.stopping:
            self.settler.add(Settlement(delivery=job.delivery, verdict=Verdict.RELEASE), now)
            self.settler.flush()
            return
        seat = self._seats.get()
        slot = self.table.slot(seat)
        slot.start(job.delivery.tag, job.delivery.message.id, job.task.name, now)
        try:
            settlement = self.executor.run(job) if self.begin(job) else None
        finally:
            slot.finish()
            self._seats.put(seat)
        if settlement is not None:
            with self.lock:
                self.count(settlement)
            self.settler.add(settlement, time.monotonic())
        self.settler.flush()
