"""The schedule store of ``sqlite://``."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from celeriac.drivers.sqlite.connection import Row
from celeriac.drivers.sqlite.options import read_options
from celeriac.drivers.sqlite.sharing import database
from celeriac.drivers.sqlite.statements import statements
from celeriac.message import ScheduleChanges, ScheduleRecord

__all__ = ["SqliteScheduleStore"]

_SQL = statements("schedules")
_CHANGES, _SINCE, _STORED = _SQL["changes"], _SQL["since"], _SQL["stored"]
_PUT, _SET_VERSION = _SQL["put"], _SQL["set_version"]
_REMOVE, _NEW_EPOCH = _SQL["remove"], _SQL["new_epoch"]


class SqliteScheduleStore:
    """Celeriac's ScheduleStore contract on one SQLite file."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        read = read_options(url, options)
        self.store = read.store
        self._database = database(read)
        self._opened = False

    def open(self) -> None:
        if not self._opened:
            self._database.use()
            self._opened = True

    def close(self) -> None:
        if self._opened:
            self._opened = False
            self._database.release()

    def load(self, since: str = "") -> ScheduleChanges:
        known_epoch, _, known = since.partition(":")
        ((epoch, version),) = self._database.fetch(_CHANGES)
        if since == f"{epoch}:{version}":
            return ScheduleChanges(token=since)
        with self._database.read() as connection:
            epoch, version = connection.execute(_CHANGES).fetchone()
            whole = known_epoch != str(epoch) or not known.isdigit()
            rows = connection.execute(_SINCE, (0 if whole else int(known),)).fetchall()
        return ScheduleChanges(
            token=f"{epoch}:{version}", records=tuple(map(_record, rows)), whole=whole
        )

    def save(self, records: Sequence[ScheduleRecord]) -> list[int]:
        if not records:
            return []
        with self._database.write() as connection:
            return self._save(connection, records)

    @staticmethod
    def _save(connection: sqlite3.Connection, records: Sequence[ScheduleRecord]) -> list[int]:
        names = json.dumps([record.name for record in records])
        stored = dict(connection.execute(_STORED, (names,)).fetchall())
        _, version = connection.execute(_CHANGES).fetchone()
        answers: list[int] = []
        rows: list[Row] = []
        for record in records:
            if stored.get(record.name, 0) != record.version:
                answers.append(0)
                continue
            version += 1
            stored[record.name] = version
            rows.append(_row(record, version))
            answers.append(version)
        if rows:
            connection.executemany(_PUT, rows)
            connection.execute(_SET_VERSION, (version,))
        return answers

    def remove(self, names: Sequence[str]) -> int:
        with self._database.write() as connection:
            gone = connection.execute(_REMOVE, (json.dumps(list(names)),)).rowcount
            if gone:
                connection.execute(_NEW_EPOCH)
        return gone


def _record(row: Row) -> ScheduleRecord:
    name, payload, source, anchor, paused, last_nominal, last_run_at, count, state, version = row
    return ScheduleRecord(
        name=name,
        payload=payload,
        source=source,
        anchor=anchor,
        paused=bool(paused),
        last_nominal=last_nominal,
        last_run_at=last_run_at,
        count=count,
        state=state,
        version=version,
    )


def _row(record: ScheduleRecord, version: int) -> Row:
    return (
        record.name,
        record.payload,
        record.source,
        record.anchor,
        record.paused,
        record.last_nominal,
        record.last_run_at,
        record.count,
        record.state,
        version,
    )
