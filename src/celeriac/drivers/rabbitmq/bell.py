"""What wakes a call that waits for the server."""

from __future__ import annotations

import os
import select


class Bell:
    """Rung from any thread; heard by whoever sleeps with it. Nothing while it is not open."""

    def __init__(self) -> None:
        self._in, self._out = -1, -1

    def open(self) -> None:
        if self._in < 0:
            self._in, self._out = os.pipe()
            os.set_blocking(self._in, False)
            os.set_blocking(self._out, False)

    def close(self) -> None:
        for fd in (self._in, self._out):
            if fd >= 0:
                os.close(fd)
        self._in, self._out = -1, -1

    def ring(self) -> None:
        if self._out >= 0:
            try:
                os.write(self._out, b"w")
            except (BlockingIOError, OSError):
                pass  # it is full of rings, or closed by another thread

    def sleep(self, fd: int, seconds: float) -> None:
        """Until there is something to read at ``fd`` (none, if negative), or somebody rings."""
        poller = select.poll()
        for one in (fd, self._in):
            if one >= 0:
                poller.register(one, select.POLLIN)
        bell = self._in
        if any(ready == bell for ready, _ in poller.poll(seconds * 1000)):
            try:
                os.read(bell, 4096)
            except OSError:
                pass  # closed, or heard by another thread
