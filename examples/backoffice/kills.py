"""Kills runners of the worker while they work, as a machine that runs out of memory would."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Sequence

import psutil

from examples.backoffice.attempts import Attempts, Event


class Killer(threading.Thread):
    """SIGKILLs one busy runner each time another of ``after`` (numbers of begun attempts) is
    reached, and tells ``notify``."""

    def __init__(
        self,
        attempts: Attempts,
        *,
        worker: int,
        after: Sequence[int],
        notify: Callable[[str], None],
    ) -> None:
        super().__init__(name="killer", daemon=True)
        self.attempts = attempts
        self.worker = worker
        self.after = after
        self.notify = notify
        self.killed: list[Event] = []
        self._pick = random.Random("kills")
        self._stopped = threading.Event()

    def run(self) -> None:
        begun = 0
        while len(self.killed) < len(self.after) and not self._stopped.wait(0.002):
            seen = len(self.attempts.events)
            self.attempts.update()
            begun += sum(event.what == "begin" for event in self.attempts.events[seen:])
            if begun >= self.after[len(self.killed)]:
                self._kill_one()

    def stop(self) -> None:
        self._stopped.set()
        self.join(10)

    def _kill_one(self) -> None:
        """At random: some then die before their work is done, some after it."""
        busy = list(self.attempts.running.items())
        for pid, event in self._pick.sample(busy, len(busy)):
            if self._kill(pid, event):
                self.killed.append(event)
                self.notify(f"killed runner {pid} with SIGKILL while it ran {event.task}")
                return

    def _kill(self, pid: int, event: Event) -> bool:
        """Halt the process, look whether it is still at this task, and only then kill it."""
        try:
            process = psutil.Process(pid)
            if self.worker not in [parent.pid for parent in process.parents()]:
                return False
            process.send_signal(signal.SIGSTOP)
            self._await_stop(process)
            self.attempts.update()
            if self.attempts.running.get(pid) != event:
                process.send_signal(signal.SIGCONT)
                return False
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return False
        return True

    @staticmethod
    def _await_stop(process: psutil.Process) -> None:
        """A process stops a moment after the signal was sent."""
        until = time.monotonic() + 1.0
        while process.status() != psutil.STATUS_STOPPED and time.monotonic() < until:
            time.sleep(0.0005)
