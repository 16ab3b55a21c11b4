"""What ``maintain`` does: dead leases, what has expired, and the size of the file.

Each step is a short transaction of its own, so that nobody waits long for the lock.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable

from celeriac.drivers.sqlite.claiming import held_now, owner_made, promote
from celeriac.drivers.sqlite.connection import Database
from celeriac.drivers.sqlite.sequence import remove_messages
from celeriac.drivers.sqlite.statements import statements
from celeriac.message import Delivery, Owner, Upkeep

__all__ = ["anything_due", "collect", "promote_due", "remove_expired", "shrink"]

_LEASES = statements("leases")
_SQL = statements("upkeep")
_PURGE_RESULTS = statements("outcomes")["purge"]

SLICE = 1000
"""Rows that one transaction removes."""
BUDGET = 0.1
"""Seconds after which a call leaves the rest to the next one."""
SPARE_PAGES = 2000
"""Free pages that are kept for what comes, or a tenth of the file if that is more."""
PAGES_AT_ONCE = 250
LOG_TOO_LONG = 32 * 1024 * 1024
OPTIMIZE_EVERY = 3600.0


def anything_due(database: Database, upkeep: Upkeep, now: float) -> bool:
    """Is there anything for the functions below? One look, since mostly there is not."""
    dead_before = None if upkeep.dead_expires is None else now - upkeep.dead_expires
    rows = database.fetch(_SQL["anything_due"], (now, dead_before, upkeep.dead_max))
    return bool(rows[0][0])


def promote_due(database: Database, now: float) -> None:
    deadline = time.monotonic() + BUDGET
    while database.fetch(_SQL["due"], (now,))[0][0] and time.monotonic() < deadline:
        with database.write() as connection:
            promote(connection, now)


def collect(database: Database, owner: Owner, upkeep: Upkeep, now: float) -> list[Delivery]:
    """What the owners of dead leases held: back in line, or in the owner's hands if it is not to
    run again. Judges nobody unless the owner's own lease was there for its whole length."""
    if not database.fetch(_LEASES["judge"], (owner.lease, now)):
        return []
    if not database.fetch(_LEASES["dead_leases"], (now,)) and not database.fetch(
        _LEASES["orphans"]
    ):
        return []
    seqs: list[int] = []
    with database.write() as connection:
        if not connection.execute(_LEASES["judge"], (owner.lease, now)).fetchone():
            return []
        owner_id = owner_made(database, connection, owner)
        names = [row[0] for row in connection.execute(_LEASES["dead_leases"], (now,))]
        names += [row[0] for row in connection.execute(_LEASES["orphans"])]
        for name in dict.fromkeys(names):
            seqs += _bring_back(connection, name, owner_id, upkeep.max_deliveries)
    return held_now(database, owner, owner_id, seqs, now) if seqs else []


def _bring_back(
    connection: sqlite3.Connection, lease: str, judge: int, max_deliveries: int
) -> list[int]:
    execute = connection.execute
    execute(_LEASES["drop_lease"], (lease,))
    execute(_LEASES["count_lost"], (lease,))
    handed = [row[0] for row in execute(_LEASES["not_again"], (lease, max_deliveries))]
    if handed:
        execute(_LEASES["hand_over"], (judge, lease, max_deliveries))
    execute(_LEASES["give_back"], (lease,))
    execute(_LEASES["let_go"], (lease,))
    execute(_LEASES["forget_owners"], (lease,))
    return handed


# --- what has expired


def remove_expired(database: Database, upkeep: Upkeep, now: float) -> None:
    deadline = time.monotonic() + BUDGET
    steps: list[Callable[[sqlite3.Connection], int]] = []
    if database.fetch(_SQL["anything_expired"], (now,))[0][0]:
        steps += _expiry_steps(now)
    steps += _dead_steps(database, upkeep, now)
    while steps and time.monotonic() < deadline:
        with database.write() as connection:
            if steps[0](connection) < SLICE:
                steps.pop(0)


def _expiry_steps(now: float) -> list[Callable[[sqlite3.Connection], int]]:
    def purge(statement: str) -> Callable[[sqlite3.Connection], int]:
        return lambda connection: connection.execute(statement, (now, SLICE)).rowcount

    def cancelled(connection: sqlite3.Connection) -> int:
        connection.execute(_SQL["purge_cancelled"], (now,))
        return 0

    def joins(connection: sqlite3.Connection) -> int:
        ids = [row[0] for row in connection.execute(_SQL["expired_joins"], (now, SLICE))]
        connection.execute(_SQL["drop_arrivals"], (json.dumps(ids),))
        connection.execute(_SQL["drop_plans"], (json.dumps(ids),))
        connection.execute(_SQL["drop_joins"], (json.dumps(ids),))
        return len(ids)

    keys, admitted = purge(_SQL["purge_keys"]), purge(_SQL["purge_admitted"])
    return [cancelled, joins, keys, admitted, purge(_PURGE_RESULTS)]


def _dead_steps(
    database: Database, upkeep: Upkeep, now: float
) -> list[Callable[[sqlite3.Connection], int]]:
    """Dead letters by age, then by count."""
    steps: list[Callable[[sqlite3.Connection], int]] = []
    if upkeep.dead_expires is not None:
        before = now - upkeep.dead_expires
        if database.fetch(_SQL["old_dead"], (before, 1)):
            steps.append(lambda c: _drop_dead(c, c.execute(_SQL["old_dead"], (before, SLICE))))
    most = upkeep.dead_max
    if most is not None and database.fetch(_SQL["count_dead"])[0][0] > most:

        def surplus(connection: sqlite3.Connection) -> int:
            (count,) = connection.execute(_SQL["count_dead"]).fetchone()
            first = connection.execute(_SQL["first_dead"], (max(0, min(SLICE, count - most)),))
            return _drop_dead(connection, first)

        steps.append(surplus)
    return steps


def _drop_dead(connection: sqlite3.Connection, rows: sqlite3.Cursor) -> int:
    seqs = [row[0] for row in rows.fetchall()]
    connection.execute(_SQL["drop_dead"], (json.dumps(seqs),))
    remove_messages(connection, seqs)
    return len(seqs)


# --- the file


def shrink(database: Database) -> None:
    """Give free pages at the end of the file back, some at a time, and shorten a long log. The
    file is cut when the log has been emptied."""
    deadline = time.monotonic() + BUDGET
    while True:
        (free,) = database.fetch("PRAGMA freelist_count")[0]
        (pages,) = database.fetch("PRAGMA page_count")[0]
        surplus = min(free - max(SPARE_PAGES, pages // 10), PAGES_AT_ONCE)
        if surplus <= 0 or time.monotonic() > deadline:
            break
        with database.write() as connection:
            connection.execute(f"PRAGMA incremental_vacuum({surplus})").fetchall()
    (size,) = database.fetch("PRAGMA page_size")[0]
    uncut = os.stat(database.path).st_size - pages * size
    if uncut > LOG_TOO_LONG or database.log.length() > LOG_TOO_LONG or (uncut > 0 and surplus <= 0):
        database.run(database.log.empty)  # or as much as others' reading allows
