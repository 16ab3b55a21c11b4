"""The signals that a worker obeys, as something that a loop can wait for."""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any

from celeriac.worker import logs
from celeriac.worker.control import Line

OBEYED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGCHLD,
)

_DEFAULT = (signal.SIG_DFL, signal.default_int_handler)


class Orders:
    """Signals are written to a pipe by the interpreter and read in the loop: nothing happens in a
    handler."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._before: dict[int, Any] = {}
        self.on_terminal = sys.__stdin__ is not None and sys.__stdin__.isatty()

    def take(self) -> None:
        """Obey from now on; main thread only."""
        for number in OBEYED:
            self._before[number] = signal.signal(number, _noted)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def leave(self) -> None:
        """Listen no more. An order that comes now, when all is done, still ends nothing; handlers
        that a program had of its own are put back."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            if handler not in _DEFAULT or number == signal.SIGCHLD:
                signal.signal(number, handler)
        self._before.clear()
        os.close(self._read)
        os.close(self._write)

    def filenos(self) -> list[int]:
        return [self._read, self._write]

    def wait(self, timeout: float, line: Line | None) -> None:
        """Until there is an order, a word on the line, or the time is over."""
        poller = select.poll()
        poller.register(self._read, select.POLLIN)
        if line is not None and not line.closed:
            poller.register(line.fileno(), select.POLLIN)
        poller.poll(timeout * 1000)

    def given(self) -> list[int]:
        """The signals that have come in, in order."""
        try:
            return list(os.read(self._read, 4096))
        except BlockingIOError:
            return []

    def show_stacks(self, pids: Iterable[int]) -> None:
        """Write where every thread of every process is to the log."""
        faulthandler.dump_traceback(logs.stream(), all_threads=True)
        for pid in pids:
            if pid:
                os.kill(pid, signal.SIGUSR1)


def _noted(number: int, frame: FrameType | None) -> None:
    """The interpreter has written the number to the pipe."""
