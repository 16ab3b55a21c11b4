"""The result backend of ``memory://``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from celeriac.contracts import Capabilities, Clock
from celeriac.drivers.memory.store import DEDUPE_WINDOW, Store
from celeriac.message import Arrival, Completes, Join, TaskRecord

CAPABILITIES = Capabilities(
    survives_process=False,
    shared=False,
    durability="Kept in the memory of this process: gone when it ends.",
)


class MemoryResultBackend:
    """Celeriac's ResultBackend contract in one process."""

    capabilities = CAPABILITIES

    def __init__(self, store: Store, options: Mapping[str, Any]) -> None:
        self.store = store.url
        self._store = store
        self._clock: Clock = options.get("clock") or time.time
        self._window = float(options.get("dedupe_window", DEDUPE_WINDOW))
        self._closed = False

    def open(self) -> None:
        self._closed = False

    def close(self) -> None:
        with self._store.lock:
            self._closed = True
            self._store.changed.notify_all()

    def put(self, records: Sequence[TaskRecord]) -> list[TaskRecord]:
        now = self._clock()
        with self._store.lock:
            standing = [self._store.outcomes.put(record, now) for record in records]
            self._store.changed.notify_all()
        return standing

    def get(self, ids: Sequence[str]) -> list[TaskRecord | None]:
        now = self._clock()
        with self._store.lock:
            return [self._store.outcomes.standing(id, now) for id in ids]

    def wait(self, ids: Sequence[str], timeout: float) -> list[TaskRecord]:
        deadline = time.monotonic() + timeout
        wanted = list(dict.fromkeys(ids))
        with self._store.lock:
            while not self._closed:
                found = [record for record in self.get(wanted) if record and record.ready]
                left = deadline - time.monotonic()
                if found or left <= 0:
                    return found
                self._store.changed.wait(left)
        return []

    def open_joins(self, joins: Sequence[Join]) -> None:
        with self._store.lock:
            for join in joins:
                self._store.outcomes.open_join(join)

    def arrive(
        self, arrivals: Sequence[Arrival], tokens: Mapping[str, str] | None = None
    ) -> list[Completes | None]:
        now = self._clock()
        with self._store.lock:
            return [self._arrive(arrival, tokens or {}, now) for arrival in arrivals]

    def _arrive(self, arrival: Arrival, tokens: Mapping[str, str], now: float) -> Completes | None:
        completes = self._store.outcomes.completed_by([arrival], tokens, now)
        if completes is not None and completes.parts:
            return completes
        self._store.outcomes.count_in([arrival], now)
        return None

    def admit(self, key: str, publish_id: str) -> bool:
        with self._store.lock:
            return self._store.outcomes.admit(key, publish_id, self._clock(), self._window)

    def delete(self, ids: Sequence[str]) -> int:
        now = self._clock()
        with self._store.lock:
            known = [id for id in dict.fromkeys(ids) if self._store.outcomes.standing(id, now)]
            for id in known:
                del self._store.outcomes.records[id]
            return len(known)

    def purge(self) -> int:
        with self._store.lock:
            return self._store.outcomes.expire(self._clock())
