"""Soft time limits in the main thread of a process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from celeriac.exceptions import SoftTimeLimitExceeded
from celeriac.message import Settlement

__all__ = ["SoftLimit"]


class SoftLimit:
    """The alarm that ends a task at its soft limit, in the main thread of a process."""

    def __init__(self) -> None:
        self._armed = False
        signal.signal(signal.SIGALRM, self._ring)

    def _ring(self, signum: int, frame: Any) -> None:
        if self._armed:
            self._armed = False
            raise SoftTimeLimitExceeded()

    def call(self, seconds: float, work: Callable[[], Settlement]) -> Settlement:
        """``work()``, interrupted after ``seconds``."""
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            return work()
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0.0)
