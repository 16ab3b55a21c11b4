"""A clock that tests move."""

from __future__ import annotations

import threading
import time

START = 1_700_000_000.0


class FakeClock:
    """Epoch seconds that stand still until ``advance``, or, after ``run``, flow like real ones.

    Called like ``time.time``, from any thread."""

    def __init__(self, start: float = START) -> None:
        self._now = start
        self._running_since: float | None = None
        self._lock = threading.Lock()

    def __call__(self) -> float:
        with self._lock:
            if self._running_since is None:
                return self._now
            return self._now + time.monotonic() - self._running_since

    def advance(self, seconds: float) -> None:
        """Jump ahead."""
        with self._lock:
            self._now += seconds

    def start_at(self, seconds: float) -> None:
        """Jump to this time."""
        with self._lock:
            self._now = seconds

    def run(self) -> None:
        """From now on, flow with real time, for tests of waiting."""
        with self._lock:
            if self._running_since is None:
                self._running_since = time.monotonic()
