"""What tasks came to: records and joins, within the caller's transaction."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from celeriac.drivers.sqlite.connection import Row
from celeriac.drivers.sqlite.statements import statements
from celeriac.message import Arrival, Completes, Join, TaskRecord, Unfinished

__all__ = [
    "completed_by",
    "count_in",
    "open_joins",
    "put_records",
    "record_of",
    "tell_unfinished",
    "unfinished",
]

_SQL = statements("outcomes")
_PUT = _SQL["put"]
_OPEN_JOIN, _JOIN, _COMPLETE = _SQL["open_join"], _SQL["join"], _SQL["complete"]
_KEEP_PLAN, _DROP_PLAN = _SQL["keep_plan"], _SQL["drop_plan"]
_UNFINISHED, _TELL_UNFINISHED = _SQL["unfinished"], _SQL["tell_unfinished"]
_ARRIVED, _PARTS, _SET_TOKEN = _SQL["arrived"], _SQL["parts"], _SQL["set_token"]
_ADD_ARRIVAL, _COUNT_ARRIVAL = _SQL["add_arrival"], _SQL["count_arrival"]
_CLOSE_JOIN, _DROP_PARTS = _SQL["close_join"], _SQL["drop_parts"]

CLOSED_JOIN_KEPT = 86400.0
"""Seconds that a completed join without ``expires_at`` is remembered, so that a part that arrives
again does not find an empty place."""


def put_records(connection: sqlite3.Connection, records: Iterable[TaskRecord], now: float) -> None:
    connection.executemany(
        _PUT, [(r.id, r.run, r.state, r.ready, r.payload, r.expires_at, now) for r in records]
    )


def record_of(row: Row) -> TaskRecord:
    id, run, state, ready, payload, expires_at = row
    return TaskRecord(
        id=id, run=run, state=state, ready=ready != 0, payload=payload, expires_at=expires_at
    )


def open_joins(connection: sqlite3.Connection, joins: Iterable[Join], now: float) -> None:
    for join in joins:
        opened = connection.execute(_OPEN_JOIN, (join.id, join.size, join.expires_at)).rowcount
        if opened and join.plan:
            connection.execute(_KEEP_PLAN, (join.id, join.plan, now))


def unfinished(
    fetch: Callable[[str, Sequence[Any]], Sequence[Row]], older: float, limit: int, now: float
) -> list[Unfinished]:
    """Joins that were told of or opened so long ago, with what is missing in them."""
    found = []
    for id, plan, size in fetch(_UNFINISHED, (now - older, now, limit)):
        there = {row[0] for row in fetch(_PARTS, (id,))}
        missing = tuple(index for index in range(size) if index not in there)
        found.append(Unfinished(join=id, plan=plan, missing=missing))
    return found


def tell_unfinished(connection: sqlite3.Connection, id: str, older: float, now: float) -> bool:
    """Note that somebody is told of the join now; False: somebody else was."""
    return connection.execute(_TELL_UNFINISHED, (now, id, now - older)).rowcount > 0


def completed_by(
    connection: sqlite3.Connection,
    arrivals: Sequence[Arrival],
    tokens: Mapping[str, str],
    now: float,
) -> Completes | None:
    """The first join that these arrivals would complete without its token. Changes nothing but
    the token, which is made anew for each who is told so."""
    for id in dict.fromkeys(arrival.join for arrival in arrivals):
        row = connection.execute(_JOIN, (id, now)).fetchone()
        if row is None:
            if id in tokens and connection.execute(_COMPLETE, (id,)).fetchone():
                return Completes(join=id, token="", parts=())
            continue
        size, arrived, token = row
        mine = [arrival for arrival in arrivals if arrival.join == id]
        new = _new_parts(connection, mine, size)
        if not new or arrived + len(new) < size:
            continue
        if token is not None and tokens.get(id) == token:
            continue
        return _completes(connection, id, new)
    return None


def _new_parts(
    connection: sqlite3.Connection, arrivals: Sequence[Arrival], size: int
) -> dict[int, Arrival]:
    """Of each index of one join that is not in yet, the first."""
    new: dict[int, Arrival] = {}
    for arrival in arrivals:
        index = arrival.index
        if not 0 <= index < size or index in new:
            continue
        if connection.execute(_ARRIVED, (arrival.join, index)).fetchone() is None:
            new[index] = arrival
    return new


def _completes(connection: sqlite3.Connection, id: str, new: dict[int, Arrival]) -> Completes:
    token = os.urandom(12).hex()
    connection.execute(_SET_TOKEN, (token, id))
    parts = dict(new)
    for index, task, state, value in connection.execute(_PARTS, (id,)):
        parts[index] = Arrival(join=id, index=index, id=task, state=state, value=value)
    return Completes(join=id, token=token, parts=tuple(parts[index] for index in sorted(parts)))


def count_in(connection: sqlite3.Connection, arrivals: Iterable[Arrival], now: float) -> None:
    """Note the parts; a join that has them all is closed."""
    execute = connection.execute
    for arrival in arrivals:
        row = execute(_JOIN, (arrival.join, now)).fetchone()
        if row is None or not 0 <= arrival.index < row[0]:
            continue
        part = (arrival.join, arrival.index, arrival.id, arrival.state, arrival.value)
        if execute(_ADD_ARRIVAL, part).rowcount == 0:
            continue
        execute(_COUNT_ARRIVAL, (arrival.join,))
        if row[1] + 1 == row[0]:
            execute(_CLOSE_JOIN, (now + CLOSED_JOIN_KEPT, arrival.join))
            execute(_DROP_PARTS, (arrival.join,))
            execute(_DROP_PLAN, (arrival.join,))
