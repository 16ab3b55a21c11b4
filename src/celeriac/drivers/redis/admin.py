"""The queue administration of ``redis://``."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from celeriac.drivers.redis.broker import RedisBroker
from celeriac.drivers.redis.connection import pack
from celeriac.drivers.redis.envelope import Read, encode, published_at, read
from celeriac.drivers.redis.errors import Refused
from celeriac.drivers.redis.scripts import script
from celeriac.drivers.redis.taking import SLICE, queue_names, take, translated
from celeriac.message import (
    Delivery,
    MessageState,
    Owner,
    Peeked,
    QueueInfo,
    Removed,
    WorkerInfo,
)
from celeriac.utils import uuid

__all__ = ["RedisQueueAdmin"]

_GLANCE, _SEARCH, _FLYING, _WORKERS, _REVIVE = (
    script("glance"),
    script("search"),
    script("flying"),
    script("workers"),
    script("revive"),
)
_PAGE = 200


class _Found(NamedTuple):
    """A message where it is stored: ``score`` and ``number`` order it there, ``raw`` is how it
    stands there."""

    score: float
    number: int
    raw: bytes
    queue: str
    message: bytes


class RedisQueueAdmin:
    """Celeriac's QueueAdmin contract over a broker."""

    def __init__(self, broker: RedisBroker) -> None:
        self._broker = broker
        self._client = broker.client
        self._base = broker.client.base.decode()

    # --- looking

    def queues(self) -> list[QueueInfo]:
        names = queue_names(self._client)
        infos = [_info(name, row) for name, row in zip(names, self._glance(names), strict=True)]
        return [i for i in infos if i.paused or i.waiting or i.delayed or i.in_flight or i.dead]

    def _glance(self, names: Sequence[str]) -> list[Any]:
        options = self._broker.options
        steps = ",".join(map(str, options.priority_steps))
        return self._client.run(  # type: ignore[no-any-return]
            _GLANCE, options.prefix, options.separator, steps, len(names), *names
        )

    def workers(self) -> list[WorkerInfo]:
        infos = []
        for lease, ends, known, held, alive in self._client.run(_WORKERS):
            _, since, name, host, pid = (*known.decode().split("\0"), *[""] * 5)[:5]
            infos.append(
                WorkerInfo(
                    name=name,
                    lease=lease.decode(),
                    hostname=host,
                    pid=int(pid or 0),
                    alive=alive == 1,
                    since=float(since or 0),
                    expires_at=float(ends),
                    in_flight=held,
                )
            )
        return sorted(infos, key=lambda info: (info.name, info.lease))

    def peek(
        self, queue: str | None, state: MessageState, limit: int = 100, after: str = ""
    ) -> list[Peeked]:
        limit = max(0, limit)
        names = queue_names(self._client) if queue is None else [queue]
        if not names or not limit:
            return []
        if state is MessageState.WAITING:
            self._glance(names)
            return self._peek_waiting(names, limit, after)
        if state is MessageState.DELAYED:
            self._glance(names)
            return self._peek_delayed(names, limit, after)
        if state is MessageState.DEAD:
            return self._peek_dead(queue, limit, after)
        return self._peek_flying(queue, limit, after)

    def _peek_flying(self, queue: str | None, limit: int, after: str) -> list[Peeked]:
        number = after if after.isdigit() else "-1"
        answer = self._client.run(_FLYING, queue or "", number, limit)
        return [
            _peeked(read(answer[at + 2], answer[at + 1].decode()), MessageState.IN_FLIGHT, number)
            for at in range(0, len(answer), 3)
            for number in (str(answer[at]),)
        ]

    # --- waiting: a cursor names the list, the message, the next one and where it was

    def _lists(self, queue: str) -> list[str]:
        options = self._broker.options
        return [f"{self._base}front:{queue}"] + [
            options.prefix + queue + (f"{options.separator}{step}" if step else "")
            for step in options.priority_steps
        ]

    def _peek_waiting(self, names: Sequence[str], limit: int, after: str) -> list[Peeked]:
        lists = [(name, key) for name in names for key in self._lists(name)]
        start = _WaitingCursor.read(after)
        first = 0
        if start is not None:
            keys = [key for _, key in lists]
            if start.key not in keys:
                return []
            first = keys.index(start.key)
        found: list[Peeked] = []
        for number, (name, key) in enumerate(lists[first:]):
            at = 0
            if number == 0 and start is not None:
                at = self._resume(key, name, start)
            found += self._slice(key, name, at, limit - len(found))
            if len(found) >= limit:
                break
        return found

    def _slice(self, key: str, queue: str, at: int, count: int) -> list[Peeked]:
        """``count`` messages of a list from its end on, beginning ``at`` places before it."""
        if count <= 0:
            return []
        # One more, so that the cursor can name the next.
        raws = self._client.call(pack(("LRANGE", key, -at - count - 1, -at - 1)))[::-1]
        reads = [read(raw, queue) for raw in raws]
        tags = [one.tag for one in reads] + ["", ""]
        return [
            _peeked(
                one,
                MessageState.WAITING,
                _WaitingCursor(key=key, tag=one.tag, next=tags[i + 1], at=at + i).text(),
            )
            for i, one in enumerate(reads[:count])
        ]

    def _resume(self, key: str, queue: str, cursor: _WaitingCursor) -> int:
        """The place behind the cursor's message, or of the one that followed it."""
        next_at: int | None = None
        at = 0
        while True:
            raws = self._client.call(pack(("LRANGE", key, -at - SLICE, -at - 1)))[::-1]
            for place, raw in enumerate(raws, at):
                tag = read(raw, queue).tag
                if tag == cursor.tag:
                    return place + 1
                if tag == cursor.next and next_at is None:
                    next_at = place
            if next_at is not None:
                return next_at
            at += len(raws)
            # What comes back stands nearer to the end; beyond its old place it cannot be.
            if len(raws) < SLICE or at > cursor.at + 10 * SLICE:
                return 0 if cursor.next else at

    # --- delayed and dead: ordered by score and number

    def _peek_delayed(self, names: Sequence[str], limit: int, after: str) -> list[Peeked]:
        seen = _position(after)
        streams = [
            self._zset(f"{self._base}delayed:{name}", from_score=seen[0] if seen else None)
            for name in names
        ]
        found: list[Peeked] = []
        for one in heapq.merge(*streams, key=lambda one: (one.score, one.number)):
            if seen is not None and (one.score, one.number) <= seen:
                continue
            found.append(_at_place(one, MessageState.DELAYED))
            if len(found) >= limit:
                break
        return found

    def _peek_dead(self, queue: str | None, limit: int, after: str) -> list[Peeked]:
        seen = _position(after)
        found: list[Peeked] = []
        from_score = seen[0] if seen else None
        for one in self._zset(f"{self._base}dead", from_score=from_score, latest_first=True):
            if seen is not None and (one.score, one.number) >= seen:
                continue
            if queue is None or one.queue == queue:
                found.append(_at_place(one, MessageState.DEAD))
                if len(found) >= limit:
                    break
        return found

    def _zset(
        self, key: str, *, from_score: float | None = None, latest_first: bool = False
    ) -> Iterator[_Found]:
        """Every member in its order, page by page, from a score on."""
        low, high = ("+inf", "-inf") if latest_first else ("-inf", "+inf")
        start = low if from_score is None else repr(from_score)
        at = 0
        while True:
            command = ["ZRANGE", key, start, high, "BYSCORE"]
            if latest_first:
                command.append("REV")
            command += ["LIMIT", str(at), str(_PAGE), "WITHSCORES"]
            answer = self._client.call(pack(tuple(command)))
            for raw, score in zip(answer[::2], answer[1::2], strict=True):
                _, queue, message = raw[16:].split(b"\0", 2)
                yield _Found(float(score), int(raw[:16]), raw, queue.decode(), message)
            if len(answer) < 2 * _PAGE:
                return
            at += _PAGE

    # --- by id

    def find(self, ids: Sequence[str]) -> list[Peeked]:
        wanted = dict.fromkeys(ids)
        if not wanted:
            return []
        names = queue_names(self._client)
        self._glance(names)
        found: list[Peeked] = []
        for name in names:
            for key in self._lists(name):
                found += self._search(key, name, list(wanted))
            delayed = self._zset(f"{self._base}delayed:{name}")
            found += _of_ids(delayed, wanted, MessageState.DELAYED)
        flying = self._client.run(_FLYING, "", -1, 1_000_000)
        for at in range(0, len(flying), 3):
            one = read(flying[at + 2], flying[at + 1].decode())
            if one.message.id in wanted:
                found.append(_peeked(one, MessageState.IN_FLIGHT, str(flying[at])))
        found += _of_ids(self._zset(f"{self._base}dead"), wanted, MessageState.DEAD)
        place = {id: number for number, id in enumerate(wanted)}
        return sorted(found, key=lambda one: place[one.message.id])

    def _search(self, key: str, queue: str, ids: Sequence[str]) -> list[Peeked]:
        found: list[Peeked] = []
        at = 0
        while True:
            looked, *raws = self._client.run(_SEARCH, key, -at - SLICE, -at - 1, len(ids), *ids)
            for raw in raws:
                one = read(raw, queue)
                cursor = _WaitingCursor(key=key, tag=one.tag, next="", at=at).text()
                found.append(_peeked(one, MessageState.WAITING, cursor))
            at += looked
            if looked < SLICE:
                return found

    # --- changing

    def pause(self, queue: str, paused: bool = True) -> None:
        command = "SADD" if paused else "SREM"
        self._client.pipeline(
            [
                pack(("SADD", f"{self._base}queues", queue)),
                pack((command, f"{self._base}paused", queue)),
            ]
        )

    def revive(self, ids: Sequence[str]) -> int:
        wanted = set(ids)
        now = self._broker.options.now()
        args: list[Any] = []
        for one in self._dead_of(wanted):
            found = read(one.message, one.queue)
            anew = msgspec.structs.replace(found.message, run=uuid(), due_at=None, dedupe_key=None)
            args += (one.raw, encode(anew, now))
        return self._replace_dead("", args)

    def _dead_of(self, wanted: set[str]) -> list[_Found]:
        return [
            one
            for one in self._zset(f"{self._base}dead")
            if read(one.message, one.queue).message.id in wanted
        ]

    def _replace_dead(self, lease: str, args: Sequence[Any]) -> int:
        options = self._broker.options
        return int(
            self._client.run(
                _REVIVE, options.prefix, options.separator, lease, len(args) // 2, *args
            )
        )

    def delete(self, owner: Owner, ids: Sequence[str]) -> Removed:
        wanted = list(dict.fromkeys(ids))
        args: list[Any] = []
        for one in self._dead_of(set(wanted)):
            args += (one.raw, b"")
        try:
            count = self._replace_dead(owner.lease, args)
        except Refused as refused:
            raise translated(refused, self._client, owner) from None
        parts: list[Delivery] = []
        for name in queue_names(self._client) if wanted else ():
            removed, handed = take(self._client, owner, name, ids=wanted, how="parts")
            count += removed
            parts += handed
        return Removed(count=count, parts=tuple(parts))

    def purge(self, owner: Owner, queue: str) -> Removed:
        removed, parts = take(self._client, owner, queue, how="parts")
        return Removed(count=removed, parts=tuple(parts))


class _WaitingCursor(msgspec.Struct, frozen=True, array_like=True):
    key: str
    tag: str
    next: str
    at: int

    def text(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def read(cls, text: str) -> _WaitingCursor | None:
        """None for what is no cursor of ours: from the beginning."""
        try:
            return msgspec.json.decode(text, type=cls) if text else None
        except msgspec.DecodeError:
            return None


def _position(cursor: str) -> tuple[float, int] | None:
    first, _, second = cursor.partition("/")
    try:
        return float(first), int(second)
    except ValueError:
        return None


def _info(name: str, row: Sequence[Any]) -> QueueInfo:
    waiting, delayed, in_flight, dead, paused, *oldest = row
    times = [published_at(read(raw, name).tag) for raw in oldest]
    return QueueInfo(
        name=name,
        waiting=waiting,
        delayed=delayed,
        in_flight=in_flight,
        dead=dead,
        paused=paused == 1,
        oldest_at=min((at for at in times if at is not None), default=None),
    )


def _of_ids(
    members: Iterable[_Found], wanted: dict[str, None], state: MessageState
) -> Iterator[Peeked]:
    for one in members:
        peeked = _at_place(one, state)
        if peeked.message.id in wanted:
            yield peeked


def _at_place(one: _Found, state: MessageState) -> Peeked:
    found = read(one.message, one.queue)
    if state is MessageState.DELAYED:
        found.message = msgspec.structs.replace(found.message, due_at=one.score)
    return _peeked(found, state, f"{one.score!r}/{one.number}")


def _peeked(found: Read, state: MessageState, cursor: str) -> Peeked:
    return Peeked(
        message=found.message,
        state=state,
        cursor=cursor,
        lost=found.lost,
        reason=found.reason,
        at=found.at if state is MessageState.DEAD else published_at(found.tag),
    )
