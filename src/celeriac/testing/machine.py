"""Random operations on a driver and on the memory driver, side by side: they must agree.

The memory driver is the model. Where the contract leaves a choice (which of several lost messages
comes first, where a released one stands exactly) the driver chooses: what it claims must be among
what the model would allow, and the model follows::

    TestMachine = machine_for(Files)

Every message has a body of its own, by which the deliveries of the two sides are matched.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from celeriac import states
from celeriac.drivers.memory.admin import MemoryQueueAdmin
from celeriac.drivers.memory.broker import MemoryBroker
from celeriac.drivers.memory.results import MemoryResultBackend
from celeriac.drivers.memory.store import Entry, Store
from celeriac.message import (
    Completes,
    Delivery,
    Message,
    Owner,
    Settlement,
    TaskRecord,
    Verdict,
    Worker,
)
from celeriac.testing.harness import Connection, StoreUnderTest
from celeriac.testing.material import (
    DELAYS,
    IDS,
    JOINS,
    LASTING,
    LEASES,
    QUEUES,
    TICK,
    TTL,
    UPKEEP,
    Finish,
    Pair,
    finishes,
    known,
    leases,
    place_of,
    queues,
    some_ids,
    with_token,
)
from celeriac.testing.samples import arrival, join, message, record


class DriverMachine(RuleBasedStateMachine):
    """``make`` is set by ``machine_for``."""

    make: Callable[[Path], StoreUnderTest]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="celeriac-machine-"))
        self.store = type(self).make(self.folder)
        self.real: Connection = self.store.connect()
        model = Store("model")
        self.model = MemoryBroker(model, self.store.options)
        self.model_results = MemoryResultBackend(model, self.store.options)
        self.model.open()
        self.model_results.open()
        self.model_admin = MemoryQueueAdmin(self.model)
        self.numbers = itertools.count(1)
        self.incarnations = dict.fromkeys(LEASES, 1)
        self.pairs: list[Pair] = []
        self.opened: set[str] = set()  # joins

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- time and leases

    @initialize()
    def begin_with_leases(self) -> None:
        for lease in LEASES:
            self.register(lease)

    @rule(seconds=st.sampled_from([1, 4, 9, 12, 40]))
    def time_passes(self, seconds: int) -> None:
        self.store.advance(float(seconds))

    @rule(steps=st.integers(2, 6), keep=st.sets(leases, min_size=1))
    def time_passes_while_some_live(self, steps: int, keep: set[str]) -> None:
        for _ in range(steps):
            self.store.advance(4.0)
            for lease in sorted(keep):
                self.heartbeat(lease)

    @rule(lease=leases)
    def register(self, lease: str) -> None:
        self._tick()
        for broker in (self.real.broker, self.model):
            broker.register(Worker(lease=lease, ttl=TTL))

    @rule(lease=leases)
    def unregister(self, lease: str) -> None:
        self._tick()
        for broker in (self.real.broker, self.model):
            broker.unregister(lease)

    @rule(lease=leases)
    def heartbeat(self, lease: str) -> None:
        self._tick()
        real, model = self.real.broker.heartbeat(lease), self.model.heartbeat(lease)
        assert real.alive == model.alive
        assert {c.id: c for c in real.cancelled} == {c.id: c for c in model.cancelled}

    @rule(lease=leases)
    def maintain(self, lease: str) -> None:
        self._tick()
        owner = self._owner(lease)
        self._match(self.real.broker.maintain(owner, UPKEEP), self.model.maintain(owner, UPKEEP))

    @rule(lease=leases, which=st.integers(0, 20), running=st.booleans())
    def process_dies(self, lease: str, which: int, running: bool) -> None:
        self._tick()
        dead = self._owner(lease)
        self.incarnations[lease] += 1
        new = self._owner(lease)
        held = [pair for pair in self.pairs if pair.real.owner == dead]
        ran = held[which % len(held)] if held and running else None
        real = self.real.broker.recover(dead, new, [ran.real.tag] if ran else ())
        model = self.model.recover(dead, new, [ran.model.tag] if ran else ())
        self._match(real, model)

    @rule()
    def reopen(self) -> None:
        self.real.close()
        self.real = self.store.connect()

    # --- messages

    @rule(
        names=some_ids,
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from([0, 3, 9]),
        delay=st.sampled_from([None, None, *DELAYS]),
        key=st.sampled_from([None, None, "k1", "k2"]),
        place=st.sampled_from([None, None, *JOINS]),
    )
    def publish(
        self,
        names: list[str],
        queue: str,
        priority: int,
        delay: float | None,
        key: str | None,
        place: str | None,
    ) -> None:
        self._tick()
        batch = [
            self._message(
                name,
                queue,
                priority=priority,
                due_at=None if delay is None else self.store.now() + delay,
                dedupe_key=key,
                join=place,
            )
            for name in names
        ]
        joins = [] if place is None else [join(place, 2)]
        self.opened.update(one.id for one in joins)
        assert self.real.broker.publish(batch, joins) == self.model.publish(batch, joins)

    @rule(lease=leases, names=queues, limit=st.integers(0, 4))
    def claim(self, lease: str, names: list[str], limit: int) -> None:
        self._tick()
        owner = self._owner(lease)
        if lease not in self.model.kept.leases:
            return
        claimed = self.real.broker.claim(owner, names, limit)
        now = self.store.now()
        self.model.kept.promote(now)
        allowed = {entry.message.body: entry for entry in self._claimable(names)}
        taken = [allowed.pop(delivery.message.body) for delivery in claimed]
        self._check_choice(taken, list(allowed.values()), names, limit)
        for entry in taken:
            self.model.kept.take_out(entry)
        self._match(claimed, [self.model.kept.hand(entry, owner, now) for entry in taken])

    def _claimable(self, names: list[str]) -> list[Entry]:
        kept = self.model.kept
        return [
            entry
            for name in names
            if name not in kept.paused
            for line in kept.lines.get(name, {}).values()
            for entry in line
        ]

    def _check_choice(
        self, taken: list[Entry], left: list[Entry], names: list[str], limit: int
    ) -> None:
        """The number, the order of queues and priorities, and lost ones alone."""
        assert len(taken) <= limit
        if any(entry.lost for entry in taken):
            assert len(taken) == 1
        if any(entry.lost for entry in taken + left):
            assert taken or not left or limit == 0
            return
        assert len(taken) == min(limit, len(taken) + len(left))

        sign = -1 if self.store.capabilities.highest_priority else 1

        def rank(entry: Entry) -> tuple[int, int]:
            return names.index(entry.message.queue), sign * entry.message.priority

        ranks = [rank(entry) for entry in taken]
        assert ranks == sorted(ranks)
        if taken and left:
            assert max(ranks) <= min(rank(entry) for entry in left)

    @rule(some=st.lists(st.integers(0, 1000), max_size=3))
    def begin(self, some: list[int]) -> None:
        self._tick()
        # A stale delivery may have the tag of the one after it: nobody holds both.
        pairs = list({pair.body: pair for pair in self._chosen(some)}.values())
        real = self.real.broker.begin([pair.real for pair in pairs])
        model = self.model.begin([pair.model for pair in pairs])
        assert [pair.real.tag in real for pair in pairs] == [
            pair.model.tag in model for pair in pairs
        ]

    @rule(batch=st.lists(finishes, min_size=1, max_size=4))
    def settle(self, batch: list[Finish]) -> None:
        self._tick()
        sides: list[tuple[Settlement, Settlement]] = []
        buried = False
        for finish, pair in zip(batch, self._chosen([f.which for f in batch]), strict=False):
            # Of letters buried in the same moment, which is the latest?
            verdict = Verdict.DONE if buried else finish.verdict
            buried = buried or verdict is Verdict.BURY
            sides.append(self._settlements(pair, finish, verdict))
        if sides:
            self._settle(sides)

    def _settlements(
        self, pair: Pair, finish: Finish, verdict: Verdict
    ) -> tuple[Settlement, Settlement]:
        sent = pair.real.message
        fields: dict[str, Any] = {"verdict": verdict}
        if finish.state is not None:
            fields["records"] = (record(sent.id, finish.state, run=finish.run),)
        if finish.follows:
            fields["messages"] = (self._message(sent.id, sent.queue, priority=sent.priority),)
        early = finish.place not in self.opened and self.store.keeps_early_parts
        if finish.place is not None and not early:
            fields["arrivals"] = (arrival(finish.index, finish.place),)
        if verdict is Verdict.DEFER:
            fields |= {"due_at": self.store.now() + finish.delay, "note": f"n{finish.which}"}
        return Settlement(delivery=pair.real, **fields), Settlement(delivery=pair.model, **fields)

    def _settle(self, sides: list[tuple[Settlement, Settlement]]) -> None:
        real = self.real.broker.settle([side[0] for side in sides])
        model = self.model.settle([side[1] for side in sides])
        again = []
        for side, ours, theirs in zip(sides, real, model, strict=True):
            if isinstance(ours, Completes) and isinstance(theirs, Completes):
                assert (ours.join, ours.parts) == (theirs.join, theirs.parts)
                again.append((with_token(side[0], ours), with_token(side[1], theirs)))
            else:
                assert ours == theirs
        for repeated in again:
            self._settle([repeated])

    # --- cancelling and operating

    @rule(names=some_ids, lasts=st.sampled_from(LASTING), terminate=st.booleans())
    def cancel(self, names: list[str], lasts: float, terminate: bool) -> None:
        self._tick()
        owner = self._client()
        until = self.store.now() + lasts
        self._match(
            self.real.broker.cancel(owner, names, until, terminate=terminate),
            self.model.cancel(owner, names, until, terminate=terminate),
        )

    @rule(queue=st.sampled_from(QUEUES), paused=st.booleans())
    def pause(self, queue: str, paused: bool) -> None:
        self._tick()
        for admin in (self.real.admin, self.model_admin):
            admin.pause(queue, paused)

    @rule(names=some_ids)
    def revive(self, names: list[str]) -> None:
        self._tick()
        assert self.real.admin.revive(names) == self.model_admin.revive(names)

    @rule(names=some_ids)
    def delete(self, names: list[str]) -> None:
        self._tick()
        owner = self._client()
        real = self.real.admin.delete(owner, names)
        model = self.model_admin.delete(owner, names)
        assert real.count + len(real.parts) == model.count + len(model.parts)
        self._removed(real.parts, model.parts)

    @rule(queue=st.sampled_from(QUEUES))
    def purge(self, queue: str) -> None:
        self._tick()
        owner = self._client()
        real = self.real.admin.purge(owner, queue)
        model = self.model_admin.purge(owner, queue)
        assert real.count + len(real.parts) == model.count + len(model.parts)
        self._removed(real.parts, model.parts)

    def _removed(self, real: tuple[Delivery, ...], model: tuple[Delivery, ...]) -> None:
        """A driver may hand over more than parts of joins: these are settled at once."""
        needed = {delivery.message.body for delivery in model}
        more = [delivery for delivery in real if delivery.message.body not in needed]
        self.real.broker.settle([Settlement(delivery=delivery) for delivery in more])
        self._match([d for d in real if d.message.body in needed], list(model))

    # --- results

    @rule(
        name=st.sampled_from(IDS),
        state=st.sampled_from([states.STARTED, states.SUCCESS, states.FAILURE, states.REVOKED]),
        run=st.sampled_from(["r1", "r2"]),
        lasts=st.sampled_from([None, *LASTING]),
    )
    def put(self, name: str, state: str, run: str, lasts: float | None) -> None:
        self._tick()
        expires_at = None if lasts is None else self.store.now() + lasts
        number = b"%d" % next(self.numbers)
        one: list[TaskRecord] = [
            record(name, state, run=run, expires_at=expires_at, payload=number)
        ]
        assert self.real.results.put(one) == self.model_results.put(one)

    @rule(names=some_ids)
    def forget(self, names: list[str]) -> None:
        self._tick()
        assert self.real.results.delete(names) == self.model_results.delete(names)

    @rule(key=st.sampled_from(["k1", "k2"]), publish_id=st.sampled_from(["p1", "p2"]))
    def admit(self, key: str, publish_id: str) -> None:
        self._tick()
        ours = self.real.results.admit(key, publish_id)
        assert ours == self.model_results.admit(key, publish_id)

    # --- what must always be so

    @invariant()
    def the_same_messages_in_the_same_places(self) -> None:
        real = sorted(
            (p.message.body, place_of(p.state), p.lost, p.reason) for p in self.real.admin.find(IDS)
        )
        model = sorted(
            (p.message.body, place_of(p.state), p.lost, p.reason)
            for p in self.model_admin.find(IDS)
        )
        assert real == model

    @invariant()
    def the_same_counts(self) -> None:
        real, model = (
            [(q.name, q.waiting + q.delayed, q.in_flight, q.dead, q.paused) for q in admin.queues()]
            for admin in (self.real.admin, self.model_admin)
        )
        assert real == model

    @invariant()
    def the_same_results(self) -> None:
        assert self.real.results.get(IDS) == self.model_results.get(IDS)

    # --- helpers

    def _tick(self) -> None:
        self.store.advance(TICK)

    def _owner(self, lease: str) -> Owner:
        return Owner(lease, 1, self.incarnations[lease])

    def _client(self) -> Owner:
        self.register("client")
        return self._owner("client")

    def _message(self, id: str, queue: str, **fields: Any) -> Message:
        return message(id, queue=queue, body=b"%d" % next(self.numbers), **fields)

    def _chosen(self, some: list[int]) -> list[Pair]:
        return [self.pairs[number % len(self.pairs)] for number in some] if self.pairs else []

    def _match(self, real: list[Delivery], model: list[Delivery]) -> None:
        """The same deliveries on both sides, in whatever order; they can be settled from now."""
        ours = {delivery.message.body: delivery for delivery in real}
        theirs = {delivery.message.body: delivery for delivery in model}
        assert len(ours) == len(real)
        assert sorted(ours) == sorted(theirs)
        for body, one in ours.items():
            assert known(one) == known(theirs[body])
            assert one.redelivered or not one.lost
            # Whether a stale delivery of the same owner still fits is the driver's choice.
            self.pairs = [
                pair for pair in self.pairs if (pair.body, pair.real.owner) != (body, one.owner)
            ]
            self.pairs.append(Pair(one, theirs[body]))


def machine_for(
    make: Callable[[Path], StoreUnderTest], max_examples: int = 40, steps: int = 40
) -> Any:
    """A test case that compares the driver with the model over random operations."""
    machine: Any = type("Machine", (DriverMachine,), {"make": make})
    case = machine.TestCase
    case.settings = settings(
        max_examples=max_examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return case
