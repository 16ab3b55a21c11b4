"""Settling: handing settlements to the stores in the order that loses nothing.

Where broker and result backend are one store, one transaction takes all. Where they are not:

1. the tasks' own records; what follows is what the record that *stands* calls for;
2. what else is recorded because of them, and the arrivals at joins, whose completion sends what
   comes next;
3. what follows, and the bare verdicts, to the broker.

Whatever dies in between is repeated by the message that comes again, and repeating is harmless:
records that stand are not replaced, arrivals count once, and what follows carries keys.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from celeriac import drivers, states
from celeriac.contracts import Broker, ResultBackend
from celeriac.message import (
    Arrival,
    Completes,
    Delivery,
    Kept,
    Message,
    Settled,
    Settlement,
    TaskRecord,
    Verdict,
)

replace = msgspec.structs.replace

# Nested joins are completed one after the other, each in a round of its own.
_CALM = 50

Complete = Callable[[Settlement, Completes], Settlement]
"""Given a settlement and the join that it completes, the settlement with what follows added."""

Follow = Callable[[Delivery, TaskRecord], Settlement]
"""Given a delivery and the final record that stands for its run, the settlement that had this
record: its messages and arrivals, and nothing run again."""


class Settling:
    """The way from settlements to the stores of one process."""

    def __init__(
        self,
        broker: Broker,
        results: ResultBackend | None,
        complete: Complete | None = None,
        follow: Follow | None = None,
    ) -> None:
        self.broker = broker
        self.results = results
        self.complete = complete or _uncompletable
        self.follow = follow or _bare
        self.whole = results is not None and drivers.one_store(broker, results)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled | Kept]:
        """Settle all; for each whether it was, or was lost to another owner. Raises
        OperationalError with nothing forgotten: the same call may be repeated."""
        if self.whole:
            return self._settle_whole(settlements)
        return self._settle_split(settlements)

    def _settle_whole(self, settlements: Sequence[Settlement]) -> list[Settled | Kept]:
        done: list[Any] = list(self.broker.settle(settlements))
        open_ones = {i: _Try(settlements[i]) for i, told in enumerate(done) if _completes(told)}
        rounds = 0
        while open_ones:
            rounds += 1
            if rounds > _CALM:  # somebody else is at the same joins: not in step with them
                time.sleep(random.uniform(0.0, 0.02))
            again = [one.next(done[i], self.complete) for i, one in open_ones.items()]
            for i, told in zip(open_ones, self.broker.settle(again), strict=True):
                done[i] = told
            open_ones = {i: one for i, one in open_ones.items() if _completes(done[i])}
        return done

    def bring(self, settlements: Sequence[Settlement]) -> None:
        """Count in the arrivals of these settlements, which nobody else will: nothing but them
        and what follows them is done."""
        if self.results is not None:
            self._arrive(self.results, settlements)

    # --- two stores -----------------------------------------------------------------------------

    def _settle_split(self, settlements: Sequence[Settlement]) -> list[Settled | Kept]:
        results = self.results
        if results is not None:
            settlements = self._record(results, settlements)
            joins = [join for one in settlements for join in one.joins]
            if joins:
                results.open_joins(joins)
            self._arrive(results, settlements)
        bare = [
            replace(one, records=(), arrivals=(), joins=(), tokens={}, messages=_keyed(one))
            if one.records or one.arrivals or one.joins or one.messages
            else one
            for one in settlements
        ]
        return [
            answer if isinstance(answer, Settled) else Settled.SETTLED
            for answer in self.broker.settle(bare)
        ]

    def _record(
        self, results: ResultBackend, settlements: Sequence[Settlement]
    ) -> list[Settlement]:
        """Put the tasks' own records, then what else is recorded; the settlements that hold."""
        own = [_own_record(one) for one in settlements]
        standing = iter(results.put([record for record in own if record is not None]))
        settled = [
            one if record is None else self._holding(one, record, next(standing))
            for one, record in zip(settlements, own, strict=True)
        ]
        rest = [
            record
            for one in settled
            for record in one.records
            if record.id != one.delivery.message.id
        ]
        if rest:
            results.put(rest)
        return settled

    def _holding(self, one: Settlement, record: TaskRecord, standing: TaskRecord) -> Settlement:
        """The settlement itself if its record stands. If another of the same run does, what that
        one calls for; if one of another run does, nothing but the verdict."""
        if standing.run == record.run and standing.state == record.state:
            if standing.payload == record.payload or not standing.ready:
                return one
        elif standing.run != record.run:
            return Settlement(delivery=one.delivery, verdict=_verdict(one, standing))
        stood = self.follow(one.delivery, standing)
        return replace(stood, verdict=_verdict(one, standing), reason=one.reason)

    def _arrive(self, results: ResultBackend, settlements: Sequence[Settlement]) -> None:
        """Count the parts in; send what follows those joins that are complete."""
        coming = [(one, arrival) for one in settlements for arrival in one.arrivals]
        if not coming:
            return
        answers = results.arrive([arrival for _, arrival in coming])
        for (one, arrival), told in zip(coming, answers, strict=True):
            if told is not None and told.parts:
                self._follow_join(results, one, arrival, told)

    def _follow_join(
        self, results: ResultBackend, one: Settlement, arrival: Arrival, told: Completes
    ) -> None:
        """Send what follows a join, fail what will not come, and close it last: whoever dies in
        between completes it again, with the same keys."""
        while told.parts:
            whole = self.complete(one, told)
            records = [record for record in whole.records if record not in one.records]
            others = [record for record in records if record.id != one.delivery.message.id]
            if others:
                results.put(others)
            if whole.joins[len(one.joins) :]:
                results.open_joins(whole.joins[len(one.joins) :])
            more = replace(whole, messages=whole.messages[len(one.messages) :])
            if more.messages:
                self.broker.publish(_keyed(more, told.join))
            beyond = replace(whole, arrivals=whole.arrivals[len(one.arrivals) :])
            self._arrive(results, [beyond])
            [again] = results.arrive([arrival], {told.join: told.token})
            if again is None:
                return
            told = again


class _Try:
    """A settlement that completes joins: itself, and what it has been told so far."""

    def __init__(self, settlement: Settlement) -> None:
        self._settlement = settlement
        self._told: dict[str, Completes] = {}

    def next(self, told: Completes, complete: Complete) -> Settlement:
        """What to try now, with what follows every join that it is told to complete. One without
        parts was completed by somebody else: nothing follows it here, nor what came of it."""
        if told.parts:
            self._told[told.join] = told
        else:
            self._told.pop(told.join, None)
        whole = self._settlement
        for one in self._told.values():
            if any(arrival.join == one.join for arrival in whole.arrivals):
                whole = complete(whole, one)
        return whole


def _completes(answer: Any) -> bool:
    return isinstance(answer, Completes)


def _own_record(settlement: Settlement) -> TaskRecord | None:
    """The record of the settled task itself; it comes first, if there is one."""
    records = settlement.records
    return records[0] if records and records[0].id == settlement.delivery.message.id else None


def _verdict(one: Settlement, standing: TaskRecord) -> Verdict:
    """A message whose task has its outcome is gone, unless it was to be buried for the failure
    that stands."""
    if one.verdict is Verdict.BURY and standing.state == states.FAILURE:
        return Verdict.BURY
    return Verdict.DONE


def _keyed(settlement: Settlement, parent: str = "") -> tuple[Message, ...]:
    """What follows, with keys that make repeating it harmless. A retry carries none: it is the
    same task again, and must pass."""
    own = settlement.delivery.message
    return tuple(
        message
        if message.id == own.id or message.dedupe_key is not None
        else replace(message, dedupe_key=f"{parent or own.run}/{message.id}")
        for message in settlement.messages
    )


def _uncompletable(settlement: Settlement, completes: Completes) -> Settlement:
    raise NotImplementedError(f"nothing is known of the join {completes.join}")


def _bare(delivery: Delivery, record: TaskRecord) -> Settlement:
    return Settlement(delivery=delivery)
