"""The bell: how all processes of a worker hear at once that they are to stop.

A pipe to which nobody writes. Every process holds its reading end; the supervisor alone holds the
other, and to ring is to close that. So it rings once, and also when the supervisor dies.
"""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Callable
from typing import Final

FIRST_PAUSE: Final = 0.005
LAST_PAUSE: Final = 0.5


class Bell:
    """``fd`` may be inherited: by a forked process, which calls ``disown``, or a spawned one, which
    makes its own object of it."""

    def __init__(self, fd: int, write: int = -1) -> None:
        self.fd = fd
        self._write = write

    @classmethod
    def hung(cls) -> Bell:
        """A new one, to be rung by this process."""
        return cls(*os.pipe())

    def ring(self) -> None:
        """Once; again, it does nothing. May be called in a signal handler."""
        write, self._write = self._write, -1
        if write >= 0:
            os.close(write)

    disown = ring  # a forked process: its copy of the end must not keep the bell from ringing

    def wait(self, timeout: float | None = None) -> bool:
        """Has it rung? Waits for it; None: without end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.fd, selectors.EVENT_READ)
            return bool(selector.select(timeout))

    def close(self) -> None:
        self.ring()
        os.close(self.fd)


class Waker:
    """A thread that sleeps until the bell rings, and then calls ``wake`` until all is over: a call
    that comes just before somebody begins to wait is lost."""

    def __init__(self, bell: Bell, wake: Callable[[], None]) -> None:
        self._bell = bell
        self._wake = wake
        self.rung = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="celeriac-bell", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """There is nobody left to wake."""
        self._over.set()

    def _work(self) -> None:
        self._bell.wait()
        self.rung.set()
        pause = FIRST_PAUSE
        while not self._over.is_set():
            self._wake()
            self._over.wait(pause)
            pause = min(pause * 2, LAST_PAUSE)
