"""The agent's process as the supervisor sees it: started first, watched, replaced, dismissed."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import Final

from celeriac.worker.control import Leave, Line, Word
from celeriac.worker.slots import SlotTable

logger = logging.getLogger("celeriac.worker")

QUICK: Final = 10.0  # an agent that lived for less is not replaced at once a second time
BACKOFF_FIRST: Final = 0.5
BACKOFF_LAST: Final = 5.0  # well below any lease
GAP: Final = 2.0  # a turn of the supervisor that comes so late: the whole machine was asleep

Start = Callable[[int, list[int]], int]
"""Starts an agent with this end of the line, which closes the others: its pid."""


class AgentProcess:
    """``pid`` is 0 and ``line`` None while there is none. ``silence``: seconds without a turn of
    its loop after which the agent counts as stuck."""

    def __init__(self, table: SlotTable, start: Start, silence: float) -> None:
        self._table = table
        self._start = start
        self._silence = silence
        self.pid = 0
        self.line: Line | None = None
        self._born = 0.0
        self._due = 0.0
        self._backoff = 0.0
        self._dismissed = False
        self._last_tick = 0.0
        self._excused = 0.0

    def tick(self, now: float) -> None:
        """Start the agent if there is none; kill one that is stuck."""
        if now - self._last_tick > GAP:
            self._excused = now
        self._last_tick = now
        if not self.pid and now >= self._due:
            self._begin(now)
        elif self.pid and now - max(self._table.agent_beat, self._excused) > self._silence:
            logger.error("The agent has been stuck for %g s: replacing it", self._silence)
            self._excused = now
            os.kill(self.pid, signal.SIGKILL)

    def _begin(self, now: float) -> None:
        mine, theirs = Line.pair()
        self._table.beat(now)
        self._born = now
        self.pid = self._start(theirs.fileno(), [mine.fileno()])
        theirs.close()
        self.line = mine
        if self._dismissed:
            mine.say(Leave())

    def hear(self) -> list[Word]:
        """What the agent has said."""
        return self.line.hear() if self.line is not None else []

    def dismiss(self) -> None:
        """Have it give the lease back and end; one that is started later, too."""
        self._dismissed = True
        if self.line is not None:
            self.line.say(Leave())

    def ended(self) -> list[Word]:
        """The process is gone: its last words."""
        words = self.hear()
        if self.line is not None:
            self.line.close()
        self.pid, self.line = 0, None
        return words

    def replace(self, now: float) -> None:
        """Start another at the next tick, or a little later if this one was short-lived, too."""
        if now - self._born >= QUICK:
            self._backoff = 0.0
        self._due = now + self._backoff
        self._backoff = min(max(2 * self._backoff, BACKOFF_FIRST), BACKOFF_LAST)
