"""Noticing that a worker looks alive and does nothing, although there is work for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from celeriac import drivers
from celeriac.contracts import Broker, QueueAdmin
from celeriac.exceptions import NotCapable
from celeriac.worker.slots import SlotState, SlotTable

logger = logging.getLogger("celeriac.worker.agent")

LOOK_EVERY: Final = 15.0
PATIENCE: Final = 60.0


class Watchdog:
    """Compares what waits with what is claimed. The broker is asked only while nothing is."""

    def __init__(
        self,
        table: SlotTable,
        queues: Sequence[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = table.slots()
        self._queues = frozenset(queues)
        self._table = table
        self._clock = clock
        self._admin: QueueAdmin | None = None
        self._due = clock() + LOOK_EVERY
        self._claimed = -1
        self._since = clock()

    def use(self, broker: Broker | None) -> None:
        """Ask this broker; None: there is none for now."""
        self._since = self._clock()
        try:
            self._admin = drivers.admin_of(broker) if broker is not None else None
        except NotCapable:
            self._admin = None

    def look(self, now: float) -> str:
        """What is wrong, in words for the log, or nothing."""
        if now < self._due:
            return ""
        self._due = now + LOOK_EVERY
        claimed = sum(slot.claimed for slot in self._slots)
        busy = any(slot.state in (SlotState.RUNNING, SlotState.STARTING) for slot in self._slots)
        running = any(slot.running() is not None for slot in self._slots)
        if claimed != self._claimed or busy or running or self._table.stopping:
            self._claimed = claimed
            self._since = now
            return ""
        waiting = self._waiting()
        if not waiting:
            self._since = now
            return ""
        if now - self._since < PATIENCE:
            return ""
        self._since = now
        text = f"{waiting} message(s) wait and none was claimed for {PATIENCE:g} s"
        logger.error("%s: restarting the idle processes", text)
        return text

    def _waiting(self) -> int:
        if self._admin is None:
            return 0
        return sum(
            queue.waiting
            for queue in self._admin.queues()
            if queue.name in self._queues and not queue.paused
        )
