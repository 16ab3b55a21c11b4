"""What wakes a call that waits for the server."""

from __future__ import annotations

import os
import select
import threading


class Bell:
    """Rung from any thread; heard by whoever sleeps with it. Nothing while it is not open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # a number that was closed is soon another file's
        self._in, self._out = -1, -1
        self._sleeping = 0
        self._open = False

    def open(self) -> None:
        with self._lock:
            self._open = True
            if self._in < 0:
                self._in, self._out = os.pipe()
                os.set_blocking(self._in, False)
                os.set_blocking(self._out, False)

    def close(self) -> None:
        """Whoever sleeps wakes up."""
        with self._lock:
            self._open = False
            self._ring()
            self._let_go()

    def ring(self) -> None:
        with self._lock:
            self._ring()

    def sleep(self, fd: int, seconds: float) -> None:
        """Until there is something to read at ``fd`` (none, if negative), or somebody rings."""
        with self._lock:
            bell = self._in
            self._sleeping += 1
        poller = select.poll()
        for one in (fd, bell):
            if one >= 0:
                poller.register(one, select.POLLIN)
        rung = False
        try:
            rung = any(ready == bell for ready, _ in poller.poll(seconds * 1000))
        finally:
            self._woken(rung)

    def _woken(self, rung: bool) -> None:
        with self._lock:
            self._sleeping -= 1
            if rung:
                try:
                    os.read(self._in, 4096)
                except BlockingIOError:
                    pass  # another thread heard it as well
            self._let_go()

    def _ring(self) -> None:
        if self._out >= 0:
            try:
                os.write(self._out, b"w")
            except BlockingIOError:
                pass  # it is full of rings

    def _let_go(self) -> None:
        """Once it is closed and nobody sleeps."""
        if not self._open and not self._sleeping and self._in >= 0:
            os.close(self._in)
            os.close(self._out)
            self._in, self._out = -1, -1
