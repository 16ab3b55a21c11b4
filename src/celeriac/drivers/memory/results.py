"""The result backend of ``memory://``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from celeriac.drivers.memory.handle import Handle
from celeriac.message import Arrival, Completes, Join, TaskRecord, Unfinished


class MemoryResultBackend(Handle):
    """Celeriac's ResultBackend contract in one process."""

    def put(self, records: Sequence[TaskRecord]) -> list[TaskRecord]:
        with self.using() as now:
            standing = [self.kept.outcomes.put(record, now) for record in records]
            self.kept.changed.notify_all()
        return standing

    def get(self, ids: Sequence[str]) -> list[TaskRecord | None]:
        with self.using() as now:
            return [self.kept.outcomes.standing(id, now) for id in ids]

    def wait(self, ids: Sequence[str], timeout: float) -> list[TaskRecord]:
        deadline = time.monotonic() + timeout
        wanted = list(dict.fromkeys(ids))
        with self.using():
            wakes = self.wakes
            while self.is_open:
                found = [record for record in self.get(wanted) if record and record.ready]
                left = deadline - time.monotonic()
                if found or left <= 0 or self.wakes != wakes:
                    return found
                self.kept.changed.wait(left)
        return []

    def open_joins(self, joins: Sequence[Join]) -> None:
        with self.using() as now:
            for join in joins:
                self.kept.outcomes.open_join(join, now)

    def unfinished(self, older: float, limit: int) -> list[Unfinished]:
        with self.using() as now:
            return self.kept.outcomes.unfinished(older, limit, now)

    def arrive(
        self, arrivals: Sequence[Arrival], tokens: Mapping[str, str] | None = None
    ) -> list[Completes | None]:
        with self.using() as now:
            return [self._arrive(arrival, tokens or {}, now) for arrival in arrivals]

    def _arrive(self, arrival: Arrival, tokens: Mapping[str, str], now: float) -> Completes | None:
        completes = self.kept.outcomes.completed_by([arrival], tokens, now)
        if completes is not None and completes.parts:
            return completes
        self.kept.outcomes.count_in([arrival], now)
        return None

    def admit(self, key: str, publish_id: str) -> bool:
        with self.using() as now:
            return self.kept.outcomes.admit(key, publish_id, now, self.window)

    def delete(self, ids: Sequence[str]) -> int:
        with self.using() as now:
            known = [id for id in dict.fromkeys(ids) if self.kept.outcomes.standing(id, now)]
            for id in known:
                del self.kept.outcomes.records[id]
            return len(known)

    def purge(self) -> int:
        with self.using() as now:
            return self.kept.outcomes.expire(now)
