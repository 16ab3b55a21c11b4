"""The event bus of ``sqlite://``: what was emitted last, in a small table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from celeriac.drivers.sqlite.options import read_options
from celeriac.drivers.sqlite.sharing import database
from celeriac.drivers.sqlite.statements import statements
from celeriac.drivers.sqlite.watch import Pace

__all__ = ["KEPT", "SqliteEventBus"]

_SQL = statements("events")
_EMIT, _TRIM, _LAST, _SINCE = _SQL["emit"], _SQL["trim"], _SQL["last"], _SQL["since"]

KEPT = 10_000
"""Events that wait for a listener; beyond it, the oldest are dropped."""
_TRIMMED_EVERY = 100


class SqliteEventBus:
    """Every object is one listener: it hears what was emitted since its first ``listen``."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._database = database(read_options(url, options))
        self._heard: int | None = None
        self._closed = False
        self._wakes = 0

    def emit(self, topic: str, payload: bytes = b"") -> None:
        with self._database.write() as connection:
            number = connection.execute(_EMIT, (topic, payload)).lastrowid or 0
            if number % _TRIMMED_EVERY == 0:
                connection.execute(_TRIM, (number - KEPT,))

    def listen(self, topics: Iterable[str], timeout: float) -> list[tuple[str, bytes]]:
        self._closed = False
        deadline = time.monotonic() + timeout
        names = json.dumps(sorted(set(topics)))
        watch = self._database.watch
        pace = Pace(watch)
        if self._heard is None:
            self._heard = self._last()
        wakes = self._wakes
        while not self._closed and self._wakes == wakes:
            count = watch.arm()
            rows = self._database.fetch(_SINCE, (self._heard, names, KEPT))
            if rows:
                self._heard = rows[-1][0]
                return [(topic, payload) for _, topic, payload in rows]
            left = deadline - time.monotonic()
            if left <= 0:
                break
            pace.sleep(count, left)
        return []

    def wake(self) -> None:
        self._wakes += 1
        self._database.watch.wake()

    def close(self) -> None:
        """Listen no more; a waiting ``listen`` returns."""
        self._closed = True
        self._heard = None
        self._database.watch.wake()

    def _last(self) -> int:
        rows = self._database.fetch(_LAST)
        return int(rows[0][0]) if rows else 0
