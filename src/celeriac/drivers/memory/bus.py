"""The event bus of ``memory://``: a bounded list for every listener."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from celeriac.drivers.memory.store import Store

KEPT = 10_000
"""Events that wait for a listener; beyond it, the oldest are dropped."""


class MemoryEventBus:
    """Every object is one listener: it hears what was emitted since its first ``listen``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._topics: set[str] = set()
        self._heard: deque[tuple[str, bytes]] = deque(maxlen=KEPT)
        self._closed = False
        self._wakes = 0

    def emit(self, topic: str, payload: bytes = b"") -> None:
        with self._store.lock:
            for bus in self._store.listeners:
                if topic in bus._topics:
                    bus._heard.append((topic, payload))
            self._store.changed.notify_all()

    def listen(self, topics: Iterable[str], timeout: float) -> list[tuple[str, bytes]]:
        deadline = time.monotonic() + timeout
        with self._store.lock:
            self._closed = False
            self._store.listeners.add(self)
            self._topics = set(topics)
            wakes = self._wakes
            while not self._closed and self._wakes == wakes:
                if self._heard:
                    heard = [event for event in self._heard if event[0] in self._topics]
                    self._heard.clear()
                    if heard:
                        return heard
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._store.changed.wait(left)
        return []

    def wake(self) -> None:
        with self._store.lock:
            self._wakes += 1
            self._store.changed.notify_all()

    def close(self) -> None:
        """Listen no more; a waiting ``listen`` returns."""
        with self._store.lock:
            self._closed = True
            self._store.listeners.discard(self)
            self._topics.clear()
            self._heard.clear()
            self._store.changed.notify_all()
