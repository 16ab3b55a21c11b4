"""What ``celeriac.testing.machine`` makes its random operations of."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import Struct

from celeriac import states
from celeriac.message import Completes, Delivery, MessageState, Settlement, Upkeep, Verdict

IDS = ("a", "b", "c", "d", "e")
QUEUES = ("one", "two")
LEASES = ("w1", "w2", "client")
JOINS = ("j1", "j2")
# Time moves by whole ticks, and what ends by itself does so between two: a server whose own clock
# runs on meanwhile has half a tick to be late or early.
TICK = 0.05
BETWEEN = TICK / 2
TTL = 10.0 + BETWEEN  # of a lease
UPKEEP = Upkeep(max_deliveries=2, dead_expires=200.0 + BETWEEN, dead_max=4)
DELAYS = (5.0 + BETWEEN, 20.0 + BETWEEN)
LASTING = (5.0 + BETWEEN, 50.0 + BETWEEN)

queues = st.permutations(QUEUES).flatmap(lambda names: st.sampled_from([names, names[:1]]))
some_ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=3)
leases = st.sampled_from(LEASES)


class Pair(Struct, frozen=True):
    """The same delivery on both sides."""

    real: Delivery
    model: Delivery

    @property
    def body(self) -> bytes:
        return self.real.message.body


class Finish(Struct, frozen=True):
    """A settlement before it is known what it settles."""

    which: int
    verdict: Verdict
    state: str | None
    run: str
    follows: bool
    place: str | None
    index: int
    delay: float


finishes = st.builds(
    Finish,
    which=st.integers(0, 1000),
    verdict=st.sampled_from(Verdict),
    state=st.sampled_from([None, states.STARTED, states.SUCCESS, states.FAILURE]),
    run=st.sampled_from(["r1", "r2"]),
    follows=st.booleans(),
    place=st.sampled_from([None, None, *JOINS]),
    index=st.integers(0, 1),
    delay=st.sampled_from([-1.0, *DELAYS]),
)


def known(delivery: Delivery) -> tuple[Any, ...]:
    return (
        delivery.message.id,
        delivery.message.queue,
        delivery.message.priority,
        delivery.owner,
        delivery.lost,
        delivery.cancelled,
        delivery.begun,
        delivery.note,
    )


def place_of(state: MessageState) -> str:
    """A driver may bring up what is due later than the model."""
    return "queued" if state in (MessageState.WAITING, MessageState.DELAYED) else state.value


def with_token(settlement: Settlement, told: Completes) -> Settlement:
    """The settlement as its caller repeats it: without parts, somebody else was faster."""
    tokens = {told.join: told.token} if told.parts else {}
    return msgspec.structs.replace(settlement, tokens=tokens)
