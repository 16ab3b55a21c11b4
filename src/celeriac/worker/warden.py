"""Ending running tasks from outside: hard time limits and termination on request.

A slot is believed only while its process is stopped: between a look at it and the kill, the task
may have ended and another, innocent one begun.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from celeriac.worker.crew import Crew, Doom, Member
from celeriac.worker.options import PoolPowers
from celeriac.worker.slots import Running, Slot

logger = logging.getLogger("celeriac.worker")

STOP_PATIENCE: Final = 0.5  # how long a process may take to stop (one in the kernel cannot at all)
REQUEST_PATIENCE: Final = 2.0  # how long to look for a task that is claimed but not yet running
KILLING: Final = frozenset({"SIGTERM", "SIGKILL", "SIGQUIT", "SIGINT"})
"""Signals that end a task. Runners leave all but SIGKILL to the supervisor, so that is sent."""


class Request(Struct, kw_only=True):
    """Terminate this task; looked for until ``until`` (CLOCK_MONOTONIC)."""

    task_id: str
    signal: str
    until: float


class Warden:
    """Watches the running tasks of a crew."""

    def __init__(
        self, crew: Crew, powers: PoolPowers, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._crew = crew
        self._powers = powers
        self._clock = clock
        self._requests: list[Request] = []

    def tick(self, now: float) -> float | None:
        """Do what is due. When to look again at the latest, None if nothing is awaited."""
        for request in self._requests:
            self._terminate(request)
        self._requests = [request for request in self._requests if request.until > now]
        nearest = self._enforce(now) if self._powers.hard_limits else None
        return now + 0.1 if self._requests else nearest

    def request(self, task_id: str, signal_name: str, now: float) -> None:
        """Terminate the task, should it run in one of our processes."""
        name = signal_name if signal_name.startswith("SIG") else f"SIG{signal_name}"
        if name not in signal.Signals.__members__:
            logger.error("Cannot terminate %s: there is no signal %s", task_id, signal_name)
            return
        request = Request(task_id=task_id, signal=name, until=now + REQUEST_PATIENCE)
        if not any(known.task_id == task_id for known in self._requests):
            self._requests.append(request)

    def restart_idle(self, why: str) -> int:
        """Kill the runners that run nothing, as their connections may be of no use: how many."""
        killed = 0
        for member in self._crew.members.values():
            if member.doom is not None or any(cell.running() for cell in member.cells):
                continue
            os.kill(member.pid, signal.SIGSTOP)
            if _wait_until_stopped(member.pid) and not any(c.running() for c in member.cells):
                self._kill(member, Doom(why="lost", detail=f"is restarted: {why}"))
                killed += 1
            else:
                os.kill(member.pid, signal.SIGCONT)
        return killed

    def _enforce(self, now: float) -> float | None:
        nearest = None
        for member in self._crew.members.values():
            deadline = member.slot.hard_deadline()
            if not deadline or member.doom is not None:
                continue
            if now < deadline:
                nearest = deadline if nearest is None else min(nearest, deadline)
                continue
            running = self._stopped_while(member, member.slot, self._overdue)
            if running is not None:
                self._kill(member, Doom(why="time_limit", limit=running.hard))
        return nearest

    def _overdue(self, running: Running) -> bool:
        return bool(running.hard) and self._clock() >= running.started + running.hard

    def _terminate(self, request: Request) -> None:
        def is_wanted(running: Running) -> bool:
            return running.task_id == request.task_id

        for member in self._crew.members.values():
            for cell in member.cells:
                hint = cell.running()
                if member.doom is not None or hint is None or not is_wanted(hint):
                    continue
                request.until = 0.0
                if not self._powers.processes:
                    self._ask(cell, hint)
                elif request.signal not in KILLING:
                    self._signal(member, cell, is_wanted, request.signal)
                elif self._stopped_while(member, cell, is_wanted) is not None:
                    self._kill(member, Doom(why="terminated", signal=request.signal))
                return

    def _ask(self, cell: Slot, running: Running) -> None:
        """A process that runs other tasks, too, is not killed for one of them."""
        if self._powers.terminates:
            cell.request_cancel(running.seq)
        else:
            logger.warning(
                "Cannot terminate %s[%s]: this pool runs several tasks in one process; "
                "it goes on. Use --pool=processes where that is needed.",
                running.name,
                running.task_id,
            )

    def _signal(
        self, member: Member, cell: Slot, wanted: Callable[[Running], bool], name: str
    ) -> None:
        if self._stopped_while(member, cell, wanted) is not None:
            os.kill(member.pid, signal.Signals[name])
            os.kill(member.pid, signal.SIGCONT)

    def _stopped_while(
        self, member: Member, cell: Slot, wanted: Callable[[Running], bool]
    ) -> Running | None:
        """Stop the process. If it runs what is wanted: that, and the process stays stopped.
        Otherwise it goes on."""
        os.kill(member.pid, signal.SIGSTOP)
        if _wait_until_stopped(member.pid):
            running = cell.running()
            if running is not None and wanted(running):
                return running
        os.kill(member.pid, signal.SIGCONT)
        return None

    def _kill(self, member: Member, doom: Doom) -> None:
        member.doom = doom
        os.kill(member.pid, signal.SIGKILL)


def _wait_until_stopped(pid: int) -> bool:
    """False if it is dead, or does not stop for now."""
    until = time.monotonic() + STOP_PATIENCE
    pause = 0.00005
    flags = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT
    while time.monotonic() < until:
        status = os.waitid(os.P_PID, pid, flags)
        if status is not None:
            return status.si_code == os.CLD_STOPPED
        time.sleep(pause)
        pause = min(pause * 2, 0.01)
    return False
