"""Queue names and owners as the numbers that stand for them in the rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection

from celeriac.drivers.sqlite.statements import statements
from celeriac.message import Owner

__all__ = ["Names", "fresh_owner_id"]

_SQL = statements("names")
_QUEUE_ID, _QUEUE_ADD, _QUEUE_NAMES = _SQL["queue_id"], _SQL["queue_add"], _SQL["queue_names"]
_OWNER_ID = _SQL["owner_id"]

REMEMBERED = 1000


class Names:
    """What one connection remembers; a number that was made in a transaction that did not commit
    is forgotten."""

    def __init__(self) -> None:
        self._queue_ids: dict[str, int] = {}
        self._queue_names: dict[int, str] = {}
        self._owner_ids: dict[Owner, int] = {}
        self._unsure: list[str] = []

    def committed(self) -> None:
        self._unsure.clear()

    def rolled_back(self) -> None:
        for name in self._unsure:
            self._queue_ids.pop(name, None)
        self._unsure.clear()

    def queue_id(self, connection: sqlite3.Connection, name: str) -> int:
        """The queue's number, made if need be: only while writing."""
        id = self._queue_ids.get(name)
        if id is None:
            connection.execute(_QUEUE_ADD, (name,))
            (id,) = connection.execute(_QUEUE_ID, (name,)).fetchone()
            self._queue_ids[name] = id
            self._unsure.append(name)
        return int(id)

    def queue_names(
        self, ids: Collection[int], fetch: Callable[[str], Collection[tuple[int, str]]]
    ) -> dict[int, str]:
        """Not to be used within a transaction, which may have made names that do not stay."""
        if any(id not in self._queue_names for id in ids):
            self._queue_names = dict(fetch(_QUEUE_NAMES))
        names = self._queue_names
        return {id: names.get(id, "") for id in ids}

    def owner_id(self, connection: sqlite3.Connection, owner: Owner) -> int | None:
        """The owner's number, as remembered: it may have been forgotten by the store."""
        id = self._owner_ids.get(owner)
        return fresh_owner_id(connection, owner) if id is None else id

    def remember_owner(self, owner: Owner, id: int) -> None:
        """After the commit that may have made it."""
        if len(self._owner_ids) >= REMEMBERED:
            self._owner_ids.clear()
        self._owner_ids[owner] = id


def fresh_owner_id(connection: sqlite3.Connection, owner: Owner) -> int | None:
    key = (owner.lease, owner.slot, owner.incarnation)
    row = connection.execute(_OWNER_ID, key).fetchone()
    return int(row[0]) if row else None
