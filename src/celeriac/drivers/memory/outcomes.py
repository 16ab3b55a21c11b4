"""What tasks came to: records, joins and admitted keys of a memory store, without lock or clock."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from msgspec import Struct

from celeriac import states
from celeriac.message import Arrival, Completes, Join, TaskRecord, Unfinished

CLOSED_JOIN_KEPT = 86400.0
"""Seconds that a completed join without ``expires_at`` is remembered, so that a part that arrives
again does not find an empty place."""


class JoinState(Struct, kw_only=True):
    size: int
    expires_at: float | None
    parts: dict[int, Arrival]
    token: str | None = None
    complete: bool = False
    plan: bytes = b""
    told_at: float = 0.0


class Outcomes:
    """Expects its caller to hold the store's lock."""

    def __init__(self) -> None:
        self.records: dict[str, TaskRecord] = {}
        self.joins: dict[str, JoinState] = {}
        self.admitted: dict[str, tuple[str, float]] = {}
        self._tokens = itertools.count(1)

    # --- records

    def standing(self, id: str, now: float) -> TaskRecord | None:
        record = self.records.get(id)
        return None if record is None or _past(record.expires_at, now) else record

    def put(self, record: TaskRecord, now: float) -> TaskRecord:
        """Store it, unless what stands may not be replaced by it; the record that stands."""
        old = self.standing(record.id, now)
        if old is not None and old.ready and (old.state == states.SUCCESS or old.run == record.run):
            return old
        self.records[record.id] = record
        return record

    # --- joins

    def open_join(self, join: Join, now: float) -> None:
        if join.id not in self.joins:
            self.joins[join.id] = JoinState(
                size=join.size,
                expires_at=join.expires_at,
                parts={},
                plan=join.plan,
                told_at=now,
            )

    def unfinished(self, older: float, limit: int, now: float) -> list[Unfinished]:
        found: list[Unfinished] = []
        for id, join in self.joins.items():
            if not join.plan or join.told_at > now - older or self._open(id, now) is None:
                continue
            if len(found) == limit:
                break
            join.told_at = now
            missing = tuple(index for index in range(join.size) if index not in join.parts)
            found.append(Unfinished(join=id, plan=join.plan, missing=missing))
        return found

    def completed_by(
        self, arrivals: Sequence[Arrival], tokens: Mapping[str, str], now: float
    ) -> Completes | None:
        """The first join that these arrivals would complete without its token. Changes nothing
        but the token, which is made anew for each who is told so."""
        for id in dict.fromkeys(arrival.join for arrival in arrivals):
            join = self._open(id, now)
            if join is None:
                if id in tokens and self._is_complete(id):
                    return Completes(join=id, token="", parts=())
                continue
            parts = dict(join.parts)
            for arrival in arrivals:
                if arrival.join == id and 0 <= arrival.index < join.size:
                    parts.setdefault(arrival.index, arrival)
            grown = len(parts) > len(join.parts)
            if not grown or len(parts) < join.size or tokens.get(id, "") == join.token:
                continue
            join.token = f"{id}/{next(self._tokens)}"
            return Completes(
                join=id, token=join.token, parts=tuple(parts[index] for index in sorted(parts))
            )
        return None

    def count_in(self, arrivals: Sequence[Arrival], now: float) -> None:
        """Note the parts; a join that has them all is closed."""
        for arrival in arrivals:
            join = self._open(arrival.join, now)
            if join is None or not 0 <= arrival.index < join.size:
                continue
            join.parts.setdefault(arrival.index, arrival)
            if len(join.parts) == join.size:
                join.complete = True
                join.parts = {}
                join.plan = b""
                if join.expires_at is None:
                    join.expires_at = now + CLOSED_JOIN_KEPT

    def _open(self, id: str, now: float) -> JoinState | None:
        join = self.joins.get(id)
        if join is None or join.complete or _past(join.expires_at, now):
            return None
        return join

    def _is_complete(self, id: str) -> bool:
        join = self.joins.get(id)
        return join is not None and join.complete

    # --- upkeep

    def admit(self, key: str, publish_id: str, now: float, window: float) -> bool:
        first, until = self.admitted.get(key, ("", 0.0))
        if until <= now:
            self.admitted[key] = (publish_id, now + window)
            return True
        return first == publish_id

    def expire(self, now: float) -> int:
        """Forget what has expired; how many records."""
        gone = [id for id, record in self.records.items() if _past(record.expires_at, now)]
        for id in gone:
            del self.records[id]
        for id in [id for id, join in self.joins.items() if _past(join.expires_at, now)]:
            del self.joins[id]
        for key in [key for key, (_, until) in self.admitted.items() if until <= now]:
            del self.admitted[key]
        return len(gone)


def _past(expires_at: float | None, now: float) -> bool:
    return expires_at is not None and expires_at <= now
