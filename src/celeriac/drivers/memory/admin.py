"""What operators do with the queues of ``memory://``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from celeriac.drivers.memory.broker import MemoryBroker
from celeriac.drivers.memory.store import Entry
from celeriac.message import MessageState, Owner, Peeked, QueueInfo, Removed, WorkerInfo
from celeriac.utils import uuid


class MemoryQueueAdmin:
    """Celeriac's QueueAdmin contract over an opened broker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._store = broker.kept

    def queues(self) -> list[QueueInfo]:
        with self._broker.using() as now:
            self._store.promote(now)
            by_queue: dict[str, list[Entry]] = {name: [] for name in self._store.paused}
            for entry in self._store.entries.values():
                by_queue.setdefault(entry.message.queue, []).append(entry)
            return [self._info(name, by_queue[name]) for name in sorted(by_queue)]

    def _info(self, name: str, entries: Sequence[Entry]) -> QueueInfo:
        where = [entry.state for entry in entries]
        waiting = [e.published_at for e in entries if e.state is MessageState.WAITING]
        return QueueInfo(
            name=name,
            waiting=len(waiting),
            delayed=where.count(MessageState.DELAYED),
            in_flight=where.count(MessageState.IN_FLIGHT),
            dead=where.count(MessageState.DEAD),
            paused=name in self._store.paused,
            oldest_at=min(waiting, default=None),
        )

    def workers(self) -> list[WorkerInfo]:
        now = self._broker.clock()
        with self._broker.using():
            infos = [
                WorkerInfo(
                    name=lease.worker.name,
                    lease=name,
                    hostname=lease.worker.hostname,
                    pid=lease.worker.pid,
                    alive=lease.expires_at > now,
                    since=lease.since,
                    expires_at=lease.expires_at,
                    in_flight=len(self._store.held_by_lease(name)),
                )
                for name, lease in self._store.leases.items()
            ]
        return sorted(infos, key=lambda info: (info.name, info.lease))

    def pause(self, queue: str, paused: bool = True) -> None:
        with self._broker.using():
            if paused:
                self._store.paused.add(queue)
            else:
                self._store.paused.discard(queue)
            self._store.changed.notify_all()

    def peek(
        self, queue: str | None, state: MessageState, limit: int = 100, after: str = ""
    ) -> list[Peeked]:
        with self._broker.using() as now:
            self._store.promote(now)
            entries = sorted(
                (
                    entry
                    for entry in self._store.entries.values()
                    if entry.state is state and queue in (None, entry.message.queue)
                ),
                key=_place,
            )
            if after:
                seen = msgspec.json.decode(after, type=_Place)
                entries = [entry for entry in entries if _place(entry) > seen]
            return [_peeked(entry) for entry in entries[: max(0, limit)]]

    def find(self, ids: Sequence[str]) -> list[Peeked]:
        with self._broker.using() as now:
            self._store.promote(now)
            return [_peeked(entry) for entry in self._store.of_ids(ids)]

    def revive(self, ids: Sequence[str]) -> int:
        with self._broker.using() as now:
            self._store.promote(now)
            dead = [e for e in self._store.of_ids(ids) if e.state is MessageState.DEAD]
            for entry in dead:
                self._store.remove(entry)
                message = msgspec.structs.replace(
                    entry.message, run=uuid(), due_at=None, dedupe_key=None
                )
                self._store.add(message, now, window=0.0)
            self._store.changed.notify_all()
            return len(dead)

    def delete(self, owner: Owner, ids: Sequence[str]) -> Removed:
        with self._broker.using():
            return self._remove(owner, self._store.of_ids(ids))

    def purge(self, owner: Owner, queue: str) -> Removed:
        with self._broker.using():
            entries = [
                entry
                for entry in self._store.entries.values()
                if entry.message.queue == queue and entry.state is not MessageState.DEAD
            ]
            return self._remove(owner, entries)

    def _remove(self, owner: Owner, entries: Sequence[Entry]) -> Removed:
        """Dead letters are gone at once: their joins were told when they were buried."""
        self._store.lease(owner)
        entries = [entry for entry in entries if entry.state is not MessageState.IN_FLIGHT]
        parts = [
            entry
            for entry in entries
            if entry.message.join is not None and entry.state is not MessageState.DEAD
        ]
        gone = [entry for entry in entries if entry not in parts]
        for entry in gone:
            self._store.remove(entry)
        handed = self._broker.take_unstarted(parts, owner, self._broker.clock())
        return Removed(count=len(gone), parts=tuple(handed))


_Place: TypeAlias = tuple[str, float, int]


def _place(entry: Entry) -> _Place:
    """What orders the entries of one state. As a cursor it outlives its message."""
    if entry.state is MessageState.WAITING:
        return entry.message.queue, float(-entry.message.priority), entry.position
    if entry.state is MessageState.DELAYED:
        return "", entry.due_at or 0.0, entry.position
    if entry.state is MessageState.DEAD:
        return "", 0.0, -entry.position
    return "", 0.0, entry.position


def _peeked(entry: Entry) -> Peeked:
    message = entry.message
    if entry.state is MessageState.DELAYED and message.due_at != entry.due_at:
        message = msgspec.structs.replace(message, due_at=entry.due_at)
    return Peeked(
        message=message,
        state=entry.state,
        cursor=msgspec.json.encode(_place(entry)).decode(),
        lost=entry.lost,
        reason=entry.reason,
        at=entry.buried_at if entry.state is MessageState.DEAD else entry.published_at,
    )
