"""The result backend of ``sqlite://``."""

from __future__ import annotations

import json
import os
import sqlite3
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from celeriac.drivers.sqlite.broker import capabilities_of
from celeriac.drivers.sqlite.options import read_options
from celeriac.drivers.sqlite.outcomes import (
    completed_by,
    count_in,
    open_joins,
    put_records,
    record_of,
    tell_unfinished,
    unfinished,
)
from celeriac.drivers.sqlite.sharing import database
from celeriac.drivers.sqlite.statements import statements
from celeriac.drivers.sqlite.upkeep import SLICE
from celeriac.drivers.sqlite.waiting import ResultWaits
from celeriac.message import Arrival, Completes, Join, TaskRecord, Unfinished

__all__ = ["SqliteResultBackend"]

_SQL = statements("outcomes")
_GET, _GET_READY, _DELETE, _PURGE = (
    _SQL["get"],
    _SQL["get_ready"],
    _SQL["delete"],
    _SQL["purge"],
)
_ADMIT, _ADMITTED = _SQL["admit"], _SQL["admitted"]


class SqliteResultBackend:
    """Celeriac's ResultBackend contract on one SQLite file."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.options = read_options(url, options)
        self.capabilities = capabilities_of(self.options)
        self.store = self.options.store
        self._clock = self.options.clock
        self._database = database(self.options)
        self._waits = ResultWaits(self._database.watch, self._ready)
        self._opened = False
        _backends.add(self)

    def open(self) -> None:
        self._waits.open()
        if not self._opened:
            self._database.use()
            self._opened = True

    def close(self) -> None:
        self._waits.close()
        if self._opened:
            self._opened = False
            self._database.release()

    def wake(self) -> None:
        self._waits.wake()

    # --- records

    def put(self, records: Sequence[TaskRecord]) -> list[TaskRecord]:
        now = self._clock()
        known = {record.id for record in records}
        with self._database.write() as connection:
            if len(known) == len(records):
                return self._put(connection, records, now)
            # One id twice: each answer is what stood after its own turn.
            return [each for record in records for each in self._put(connection, [record], now)]

    @staticmethod
    def _put(
        connection: sqlite3.Connection, records: Sequence[TaskRecord], now: float
    ) -> list[TaskRecord]:
        put_records(connection, records, now)
        ids = json.dumps([record.id for record in records])
        standing = {row[0]: row for row in connection.execute(_GET, (ids, now))}
        # A record that has expired already stands for nobody; it is the caller's own.
        return [
            record_of(standing[record.id]) if record.id in standing else record
            for record in records
        ]

    def get(self, ids: Sequence[str]) -> list[TaskRecord | None]:
        rows = self._database.fetch_lossy(_GET, (json.dumps(list(ids)), self._clock()))
        found = {row[0]: record_of(row) for row in rows}
        return [found.get(id) for id in ids]

    def wait(self, ids: Sequence[str], timeout: float) -> list[TaskRecord]:
        wanted = list(dict.fromkeys(ids))
        found = self._ready(json.dumps(wanted))
        if found or timeout <= 0 or not wanted:
            return found
        return self._waits.wait(wanted, timeout)

    def _ready(self, ids: str) -> list[TaskRecord]:
        rows = self._database.fetch_lossy(_GET_READY, (ids, self._clock()))
        return [record_of(row) for row in rows]

    def delete(self, ids: Sequence[str]) -> int:
        with self._database.write() as connection:
            return connection.execute(_DELETE, (json.dumps(list(ids)), self._clock())).rowcount

    def purge(self) -> int:
        now = self._clock()
        purged = 0
        while True:
            with self._database.write() as connection:
                count = connection.execute(_PURGE, (now, SLICE)).rowcount
            purged += count
            if count < SLICE:
                return purged

    # --- joins and keys

    def open_joins(self, joins: Sequence[Join]) -> None:
        now = self._clock()
        with self._database.write() as connection:
            open_joins(connection, joins, now)

    def unfinished(self, older: float, limit: int) -> list[Unfinished]:
        now = self._clock()
        found = unfinished(self._database.fetch, older, limit, now)
        if not found:
            return []
        with self._database.write() as connection:
            return [one for one in found if tell_unfinished(connection, one.join, older, now)]

    def arrive(
        self, arrivals: Sequence[Arrival], tokens: Mapping[str, str] | None = None
    ) -> list[Completes | None]:
        now = self._clock()
        answers: list[Completes | None] = []
        with self._database.write() as connection:
            for arrival in arrivals:
                completes = completed_by(connection, [arrival], tokens or {}, now)
                if completes is None:
                    count_in(connection, [arrival], now)
                answers.append(completes)
        return answers

    def admit(self, key: str, publish_id: str) -> bool:
        now = self._clock()
        with self._database.write() as connection:
            connection.execute(_ADMIT, (key, publish_id, now + self.options.dedupe_window, now))
            (first,) = connection.execute(_ADMITTED, (key,)).fetchone()
        return bool(first == publish_id)


_backends: weakref.WeakSet[SqliteResultBackend] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for backend in list(_backends):
        backend._waits.start_anew()


os.register_at_fork(after_in_child=_after_fork_in_child)
