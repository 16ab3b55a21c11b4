"""The broker of ``redis://``."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from celeriac.contracts import Capabilities
from celeriac.drivers.redis.connection import Client, pack
from celeriac.drivers.redis.envelope import encode, step_of
from celeriac.drivers.redis.errors import Refused
from celeriac.drivers.redis.handing import claimed, handed
from celeriac.drivers.redis.inspecting import durability, look_at_server
from celeriac.drivers.redis.options import Options, read_options
from celeriac.drivers.redis.place import ResultPlace, place_of
from celeriac.drivers.redis.scripts import script
from celeriac.drivers.redis.settling import check, join_rows, message_row, settle
from celeriac.drivers.redis.waiting import Bell, Waiter, WaitingRoom
from celeriac.exceptions import LeaseLost, OperationalError
from celeriac.message import (
    Cancelled,
    Delivery,
    Join,
    Message,
    Outcome,
    Owner,
    Pulse,
    Settlement,
    Tag,
    Upkeep,
    Worker,
)

__all__ = ["RedisBroker", "capabilities_of"]

_CLAIM, _PUBLISH, _UNFRONT = script("claim"), script("publish"), script("unfront")
_REGISTER, _UNREGISTER, _HEARTBEAT = (
    script("register"),
    script("unregister"),
    script("heartbeat"),
)
_BEGIN, _RECOVER, _MAINTAIN, _CANCEL, _TAKE = (
    script("begin"),
    script("recover"),
    script("maintain"),
    script("cancel"),
    script("take"),
)

KNOWN_FOR = 60.0
"""Seconds after which a process notes again that a queue exists (the server may be a new one)."""
SLICE = 1000
"""Messages that one call of take.lua looks at."""
SEARCHED = 100_000
"""Messages of one list that a cancellation looks at, the newest first; what is further back is
revoked when it is claimed."""
_POLL = 0.1


def capabilities_of(options: Options, how: str = "") -> Capabilities:
    return Capabilities(
        highest_priority=0,
        durability=f"Redis at {options.shown}. "
        + (how or "Survives the death of any client; a power loss as its persistence is set."),
    )


class RedisBroker:
    """Celeriac's Broker contract on one Redis server."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.options = read_options(url, options)
        self.capabilities = capabilities_of(self.options)
        self.store = self.options.store
        self.client = Client(self.options)
        self.results_at: ResultPlace = place_of(self.options)
        self._bell = Bell()
        waiters = max(1, self.options.max_connections - 2)
        self._room = WaitingRoom(self.client, self._bell, _UNFRONT, waiters)
        self._steps = ",".join(map(str, self.options.priority_steps))
        self._heads: dict[tuple[str, int], bytes] = {}
        self._known: dict[str, float] = {}
        self._closed = False

    def keep_results_in(self, place: ResultPlace) -> None:
        """Where the records and joins of settlements go: a database of the same server."""
        self.results_at = place

    def open(self) -> None:
        self._closed = False
        try:
            look_at_server(self.client, self.client.open())
            self.capabilities = capabilities_of(self.options, durability(self.client))
        except BaseException:
            self.client.close()
            raise

    def close(self) -> None:
        self._closed = True
        self.wake()
        self._room.close()
        self.client.close()

    def wake(self) -> None:
        self._bell.ring()

    # --- producers

    def publish(self, messages: Sequence[Message], joins: Sequence[Join] = ()) -> int:
        if len(messages) == 1 and not joins:
            message = messages[0]
            if type(message) is Message and message.dedupe_key is None:
                return self._push(message)
        if not messages and not joins:
            return 0
        check(messages, joins)
        for queue in {message.queue for message in messages}:
            self._note_queue(queue)
        first = messages[0] if messages else None
        if first is not None and not joins and all(_alike(first, other) for other in messages):
            return self._push_many(messages)
        options, now = self.options, self.options.now()
        args: list[Any] = [
            options.prefix,
            options.separator,
            repr(options.dedupe_window),
            options.db,
            self.results_at.db,
            self.results_at.prefix,
            len(joins),
            len(messages),
            *join_rows(joins, now),
        ]
        for message in messages:
            args += message_row(message, options, now)
        return int(self.client.run(_PUBLISH, *args))

    def _push(self, message: Message) -> int:
        queue = message.queue
        now = time.monotonic()
        if now - self._known.get(queue, -KNOWN_FOR) >= KNOWN_FOR:
            self._note_queue(queue)
        head = self._heads.get((queue, message.priority))
        if head is None:
            head = self._head(queue, message.priority)
        data = encode(message, self.options.now())
        self.client.call(b"%b$%d\r\n%b\r\n" % (head, len(data), data))
        return 1

    def _head(self, queue: str, priority: int) -> bytes:
        key = self._list(queue, priority).encode()
        head = b"*3\r\n$5\r\nLPUSH\r\n$%d\r\n%b\r\n" % (len(key), key)
        if len(self._heads) < 1000:
            self._heads[queue, priority] = head
        return head

    def _push_many(self, messages: Sequence[Message]) -> int:
        now = self.options.now()
        key = self._list(messages[0].queue, messages[0].priority)
        self.client.call(pack(("LPUSH", key, *(encode(message, now) for message in messages))))
        return len(messages)

    def _list(self, queue: str, priority: int) -> str:
        step = step_of(priority, self.options.priority_steps)
        suffix = f"{self.options.separator}{step}" if step else ""
        return self.options.prefix + queue + suffix

    def _note_queue(self, queue: str) -> None:
        """So that it is known to operators and to maintain; once in a while."""
        now = time.monotonic()
        if now - self._known.get(queue, -KNOWN_FOR) < KNOWN_FOR:
            return
        try:
            self.client.call(pack(("SADD", self.client.base + b"queues", queue)))
        except Refused as refused:
            if refused.code != "OOM":
                raise
            return  # a full server is to be emptied all the same
        if len(self._known) > 1000:
            self._known.clear()
        self._known[queue] = now

    # --- leases

    def register(self, worker: Worker) -> None:
        ttl = repr(float(worker.ttl))
        self.client.run(_REGISTER, worker.lease, ttl, worker.name, worker.hostname, str(worker.pid))

    def unregister(self, lease: str) -> None:
        self.client.run(_UNREGISTER, self.options.prefix, self.options.separator, lease)

    def heartbeat(self, lease: str) -> Pulse:
        alive, *told = self.client.run(_HEARTBEAT, lease)
        return Pulse(
            alive=alive == 1,
            cancelled=tuple(
                Cancelled(
                    id=id.decode(), terminate=signal != b"", signal=signal.decode() or "SIGTERM"
                )
                for id, signal in zip(told[::2], told[1::2], strict=True)
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
        names = tuple(dict.fromkeys(queues))
        if wait <= 0 or not names:
            return [] if self._closed else self._claim(owner, names, limit, max_bytes)[0]
        deadline = time.monotonic() + wait
        rings = self._bell.rings
        waiter = self._room.find(names)
        try:
            while not self._closed:
                now = time.monotonic()
                if waiter is None or not _may_rest(waiter, now, self):
                    if waiter is not None:
                        waiter.arm()
                    batch, due_at, stopped = self._claim(owner, names, limit, max_bytes)
                    if batch:
                        if waiter is not None:
                            waiter.unblock()
                        return batch
                    if waiter is not None:
                        waiter.claimed_at = now
                        waiter.due_at, waiter.stopped = due_at, stopped
                left = deadline - time.monotonic()
                if left <= 0 or self._bell.rings != rings:
                    break
                if waiter is None:
                    waiter = self._room.take(names)
                    if waiter is None:
                        time.sleep(min(left, _POLL))
                    continue
                if waiter.due_at is not None:
                    left = min(left, max(waiter.due_at - self.options.now(), 0.001))
                waiter.sleep(left)
        except OperationalError:
            if waiter is not None:
                self._room.throw_away(waiter)
                waiter = None
            if self._closed:
                return []
            raise
        finally:
            if waiter is not None:
                self._room.put_back(waiter)
        return []

    def _claim(
        self, owner: Owner, queues: tuple[str, ...], limit: int, max_bytes: int
    ) -> tuple[list[Delivery], float | None, frozenset[str]]:
        """One call; what it took, when the next is due, which of the queues are paused."""
        for queue in queues:
            self._note_queue(queue)
        try:
            answer = self.client.run(
                _CLAIM,
                self.options.prefix,
                self.options.separator,
                owner.lease,
                f"{owner.slot}/{owner.incarnation}",
                max(0, limit),
                max_bytes,
                self._steps,
                len(queues),
                *queues,
            )
        except Refused as refused:
            raise self.translated(refused, owner) from None
        due, stopped = answer[2], answer[3]
        return (
            claimed(owner, answer) if len(answer) > 4 else [],
            float(due) if due else None,
            frozenset(name.decode() for name in stopped),
        )

    def begin(self, deliveries: Sequence[Delivery]) -> list[Tag]:
        args: list[Any] = [len(deliveries)]
        for delivery in deliveries:
            owner = delivery.owner
            args += (owner.lease, f"{owner.slot}/{owner.incarnation}", str(delivery.tag))
        if not deliveries:
            return []
        held = self.client.run(_BEGIN, *args)
        return [d.tag for d, there in zip(deliveries, held, strict=True) if not there]

    def settle(self, settlements: Sequence[Settlement]) -> list[Outcome]:
        if not settlements:
            return []
        for settlement in settlements:
            for message in settlement.messages:
                if type(message) is Message:
                    self._note_queue(message.queue)
        return settle(self.client, self.results_at, settlements)

    # --- keeping

    def recover(self, dead: Owner, new: Owner, running: Collection[Tag]) -> list[Delivery]:
        answer = self.client.run(
            _RECOVER,
            dead.lease,
            f"{dead.slot}/{dead.incarnation}",
            new.lease,
            f"{new.slot}/{new.incarnation}",
            len(running),
            *map(str, running),
        )
        return handed(new, answer)

    def maintain(self, owner: Owner, upkeep: Upkeep) -> list[Delivery]:
        answer = self.client.run(
            _MAINTAIN,
            self.options.prefix,
            self.options.separator,
            owner.lease,
            f"{owner.slot}/{owner.incarnation}",
            upkeep.max_deliveries,
            "" if upkeep.dead_expires is None else repr(float(upkeep.dead_expires)),
            "" if upkeep.dead_max is None else upkeep.dead_max,
        )
        return handed(owner, answer)

    def cancel(
        self,
        owner: Owner,
        ids: Sequence[str],
        until: float,
        terminate: bool = False,
        signal: str = "SIGTERM",
    ) -> list[Delivery]:
        try:
            self.client.run(
                _CANCEL,
                owner.lease,
                repr(float(until)),
                signal if terminate else "",
                len(ids),
                *ids,
            )
        except Refused as refused:
            raise self.translated(refused, owner) from None
        if not ids:
            return []
        found: list[Delivery] = []
        for queue in self.queue_names():
            _, more = self.take(owner, queue, ids=list(dict.fromkeys(ids)))
            # One whose cancellation lies in the past is not remembered; it is cancelled now.
            found += more
        return [_cancelled(delivery) for delivery in found]

    def take(
        self, owner: Owner, queue: str, *, ids: Sequence[str] = (), how: str = "all"
    ) -> tuple[int, list[Delivery]]:
        """Waiting and delayed messages of these ids (none: of any) out of the queue: how many were
        removed, and what the owner was handed."""
        steps = [str(step) for step in self.options.priority_steps]
        removed = 0
        found: list[Delivery] = []
        for place in ("front", *steps, "delayed"):
            at = 0
            while at < SEARCHED or not ids:
                try:
                    answer = self.client.run(
                        _TAKE,
                        self.options.prefix,
                        self.options.separator,
                        queue,
                        place,
                        at,
                        SLICE,
                        owner.lease,
                        f"{owner.slot}/{owner.incarnation}",
                        how,
                        len(ids),
                        *ids,
                    )
                except Refused as refused:
                    raise self.translated(refused, owner) from None
                looked, taken, gone = answer[:3]
                removed += gone
                found += handed(owner, answer[3:])
                at += looked - taken
                if looked < SLICE:
                    break
        return removed, found

    def queue_names(self) -> list[str]:
        """Every queue that somebody of Celeriac used, and those of Celery's default exchange."""
        bindings = self.options.prefix + "_kombu.binding.celery"
        ours, bound = self.client.pipeline(
            [
                pack(("SMEMBERS", self.client.base + b"queues")),
                pack(("SMEMBERS", bindings)),
            ]
        )
        names = {name.decode() for name in ours}
        for member in bound:
            names.add(member.decode("utf-8", "replace").split("\x06\x16")[-1])
        return sorted(names)

    def translated(self, refused: Refused, owner: Owner) -> Exception:
        return no_lease(self.store, owner) if refused.code == "LEASELOST" else refused


def no_lease(store: str, owner: Owner) -> LeaseLost:
    return LeaseLost(
        f"{store} does not know the lease {owner.lease!r} (any more): register it again, and go "
        "on as a new owner. What was held is with others."
    )


def _may_rest(waiter: Waiter, now: float, broker: RedisBroker) -> bool:
    """Is nothing to be expected of a claim now?"""
    if not waiter.is_fresh(now):
        return False
    return waiter.due_at is None or waiter.due_at > broker.options.now()


def _alike(first: Message, other: Message) -> bool:
    """Do both go to the same list, without a key?"""
    return (
        other.dedupe_key is None and other.queue == first.queue and other.priority == first.priority
    )


def _cancelled(delivery: Delivery) -> Delivery:
    if delivery.cancelled:
        return delivery
    fields = {name: getattr(delivery, name) for name in delivery.__struct_fields__}
    return Delivery(**{**fields, "cancelled": True})
