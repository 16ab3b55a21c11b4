"""Settling: handing settlements to the stores in the order that loses nothing.

Where broker and result backend are one store, one transaction takes all. Where they are not:
records first, then arrivals and what follows, then the bare verdicts; whatever dies in between
is repeated by the redelivered message, and repeating is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from celeriac import drivers
from celeriac.contracts import Broker, ResultBackend
from celeriac.message import Completes, Settled, Settlement

Complete = Callable[[Settlement, Completes], Settlement]
"""Given a settlement and the join that it completes, the settlement with what follows added."""


class Settling:
    """The way from settlements to the stores of one process."""

    def __init__(
        self, broker: Broker, results: ResultBackend | None, complete: Complete | None = None
    ) -> None:
        self.broker = broker
        self.results = results
        self.complete = complete or _uncompletable
        self.whole = results is not None and drivers.one_store(broker, results)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """Settle all; for each whether it was, or was lost to another owner. Raises
        OperationalError with nothing forgotten: the same call may be repeated."""
        if self.whole:
            return self._settle_whole(settlements)
        return self._settle_split(settlements)

    def _settle_whole(self, settlements: Sequence[Settlement]) -> list[Settled]:
        answers = self.broker.settle(settlements)
        done: list[Any] = list(answers)
        while open_ones := [i for i, answer in enumerate(done) if isinstance(answer, Completes)]:
            again = [self.complete(settlements[i], done[i]) for i in open_ones]
            settlements = list(settlements)
            for i, settlement in zip(open_ones, again, strict=True):
                settlements[i] = settlement
            for i, answer in zip(open_ones, self.broker.settle(again), strict=True):
                done[i] = answer
        return done

    def _settle_split(self, settlements: Sequence[Settlement]) -> list[Settled]:
        results = self.results
        if results is not None:
            records = [record for one in settlements for record in one.records]
            if records:
                results.put(records)
            for one in settlements:
                self._arrive(results, one)
        bare = [
            msgspec.structs.replace(
                one,
                records=(),
                arrivals=(),
                joins=(),
                messages=tuple(_keyed(one)),
            )
            for one in settlements
        ]
        return [
            answer if isinstance(answer, Settled) else Settled.SETTLED
            for answer in self.broker.settle(bare)
        ]

    def _arrive(self, results: ResultBackend, one: Settlement) -> None:
        if one.joins:
            results.open_joins(one.joins)
        if not one.arrivals:
            return
        for answer in results.arrive(one.arrivals):
            if answer is not None:
                whole = self.complete(one, answer)
                self.broker.publish(whole.messages)
                results.arrive(one.arrivals, whole.tokens)


def _keyed(settlement: Settlement) -> list[Any]:
    """What follows, with keys that make repeating it harmless. A retry carries none: it is the
    same task again, and must pass."""
    own = settlement.delivery.message
    return [
        message
        if message.id == own.id or message.dedupe_key is not None
        else msgspec.structs.replace(message, dedupe_key=f"{own.run}/{message.id}")
        for message in settlement.messages
    ]


def _uncompletable(settlement: Settlement, completes: Completes) -> Settlement:
    raise NotImplementedError(f"nothing is known of the join {completes.join}")
