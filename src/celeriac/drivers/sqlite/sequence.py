"""The numbers of messages and of places in line: one sequence, none used twice."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from celeriac.drivers.sqlite.statements import statements

__all__ = ["next_seq", "remove_messages", "removing", "use_up"]

_SQL = statements("messages")
_NEXT_SEQ, _USE_UP, _REMOVING = _SQL["next_seq"], _SQL["use_up"], _SQL["removing"]
_REMOVE_THESE = statements("settle")["remove_these"]


def next_seq(connection: sqlite3.Connection) -> int:
    (seq,) = connection.execute(_NEXT_SEQ).fetchone()
    return int(seq)


def use_up(connection: sqlite3.Connection, last: int) -> None:
    """All numbers up to this one are in use, some as places in line."""
    connection.execute(_USE_UP, (last,))


def remove_messages(connection: sqlite3.Connection, seqs: Sequence[int]) -> None:
    """Their bytes; the caller sees to the rows that say where they were."""
    if seqs:
        removing(connection, max(seqs))
        connection.execute(_REMOVE_THESE, (json.dumps(seqs),))


def removing(connection: sqlite3.Connection, highest: int) -> None:
    """To be called before messages are removed: their numbers stay used."""
    connection.execute(_REMOVING, (highest,))
