"""Applying settlements, within one transaction.

Nearly all are alike: done, still held, a record, perhaps messages that follow. A row of such is
applied by a few statements for all. Whatever else is in the batch, and every batch in which
something is held no more, is applied one by one, to the same effect.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Sequence

from celeriac.drivers.sqlite.connection import Database
from celeriac.drivers.sqlite.names import fresh_owner_id
from celeriac.drivers.sqlite.outcomes import completed_by, count_in, open_joins, put_records
from celeriac.drivers.sqlite.publishing import add_messages
from celeriac.drivers.sqlite.sequence import next_seq, removing, use_up
from celeriac.drivers.sqlite.statements import statements
from celeriac.message import Outcome, Owner, Settled, Settlement, Tag, Verdict

__all__ = ["NotHeld", "Settling", "alike"]

_SQL = statements("settle")
_FINISH_RANGE, _REMOVE_RANGE = _SQL["finish_range"], _SQL["remove_range"]
_FINISH_THESE, _REMOVE_THESE = _SQL["finish_these"], _SQL["remove_these"]
_HOLDING, _FINISH, _REMOVE = _SQL["holding"], _SQL["finish"], _SQL["remove"]
_RELEASE, _BURY = _SQL["release"], _SQL["bury"]
_DEFER_READY, _DEFER_DELAYED = _SQL["defer_ready"], _SQL["defer_delayed"]

_DONE = Verdict.DONE


class NotHeld(Exception):
    """Something of a row of like settlements is held no more: apply them one by one."""


def alike(settlement: Settlement) -> bool:
    """Can it be applied together with its neighbours?"""
    return settlement.verdict is _DONE and not settlement.arrivals and not settlement.joins


class Settling:
    """One batch in one transaction."""

    def __init__(
        self, database: Database, connection: sqlite3.Connection, now: float, window: float
    ) -> None:
        self._database = database
        self._connection = connection
        self._now = now
        self._window = window

    def together(self, settlements: Sequence[Settlement]) -> list[Outcome]:
        """Raises NotHeld, with the transaction to be rolled back."""
        answers: list[Outcome] = []
        for same, row in itertools.groupby(settlements, alike):
            if same:
                answers += self._finish_all(list(row))
            else:
                answers += [self.one(settlement) for settlement in row]
        return answers

    def one_by_one(self, settlements: Sequence[Settlement]) -> list[Outcome]:
        return [self.one(settlement) for settlement in settlements]

    # --- many at once

    def _finish_all(self, settlements: list[Settlement]) -> list[Outcome]:
        by_owner: dict[Owner, list[int]] = {}
        for settlement in settlements:
            delivery = settlement.delivery
            if type(delivery.tag) is not int:
                raise NotHeld
            by_owner.setdefault(delivery.owner, []).append(delivery.tag)
        for owner, seqs in by_owner.items():
            if len(set(seqs)) != len(seqs):
                raise NotHeld
            self._finish_these(owner, seqs)
        records = [record for settlement in settlements for record in settlement.records]
        if records:
            put_records(self._connection, records, self._now)
        messages = [message for settlement in settlements for message in settlement.messages]
        if messages:
            add_messages(self._database, self._connection, messages, self._now, self._window)
        return [Settled.SETTLED] * len(settlements)

    def _finish_these(self, owner: Owner, seqs: list[int]) -> None:
        execute = self._connection.execute
        id = self._database.names.owner_id(self._connection, owner)
        first, last = min(seqs), max(seqs)
        removing(self._connection, last)
        if last - first + 1 == len(seqs):
            held = execute(_FINISH_RANGE, (id, first, last)).rowcount
            execute(_REMOVE_RANGE, (first, last))
        else:
            chosen = json.dumps(seqs)
            held = execute(_FINISH_THESE, (id, chosen)).rowcount
            execute(_REMOVE_THESE, (chosen,))
        if held != len(seqs):
            raise NotHeld

    # --- one

    def one(self, settlement: Settlement) -> Outcome:
        connection, now = self._connection, self._now
        seq = settlement.delivery.tag
        owner = self._holder(settlement.delivery.owner, seq)
        if owner is None or type(seq) is not int:
            return Settled.LOST
        if settlement.joins:
            open_joins(connection, settlement.joins, now)
        if settlement.arrivals:
            completes = completed_by(connection, settlement.arrivals, settlement.tokens, now)
            if completes is not None:
                return completes
            count_in(connection, settlement.arrivals, now)
        if settlement.records:
            put_records(connection, settlement.records, now)
        self._judge(settlement, owner, seq)
        if settlement.messages:
            add_messages(self._database, connection, settlement.messages, now, self._window)
        return Settled.SETTLED

    def _holder(self, owner: Owner, seq: Tag) -> int | None:
        """The owner's number, if it holds this."""
        known = self._database.names.owner_id(self._connection, owner)
        if known is not None and self._holds(known, seq):
            return known
        fresh = fresh_owner_id(self._connection, owner)
        return fresh if fresh is not None and self._holds(fresh, seq) else None

    def _holds(self, owner: int, seq: Tag) -> bool:
        return self._connection.execute(_HOLDING, (owner, seq)).fetchone() is not None

    def _judge(self, settlement: Settlement, owner: int, seq: int) -> None:
        execute = self._connection.execute
        verdict = settlement.verdict
        if verdict is _DONE:
            removing(self._connection, seq)
            execute(_REMOVE, (seq,))
        elif verdict is Verdict.RELEASE:
            execute(_RELEASE, (owner, seq))
        elif verdict is Verdict.BURY:
            execute(_BURY, (owner, seq, settlement.reason, self._now))
        elif settlement.due_at is not None and settlement.due_at > self._now:
            execute(_DEFER_DELAYED, (owner, seq, settlement.due_at, settlement.note))
        else:
            place = next_seq(self._connection)
            use_up(self._connection, place)
            execute(_DEFER_READY, (owner, seq, place, settlement.note))
        execute(_FINISH, (owner, seq))
