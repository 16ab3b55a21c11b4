"""The keeper: a thread beside a runner that acts when a task turns out longer than thought.

After 10 ms it settles what was finished before; after 100 ms it gives back what was claimed and
has not started; twice a minute it has the broker tended. It sleeps while the runner is idle.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celeriac.worker.pools.processes import Runner

logger = logging.getLogger("celeriac.worker.keeper")

SETTLE_AFTER = 0.010
RELEASE_AFTER = 0.100
TEND_EVERY = 30.0
IDLE = 30.0


class Keeper:
    """Watches one runner."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._busy = threading.Event()
        self._stopped = False
        self._tend_due = 0.0
        self._thread = threading.Thread(target=self._work, name="celeriac-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """A batch begins."""
        if not self._busy.is_set():
            self._busy.set()

    def stop(self) -> None:
        self._stopped = True
        self._busy.set()
        self._thread.join(timeout=5.0)

    def _work(self) -> None:
        runner = self._runner
        while True:
            self._busy.wait(timeout=IDLE)
            if self._stopped:
                return
            time.sleep(SETTLE_AFTER)
            try:
                self._look()
            except Exception:
                logger.exception("The keeper could not settle")
            if not runner.pending and runner.settler.empty:
                self._busy.clear()
                if runner.pending or self._stopped:  # a batch began, or the end came, in between
                    self._busy.set()

    def _look(self) -> None:
        runner = self._runner
        if runner.job is None:
            return
        now = time.monotonic()
        running_for = now - runner.started
        if running_for >= RELEASE_AFTER and runner.pending:
            runner.release_pending()
        if running_for >= SETTLE_AFTER and not runner.settler.empty:
            runner.settler.flush()
        if running_for >= RELEASE_AFTER and now >= self._tend_due:
            self._tend_due = now + TEND_EVERY
            runner.tend()
