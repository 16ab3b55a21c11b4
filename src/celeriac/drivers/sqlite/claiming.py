"""Taking messages out of their lines for an owner."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from celeriac.drivers.sqlite.connection import Database
from celeriac.drivers.sqlite.names import fresh_owner_id
from celeriac.drivers.sqlite.rows import deliveries
from celeriac.drivers.sqlite.sequence import next_seq, use_up
from celeriac.drivers.sqlite.statements import statements
from celeriac.exceptions import LeaseLost
from celeriac.message import Delivery, Owner

__all__ = [
    "Look",
    "claim_now",
    "drop",
    "hand_unstarted",
    "held_now",
    "hold",
    "look",
    "no_lease",
    "owner_made",
    "promote",
]

_SQL = statements("messages")
_LOOK, _OPEN_QUEUES, _FIRST_READY = _SQL["look"], _SQL["open_queues"], _SQL["first_ready"]
_HOLD_READY, _DELETE_READY = _SQL["hold_ready"], _SQL["delete_ready"]
_ADD_OWNER, _HELD, _CANCELLED = _SQL["add_owner"], _SQL["held"], _SQL["cancelled_among"]
_PROMOTE, _PROMOTED, _UNSTARTED = _SQL["promote"], _SQL["promoted"], _SQL["unstarted"]
_HOLD = tuple(_SQL[name] for name in ("hold_waiting", "hold_moved", "hold_delayed"))
_DROP = tuple(_SQL[name] for name in ("drop_waiting", "drop_moved", "drop_delayed"))

PROMOTED_AT_ONCE = 1000
"""Due messages that one call brings up, so that nobody waits long for the lock."""


class Look(Struct, frozen=True, gc=False):
    """What a claimer sees: ``due_at`` is when the next delayed message is due."""

    owner_id: int | None
    due_at: float | None
    cancels: bool
    queues: tuple[int, ...]


def look(connection: sqlite3.Connection, owner: Owner, names: str, store: str) -> Look:
    """Is there anything in these queues (a JSON array)? Raises LeaseLost."""
    leased, owner_id, due_at, cancels = connection.execute(
        _LOOK, (owner.lease, owner.slot, owner.incarnation)
    ).fetchone()
    if leased is None:
        raise no_lease(store, owner)
    rows = connection.execute(_OPEN_QUEUES, (names,)).fetchall()
    rows.sort()
    return Look(owner_id, due_at, cancels != 0, tuple(dict.fromkeys(id for _, id in rows)))


def no_lease(store: str, owner: Owner) -> LeaseLost:
    return LeaseLost(
        f"{store} does not know the lease {owner.lease!r} (any more): register it again, and go on "
        "as a new owner. What was held is with others."
    )


def claim_now(
    database: Database, owner: Owner, names: str, limit: int, max_bytes: int, now: float
) -> list[Delivery]:
    """One transaction that takes them, then one read of what they say."""
    with database.write() as connection:
        seen = look(connection, owner, names, database.options.store)
        if seen.due_at is not None and seen.due_at <= now:
            promote(connection, now)
            seen = look(connection, owner, names, database.options.store)
        owner_id = seen.owner_id
        if owner_id is None and seen.queues:
            owner_id = owner_made(database, connection, owner)
        seqs: list[int] = []
        space = max_bytes
        for queue in seen.queues:
            taken, space, full = _take(connection, owner_id, queue, limit - len(seqs), space, seqs)
            seqs += taken
            if full or len(seqs) >= limit:
                break
    if not seqs or owner_id is None:
        return []
    database.names.remember_owner(owner, owner_id)
    return held_now(database, owner, owner_id, seqs, now if seen.cancels else None)


def _take(
    connection: sqlite3.Connection,
    owner_id: int | None,
    queue: int,
    limit: int,
    space: int,
    before: Sequence[int],
) -> tuple[list[int], int, bool]:
    """The first ones of one queue: their numbers, the bytes left, and whether to stop here."""
    rows = connection.execute(_FIRST_READY, (queue, limit)).fetchall()
    taken = 0
    full = False
    for _, _, _, size, lost in rows:
        if (taken or before) and (lost or size > space):
            full = True  # what was lost before goes alone; one message always goes, however large
            break
        taken += 1
        space -= size
        if lost:
            full = True
            break
    if taken:
        rank, pos = rows[taken - 1][:2]
        connection.execute(_HOLD_READY, (owner_id, queue, rank, pos))
        connection.execute(_DELETE_READY, (queue, rank, pos))
    return [row[2] for row in rows[:taken]], space, full


def held_now(
    database: Database, owner: Owner, owner_id: int, seqs: Sequence[int], now: float | None
) -> list[Delivery]:
    """What the owner holds of these, in this order; ``now``: look which are cancelled."""
    rows = database.fetch_lossy(_HELD, (json.dumps(seqs), owner_id))
    if len(rows) > 1:
        place = {seq: number for number, seq in enumerate(seqs)}
        rows.sort(key=lambda row: place[row[0]])
    cancelled: set[str] = set()
    if now is not None:
        ids = json.dumps([row[1] for row in rows])
        cancelled = {id for (id,) in database.fetch(_CANCELLED, (ids, now))}
    return deliveries(database, rows, owner, cancelled)


def promote(connection: sqlite3.Connection, now: float) -> int:
    """Bring up what is due, some at a time."""
    first = next_seq(connection)
    count = connection.execute(_PROMOTE, (now, first, PROMOTED_AT_ONCE)).rowcount
    if count:
        connection.execute(_PROMOTED, (now, PROMOTED_AT_ONCE))
        use_up(connection, first + count - 1)
    return count


def owner_made(database: Database, connection: sqlite3.Connection, owner: Owner) -> int:
    """The owner's number, made if need be."""
    connection.execute(_ADD_OWNER, (owner.lease, owner.slot, owner.incarnation))
    id = fresh_owner_id(connection, owner)
    assert id is not None
    return id


def hand_unstarted(connection: sqlite3.Connection, owner_id: int, ids: Sequence[str]) -> list[int]:
    """Give the waiting and delayed messages of these task ids to the owner; their numbers."""
    seqs = [row[0] for row in connection.execute(_UNSTARTED, (json.dumps(list(ids)),))]
    hold(connection, owner_id, seqs)
    return seqs


def hold(connection: sqlite3.Connection, owner_id: int, seqs: Sequence[int]) -> None:
    """Take waiting and delayed messages out of their places into the owner's hands."""
    chosen = json.dumps(seqs)
    for statement in _HOLD:
        connection.execute(statement, (owner_id, chosen))
    drop(connection, seqs)


def drop(connection: sqlite3.Connection, seqs: Sequence[int]) -> None:
    """Take waiting and delayed messages out of their places."""
    chosen = json.dumps(seqs)
    for statement in _DROP:
        connection.execute(statement, (chosen,))
