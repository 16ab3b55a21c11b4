"""The broker of ``redis://``."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from celeriac.contracts import Capabilities
from celeriac.drivers.redis.client import Client
from celeriac.drivers.redis.errors import Refused
from celeriac.drivers.redis.handing import as_cancelled, claimed, handed
from celeriac.drivers.redis.inspecting import durability, look_at_server
from celeriac.drivers.redis.options import Options, read_options
from celeriac.drivers.redis.place import ResultPlace, place_of
from celeriac.drivers.redis.publishing import Publisher
from celeriac.drivers.redis.scripts import script
from celeriac.drivers.redis.settling import settle
from celeriac.drivers.redis.taking import queue_names, take, translated
from celeriac.drivers.redis.waiting import Bell, Waiter, WaitingRoom
from celeriac.exceptions import OperationalError
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

_CLAIM, _UNFRONT = script("claim"), script("unfront")
_REGISTER, _UNREGISTER, _HEARTBEAT = (
    script("register"),
    script("unregister"),
    script("heartbeat"),
)
_BEGIN, _RECOVER, _MAINTAIN, _CANCEL = (
    script("begin"),
    script("recover"),
    script("maintain"),
    script("cancel"),
)

_POLL = 0.1


def capabilities_of(options: Options, how: str = "") -> Capabilities:
    return Capabilities(
        highest_priority=0,
        expires_results=True,
        upkeep_every=4.0,  # claims find what is due; waking is the server's
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
        self._publisher = Publisher(self.client)
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
        return self._publisher.publish(messages, joins, self.results_at)

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
                    batch, due_at, stopped = self._claim(owner, names, limit, max_bytes)
                    if batch:
                        if waiter is not None:
                            waiter.leave()
                        return batch
                    if waiter is not None:
                        if not waiter.armed:  # what comes from now on is seen: look once more
                            waiter.arm()
                            continue
                        waiter.claimed_at = now
                        waiter.due_at, waiter.stopped = due_at, stopped
                left = deadline - time.monotonic()
                rung = self._bell.rings != rings
                if rung and waiter is not None:
                    waiter.unblock()  # there may be no claim after this one
                if rung or left <= 0:
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
            self._publisher.note_queue(queue)
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
            raise translated(refused, self.client, owner) from None
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
                    self._publisher.note_queue(message.queue)
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
            raise translated(refused, self.client, owner) from None
        if not ids:
            return []
        found: list[Delivery] = []
        for queue in queue_names(self.client):
            _, more = take(self.client, owner, queue, ids=list(dict.fromkeys(ids)))
            found += more
        # Also what is cancelled until a time that has passed, and so not remembered.
        return [as_cancelled(delivery) for delivery in found]


def _may_rest(waiter: Waiter, now: float, broker: RedisBroker) -> bool:
    """Is nothing to be expected of a claim now?"""
    if not waiter.is_fresh(now):
        return False
    return waiter.due_at is None or waiter.due_at > broker.options.now()
