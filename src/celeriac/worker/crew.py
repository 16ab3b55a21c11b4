"""The runner processes of a worker: starting them, and giving each that ended a successor."""

from __future__ import annotations

import logging
import os
import signal
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from celeriac.worker.process import (
    EXIT_MEMORY,
    EXIT_OK,
    EXIT_RECYCLED,
    EXIT_SHUTDOWN,
    EXIT_TERMINATE,
    Lost,
    Predecessor,
)
from celeriac.worker.slots import Running, Slot, SlotState, SlotTable

logger = logging.getLogger("celeriac.worker")

FAILURES: Final = 5  # so many runners that never became idle ...
FAILURE_WINDOW: Final = 10.0  # ... within so many seconds: something is wrong with all of them
BACKOFF_FIRST: Final = 0.5
BACKOFF_LAST: Final = 10.0

_CLEAN = {
    EXIT_OK: "recycled",
    EXIT_RECYCLED: "recycled",
    EXIT_MEMORY: "memory",
    EXIT_SHUTDOWN: "recycled",
    EXIT_TERMINATE: "recycled",
}
_CLEAN_DETAIL = {
    EXIT_RECYCLED: "has run max_tasks_per_child tasks",
    EXIT_MEMORY: "has outgrown max_memory_per_child",
}


class Doom(Struct, frozen=True, kw_only=True):
    """Why the supervisor killed a runner."""

    why: str
    detail: str = ""
    limit: float = 0.0
    signal: str = ""


class Member(Struct, kw_only=True):
    """One runner process. ``cells``: the slots of the tasks that it can run at once; the first
    is its own."""

    pid: int
    slot: Slot
    cells: list[Slot]
    predecessor: Predecessor | None = None
    doom: Doom | None = None

    @property
    def name(self) -> str:
        return f"Runner-{self.slot.index + 1}"


class Vacancy(Struct, kw_only=True):
    """A slot that waits for its next process until ``at`` (CLOCK_MONOTONIC)."""

    cells: list[Slot]
    at: float
    predecessor: Predecessor | None = None


Start = Callable[[Slot, int, "Predecessor | None"], int]
"""Starts a runner for a slot and incarnation; its pid."""


class Crew:
    """All runners of one worker. ``processes``: one for each slot, or one for all of them."""

    def __init__(self, table: SlotTable, start: Start, *, processes: bool) -> None:
        self._start = start
        self.members: dict[int, Member] = {}
        slots = table.slots()
        groups = [[slot] for slot in slots] if processes else [slots]
        self.vacancies: list[Vacancy] = [Vacancy(cells=cells, at=0.0) for cells in groups]
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._backoff = 0.0
        self.closed = False

    def tick(self, now: float) -> None:
        """Start the runners whose time has come."""
        if not self.vacancies:
            return
        due = [vacancy for vacancy in self.vacancies if vacancy.at <= now]
        self.vacancies = [vacancy for vacancy in self.vacancies if vacancy.at > now]
        for vacancy in due:
            self._fill(vacancy)

    def _fill(self, vacancy: Vacancy) -> None:
        slot = vacancy.cells[0]
        for cell in vacancy.cells:
            cell.occupy(0)
        incarnation = slot.next_incarnation()
        slot.set_state(SlotState.STARTING)
        pid = self._start(slot, incarnation, vacancy.predecessor)
        slot.set_pid(pid)
        self.members[pid] = Member(
            pid=pid, slot=slot, cells=vacancy.cells, predecessor=vacancy.predecessor
        )

    def ended(self, pid: int, status: int, now: float, *, replace: bool) -> int | None:
        """A child process ended (``status`` as of waitpid): its exit code, negative for a signal;
        None if it was no runner. ``replace``: it gets a successor; without, it gets one only
        if it was running something whose outcome must be told."""
        member = self.members.pop(pid, None)
        if member is None:
            return None
        code = os.waitstatus_to_exitcode(status)
        began = member.slot.state is not SlotState.STARTING
        predecessor = self._predecessor(member, code, began)
        for cell in member.cells:
            cell.occupy(0)
        if self.closed or not (replace or predecessor.running):
            return code
        self._report(member, predecessor)
        at = now if began or predecessor.why != "lost" else self._not_before(now)
        if began:
            self._backoff = 0.0
        self.vacancies.append(Vacancy(cells=member.cells, at=at, predecessor=predecessor))
        return code

    def _predecessor(self, member: Member, code: int, began: bool) -> Predecessor:
        found = [running for cell in member.cells if (running := cell.running()) is not None]
        doom = member.doom
        if doom is None:
            if code in _CLEAN and not found:
                doom = Doom(why=_CLEAN[code], detail=_CLEAN_DETAIL.get(code, ""))
            else:
                doom = Doom(why="lost", detail=describe(code))
        earlier = member.predecessor
        return Predecessor(
            incarnation=member.slot.incarnation,
            why=doom.why,
            detail=doom.detail,
            limit=doom.limit,
            signal=doom.signal,
            running=tuple(_lost(running) for running in found),
            earlier=() if began or earlier is None else (earlier,),
        )

    def _report(self, member: Member, was: Predecessor) -> None:
        tasks = ", ".join(f"{lost.name}[{lost.task_id}]" for lost in was.running)
        doing = f" while running {tasks}" if tasks else ""
        if was.why == "lost":
            logger.error("%s (pid %d) %s%s", member.name, member.pid, was.detail, doing)
        elif was.why == "time_limit":
            over = f"exceeded its hard time limit of {was.limit:g} s"
            logger.info("%s (pid %d) was killed: %s %s", member.name, member.pid, tasks, over)
        elif was.why == "terminated":
            logger.info("%s (pid %d) was killed to end %s", member.name, member.pid, tasks)
        else:
            logger.info("%s (pid %d) %s: replaced", member.name, member.pid, was.detail or "ended")

    def _not_before(self, now: float) -> float:
        """When a slot whose process could not start may try again."""
        self._failures.append(now)
        if len(self._failures) < FAILURES or self._failures[0] < now - FAILURE_WINDOW:
            return now
        if not self._backoff or now > self._failures[-2]:
            self._backoff = min(max(self._backoff * 2, BACKOFF_FIRST), BACKOFF_LAST)
        logger.critical(
            "%d runners in a row ended before they could run anything; trying again in %g s. "
            "The lines above say why, or start the worker with --loglevel=debug.",
            len(self._failures),
            self._backoff,
        )
        return now + self._backoff

    def close(self) -> None:
        """Give nobody a successor any more."""
        self.closed = True
        self.vacancies.clear()

    def kill(self) -> None:
        """Kill them all; what they hold is for the broker to give back."""
        self.close()
        for pid in list(self.members):
            os.kill(pid, signal.SIGKILL)

    def wind_down(self) -> None:
        """Start nobody any more but those who must settle what a dead process was running."""
        self.vacancies = [
            vacancy
            for vacancy in self.vacancies
            if vacancy.predecessor is not None
            and any(one.running for one in vacancy.predecessor.chain())
        ]


def describe(code: int) -> str:
    """An exit code in words; negative: by a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (perhaps for want of memory)" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


def _lost(running: Running) -> Lost:
    return Lost(tag=running.tag, task_id=running.task_id, name=running.name)
