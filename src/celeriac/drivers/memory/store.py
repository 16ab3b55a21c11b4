"""What ``memory://`` keeps: one Store per name, and every change of it under one lock.

The methods here change or read the store and expect the caller to hold ``lock``; waiting, clocks
and the words of the contract are in broker.py, results.py, bus.py and admin.py.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct

from celeriac.drivers.memory.outcomes import Outcomes
from celeriac.drivers.memory.schedules import Schedules
from celeriac.exceptions import LeaseLost
from celeriac.message import Delivery, Message, MessageState, Owner, Worker

if TYPE_CHECKING:
    from celeriac.drivers.memory.bus import MemoryEventBus


class Entry(Struct, eq=False, kw_only=True):
    """One stored message and where it is. The tag is never used again; ``position`` orders those
    that are in the same place, and is given anew at each move."""

    tag: int
    message: Message
    state: MessageState
    published_at: float
    position: int = 0
    due_at: float | None = None
    owner: Owner | None = None
    lost: int = 0
    redelivered: bool = False
    begun: bool = False
    note: str = ""
    reason: str = ""
    buried_at: float | None = None


class Lease(Struct, kw_only=True):
    """``since``: from when on it was renewed without a gap."""

    worker: Worker
    ttl: float
    expires_at: float
    since: float

    def renew(self, now: float) -> None:
        if self.expires_at <= now:
            self.since = now
        self.expires_at = now + self.ttl


class Cancellation(Struct, frozen=True, kw_only=True):
    until: float
    terminate: bool
    signal: str

    def joined_with(self, old: Cancellation | None, now: float) -> Cancellation:
        """Neither the longer time nor the wish to terminate is forgotten."""
        if old is None or old.until <= now:
            return self
        wish = old if old.terminate and not self.terminate else self
        return Cancellation(
            until=max(self.until, old.until), terminate=wish.terminate, signal=wish.signal
        )


class Store:
    """One name's messages, leases, results and listeners."""

    _all: ClassVar[dict[str, Store]] = {}
    _all_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, name: str) -> None:
        self.url = f"memory://{name}"
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.entries: dict[int, Entry] = {}
        self.by_id: dict[str, dict[int, Entry]] = {}
        self.lines: dict[str, dict[int, deque[Entry]]] = {}
        self.delayed: list[tuple[float, int]] = []
        self.held: dict[Owner, dict[int, Entry]] = {}
        self.dead: dict[int, Entry] = {}
        self.leases: dict[str, Lease] = {}
        self.cancelled: dict[str, Cancellation] = {}
        self.keys: dict[str, float] = {}
        self.paused: set[str] = set()
        self.outcomes = Outcomes()
        self.listeners: set[MemoryEventBus] = set()
        self.schedules = Schedules()
        self._tags = itertools.count(1)
        self._behind = itertools.count(1)
        self._ahead = itertools.count(-1, -1)

    @classmethod
    def at(cls, url: str) -> Store:
        """The store of a ``memory://name`` URL, made when it is first asked for."""
        name = url.partition("://")[2].partition("?")[0].strip("/")
        with cls._all_lock:
            return cls._all.setdefault(name, cls(name))

    @classmethod
    def start_anew(cls) -> None:
        """In a forked child: a lock may have been held by a thread that is not here."""
        cls._all = {}
        cls._all_lock = threading.Lock()

    # --- messages

    def add(self, message: Message, now: float, window: float) -> bool:
        """Put a new message in; False if its key was seen within the window."""
        key = message.dedupe_key
        if key is not None:
            if self.keys.get(key, 0.0) > now:
                return False
            self.keys[key] = now + window
        entry = Entry(
            tag=next(self._tags), message=message, state=MessageState.WAITING, published_at=now
        )
        self.entries[entry.tag] = entry
        self.by_id.setdefault(message.id, {})[entry.tag] = entry
        self.put_back(entry, message.due_at, now)
        return True

    def put_back(self, entry: Entry, due_at: float | None, now: float) -> None:
        """To the end of its line, or among the delayed ones."""
        entry.position = next(self._behind)
        if due_at is not None and due_at > now:
            entry.state = MessageState.DELAYED
            entry.due_at = due_at
            heapq.heappush(self.delayed, (due_at, entry.tag))
        else:
            entry.state = MessageState.WAITING
            entry.due_at = None
            self.line(entry).append(entry)

    def to_front(self, entries: Sequence[Entry]) -> None:
        """Ahead of what waits in the same line, in the order given."""
        for entry in reversed(entries):
            entry.state = MessageState.WAITING
            entry.owner = None
            entry.position = next(self._ahead)
            self.line(entry).appendleft(entry)

    def line(self, entry: Entry) -> deque[Entry]:
        lines = self.lines.setdefault(entry.message.queue, {})
        return lines.setdefault(entry.message.priority, deque())

    def promote(self, now: float) -> None:
        """What has become due takes its place at the end of its line."""
        while self.delayed and self.delayed[0][0] <= now:
            due_at, tag = heapq.heappop(self.delayed)
            entry = self.entries.get(tag)
            if entry and entry.state is MessageState.DELAYED and entry.due_at == due_at:
                self.put_back(entry, None, now)

    def next_due(self) -> float | None:
        return self.delayed[0][0] if self.delayed else None

    def remove(self, entry: Entry) -> None:
        """Out of the store, wherever it is."""
        self.take_out(entry)
        del self.entries[entry.tag]
        same = self.by_id[entry.message.id]
        del same[entry.tag]
        if not same:
            del self.by_id[entry.message.id]

    def take_out(self, entry: Entry) -> None:
        """Out of the place where it is; the caller puts it into another."""
        if entry.state is MessageState.WAITING:
            self.line(entry).remove(entry)
        elif entry.state is MessageState.IN_FLIGHT and entry.owner is not None:
            held = self.held[entry.owner]
            del held[entry.tag]
            if not held:
                del self.held[entry.owner]
            entry.owner = None
        elif entry.state is MessageState.DEAD:
            del self.dead[entry.tag]
        # A delayed one is left in the heap: ``promote`` passes over what is there no more.
        entry.due_at = None

    def bury(self, entry: Entry, reason: str, now: float) -> None:
        entry.state = MessageState.DEAD
        entry.reason = reason
        entry.buried_at = now
        entry.position = next(self._behind)
        self.dead[entry.tag] = entry

    def of_ids(self, ids: Iterable[str]) -> list[Entry]:
        """Every entry of these task ids, the oldest first."""
        return [e for id in dict.fromkeys(ids) for e in list(self.by_id.get(id, {}).values())]

    # --- owners

    def lease(self, owner: Owner) -> Lease:
        lease = self.leases.get(owner.lease)
        if lease is None:
            raise LeaseLost(
                f"{self.url} does not know the lease {owner.lease!r} (any more): register it "
                "again, and go on as a new owner. What was held is with others."
            )
        return lease

    def hand(self, entry: Entry, owner: Owner, now: float) -> Delivery:
        """Give an entry that is in no line and no list to an owner."""
        entry.state = MessageState.IN_FLIGHT
        entry.owner = owner
        entry.due_at = None
        entry.position = next(self._behind)
        self.held.setdefault(owner, {})[entry.tag] = entry
        return Delivery(
            message=entry.message,
            owner=owner,
            tag=entry.tag,
            lost=entry.lost,
            redelivered=entry.redelivered,
            cancelled=self.is_cancelled(entry.message.id, now),
            begun=entry.begun,
            note=entry.note,
        )

    def present(self, delivery: Delivery) -> Entry | None:
        """The entry, if the delivery's owner still holds it."""
        held = self.held.get(delivery.owner)
        return held.get(delivery.tag) if held and isinstance(delivery.tag, int) else None

    def held_by_lease(self, lease: str) -> list[Entry]:
        """What the lease's owners hold, in the order it was claimed."""
        return [
            entry
            for owner, held in self.held.items()
            if owner.lease == lease
            for entry in held.values()
        ]

    def is_cancelled(self, id: str, now: float) -> bool:
        cancellation = self.cancelled.get(id)
        return cancellation is not None and cancellation.until > now


def forget(url: str) -> None:
    """Drop the store of this URL: who asks for it next gets an empty one."""
    name = url.partition("://")[2].partition("?")[0].strip("/")
    with Store._all_lock:
        Store._all.pop(name, None)


os.register_at_fork(after_in_child=Store.start_anew)
