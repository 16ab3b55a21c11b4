"""The broker of ``memory://``."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from celeriac.drivers.memory.handle import Handle
from celeriac.drivers.memory.store import Cancellation, Entry, Lease
from celeriac.message import (
    Cancelled,
    Delivery,
    Join,
    Message,
    MessageState,
    Outcome,
    Owner,
    Pulse,
    Settled,
    Settlement,
    Tag,
    Upkeep,
    Verdict,
    Worker,
)

_SHORTEST_WAIT = 0.001


class MemoryBroker(Handle):
    """Celeriac's Broker contract in one process."""

    # --- producers

    def publish(self, messages: Sequence[Message], joins: Sequence[Join] = ()) -> int:
        _check(messages, joins)
        with self.using() as now:
            for join in joins:
                self.kept.outcomes.open_join(join, now)
            return self._add(messages, now)

    def _add(self, messages: Sequence[Message], now: float) -> int:
        self.kept.promote(now)
        added = sum(self.kept.add(message, now, self.window) for message in messages)
        self.kept.changed.notify_all()
        return added

    # --- leases

    def register(self, worker: Worker) -> None:
        with self.using() as now:
            lease = self.kept.leases.setdefault(
                worker.lease,
                Lease(worker=worker, ttl=worker.ttl, expires_at=now + worker.ttl, since=now),
            )
            lease.worker, lease.ttl = worker, worker.ttl
            lease.renew(now)

    def unregister(self, lease: str) -> None:
        with self.using():
            self.kept.leases.pop(lease, None)
            entries = self.kept.held_by_lease(lease)
            for entry in entries:
                entry.redelivered = True  # it may have been started
                self.kept.take_out(entry)
            self.kept.to_front(entries)
            self.kept.changed.notify_all()

    def heartbeat(self, lease: str) -> Pulse:
        with self.using() as now:
            known = self.kept.leases.get(lease)
            if known is None:
                return Pulse(alive=False)
            known.renew(now)
            ids = dict.fromkeys(e.message.id for e in self.kept.held_by_lease(lease))
            return Pulse(
                alive=True,
                cancelled=tuple(
                    Cancelled(id=id, terminate=asked.terminate, signal=asked.signal)
                    for id in ids
                    if (asked := self.kept.cancelled.get(id)) and asked.until > now
                ),
            )

    # --- consumers

    def claim(
        self,
        owner: Owner,
        queues: Sequence[str],
        limit: int,
        max_bytes: int = 16 * 1024 * 1024,
        wait: float = 0.0,
    ) -> list[Delivery]:
        deadline = time.monotonic() + wait
        with self.using():
            wakes = self.wakes
            while self.is_open:
                self.kept.lease(owner)
                now = self.clock()
                self.kept.promote(now)
                if batch := self._pick(queues, limit, max_bytes):
                    return [self.kept.hand(entry, owner, now) for entry in batch]
                left = deadline - time.monotonic()
                if left <= 0 or self.wakes != wakes:
                    break
                due_at = self.kept.next_due()
                if due_at is not None:
                    left = min(left, max(due_at - now, _SHORTEST_WAIT))
                self.kept.changed.wait(left)
        return []

    def _pick(self, queues: Sequence[str], limit: int, max_bytes: int) -> list[Entry]:
        """Take the first ones out of their lines, up to the bounds."""
        batch: list[Entry] = []
        size = 0
        for queue in dict.fromkeys(queues):
            if queue in self.kept.paused:
                continue
            lines = self.kept.lines.get(queue, {})
            for priority in sorted(lines, reverse=True):
                line = lines[priority]
                while line and len(batch) < limit:
                    entry = line[0]
                    size += entry.message.size
                    if batch and (entry.lost or size > max_bytes):
                        return batch
                    batch.append(line.popleft())
                    if entry.lost:
                        return batch
        return batch

    def begin(self, deliveries: Sequence[Delivery]) -> list[Tag]:
        with self.using():
            lost: list[Tag] = []
            for delivery in deliveries:
                entry = self.kept.present(delivery)
                if entry is None:
                    lost.append(delivery.tag)
                else:
                    entry.begun = True
            return lost

    def settle(self, settlements: Sequence[Settlement]) -> list[Outcome]:
        for settlement in settlements:
            _check(settlement.messages, settlement.joins)
        with self.using() as now:
            released: list[Entry] = []
            answers = [self._settle(settlement, now, released) for settlement in settlements]
            self.kept.to_front(released)
            self.kept.changed.notify_all()
            return answers

    def _settle(self, settlement: Settlement, now: float, released: list[Entry]) -> Outcome:
        entry = self.kept.present(settlement.delivery)
        if entry is None:
            return Settled.LOST
        outcomes = self.kept.outcomes
        for join in settlement.joins:
            outcomes.open_join(join, now)
        completes = outcomes.completed_by(settlement.arrivals, settlement.tokens, now)
        if completes is not None:
            return completes
        outcomes.count_in(settlement.arrivals, now)
        for record in settlement.records:
            outcomes.put(record, now)
        self._judge(entry, settlement, now, released)
        self._add(settlement.messages, now)
        return Settled.SETTLED

    def _judge(
        self, entry: Entry, settlement: Settlement, now: float, released: list[Entry]
    ) -> None:
        """Carry the verdict out. Released ones are collected: a batch goes back in its order."""
        if settlement.verdict is Verdict.DONE:
            self.kept.remove(entry)
            return
        self.kept.take_out(entry)
        entry.begun = False
        if settlement.verdict is Verdict.DEFER:
            entry.note = settlement.note
            self.kept.put_back(entry, settlement.due_at, now)
        elif settlement.verdict is Verdict.RELEASE:
            released.append(entry)
        else:
            self.kept.bury(entry, settlement.reason, now)

    # --- keeping

    def recover(self, dead: Owner, new: Owner, running: Collection[Tag]) -> list[Delivery]:
        with self.using() as now:
            entries = list(self.kept.held.get(dead, {}).values())
            for entry in entries:
                if dead != new:
                    entry.redelivered = True
                    entry.lost += entry.tag in running
                self.kept.take_out(entry)
            return [self.kept.hand(entry, new, now) for entry in entries]

    def maintain(self, owner: Owner, upkeep: Upkeep) -> list[Delivery]:
        with self.using() as now:
            self.kept.promote(now)
            self._expire(upkeep, now)
            handed: list[Delivery] = []
            for lease in self._dead_leases(owner, now):
                handed += self._collect(lease, owner, upkeep, now)
            self.kept.changed.notify_all()
            return handed

    def _dead_leases(self, judge: Owner, now: float) -> list[str]:
        own = self.kept.leases.get(judge.lease)
        if own is None or own.expires_at <= now or now - own.since < own.ttl:
            return []
        return [name for name, lease in self.kept.leases.items() if lease.expires_at <= now]

    def _collect(self, lease: str, judge: Owner, upkeep: Upkeep, now: float) -> list[Delivery]:
        del self.kept.leases[lease]
        again: list[Entry] = []
        handed: list[Delivery] = []
        for entry in self.kept.held_by_lease(lease):
            self.kept.take_out(entry)
            entry.lost += 1
            entry.redelivered = True
            if entry.begun or entry.lost >= upkeep.max_deliveries:
                handed.append(self.kept.hand(entry, judge, now))
            else:
                again.append(entry)
        self.kept.to_front(again)
        return handed

    def _expire(self, upkeep: Upkeep, now: float) -> None:
        store = self.kept
        store.outcomes.expire(now)
        for key in [key for key, until in store.keys.items() if until <= now]:
            del store.keys[key]
        for id in [id for id, asked in store.cancelled.items() if asked.until <= now]:
            del store.cancelled[id]
        dead = list(store.dead.values())
        surplus = 0 if upkeep.dead_max is None else len(dead) - upkeep.dead_max
        oldest = None if upkeep.dead_expires is None else now - upkeep.dead_expires
        for position, entry in enumerate(dead):
            buried_at = entry.buried_at or 0.0
            if position < surplus or (oldest is not None and buried_at <= oldest):
                store.remove(entry)

    def cancel(
        self,
        owner: Owner,
        ids: Sequence[str],
        until: float,
        terminate: bool = False,
        signal: str = "SIGTERM",
    ) -> list[Delivery]:
        with self.using() as now:
            self.kept.lease(owner)
            for id in ids:
                asked = Cancellation(until=until, terminate=terminate, signal=signal)
                self.kept.cancelled[id] = asked.joined_with(self.kept.cancelled.get(id), now)
            return self.take_unstarted(self.kept.of_ids(ids), owner, now)

    def take_unstarted(self, entries: Sequence[Entry], owner: Owner, now: float) -> list[Delivery]:
        """Hand what waits or is delayed among these to the owner. The lock is held."""
        taken = [e for e in entries if e.state in (MessageState.WAITING, MessageState.DELAYED)]
        for entry in taken:
            self.kept.take_out(entry)
        return [self.kept.hand(entry, owner, now) for entry in taken]


def _check(messages: Sequence[Message], joins: Sequence[Join]) -> None:
    """Before anything is changed: a store without transactions cannot take half a batch back."""
    for message in messages:
        if not isinstance(message, Message):
            raise TypeError(f"a broker stores Message values, not {type(message).__name__}")
    for join in joins:
        if not isinstance(join, Join):
            raise TypeError(f"a join is opened with a Join value, not {type(join).__name__}")
