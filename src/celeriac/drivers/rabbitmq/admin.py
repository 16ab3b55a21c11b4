"""What operators do with the queues of ``amqp://``.

AMQP lets nobody look into a queue, nor take single messages out of it. Dead letters are another
matter: nobody consumes them, so they can all be read and given back. Messages that wait or are
delayed are counted at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from celeriac.drivers.rabbitmq import frames, letters
from celeriac.drivers.rabbitmq.broker import RabbitBroker
from celeriac.drivers.rabbitmq.connection import BROWSE, Connection
from celeriac.drivers.rabbitmq.frames import Content
from celeriac.drivers.rabbitmq.letters import Letter
from celeriac.drivers.rabbitmq.line import Line
from celeriac.drivers.rabbitmq.publishing import Parcel
from celeriac.drivers.rabbitmq.tables import encode_table, short
from celeriac.drivers.rabbitmq.topology import DEAD
from celeriac.exceptions import NotCapable
from celeriac.message import (
    MessageState,
    Owner,
    Peeked,
    QueueInfo,
    Removed,
    Upkeep,
    WorkerInfo,
)
from celeriac.utils import uuid

_MOST: Final = 200_000  # dead letters that are read at once
_PATIENCE: Final = 60.0  # seconds for reading them
_CHUNK: Final = 500
_RETURNING: Final = 2.0  # seconds


class RabbitQueueAdmin:
    """Celeriac's QueueAdmin contract over an opened broker, as far as AMQP goes."""

    def __init__(self, broker: RabbitBroker) -> None:
        self._broker = broker

    def queues(self) -> list[QueueInfo]:
        """The application's queues, and those that this process has used. What is delayed or in
        flight the server does not tell."""
        with self._broker.using() as line:
            infos = []
            for name in self._broker.queue_names():
                waiting = line.topology.depth(name)
                dead = line.topology.depth(name + DEAD)
                info = QueueInfo(
                    name=name,
                    waiting=waiting[0] if waiting else 0,
                    delayed=0,
                    in_flight=0,
                    dead=dead[0] if dead else 0,
                    paused=False,
                )
                if info.waiting or info.dead:
                    infos.append(info)
            return infos

    def workers(self) -> list[WorkerInfo]:
        """Those that have told of themselves lately; what they hold the server does not tell."""
        return self._broker.workers()

    def pause(self, queue: str, paused: bool = True) -> None:
        if paused:
            raise NotCapable(
                f"RabbitMQ cannot pause the queue {queue!r}: stop its workers, or let them take "
                "from other queues (-Q). redis:// and sqlite:// can pause queues."
            )

    # --- looking --------------------------------------------------------------------------------

    def peek(
        self, queue: str | None, state: MessageState, limit: int = 100, after: str = ""
    ) -> list[Peeked]:
        """Dead letters, the latest first. Raises NotCapable for any other state."""
        if state is not MessageState.DEAD:
            raise NotCapable(
                "RabbitMQ lets nobody look into a queue: only dead letters can be shown. "
                "redis:// and sqlite:// can show what waits."
            )
        seen = msgspec.json.decode(after, type=tuple[float, str]) if after else None
        with self._broker.using() as line:
            found = [
                peeked
                for name in self._broker.queue_names()
                if queue is None or name == queue
                for peeked in self._dead_of(line, name)
            ]
        found.sort(key=_place, reverse=True)
        if seen is not None:
            found = [peeked for peeked in found if _place(peeked) < seen]
        return found[: max(0, limit)]

    def _dead_of(self, line: Line, queue: str) -> list[Peeked]:
        found: list[Peeked] = []
        self._visit(line, queue, lambda letter, content: found.append(_peeked(letter, content)))
        return found

    def find(self, ids: Sequence[str]) -> list[Peeked]:
        """Their dead letters."""
        wanted = set(ids)
        if not wanted:
            return []
        with self._broker.using() as line:
            return [
                peeked
                for name in self._broker.queue_names()
                for peeked in self._dead_of(line, name)
                if peeked.message.id in wanted
            ]

    # --- changing -------------------------------------------------------------------------------

    def revive(self, ids: Sequence[str]) -> int:
        wanted = set(ids)
        count = 0
        with self._broker.using() as line:
            for name in self._broker.queue_names():
                parcels: list[Parcel] = []

                def take(letter: Letter, _: Content, into: list[Parcel] = parcels) -> bool:
                    if letter.message.id not in wanted:
                        return False
                    into.append(line.sender.parcel(_revived(letter)))
                    return True

                def send(these: list[Parcel] = parcels) -> None:
                    line.sender.send(these)

                count += self._visit(line, name, take, before_ack=send)
        return count

    def delete(self, owner: Owner, ids: Sequence[str]) -> Removed:
        """Their dead letters. What waits or is delayed stays: cancel it, and it is settled when
        its turn comes."""
        wanted = set(ids)
        count = 0
        with self._broker.using() as line:
            for name in self._broker.queue_names():
                count += self._visit(line, name, lambda letter, _: letter.message.id in wanted)
        return Removed(count=count)

    def purge(self, owner: Owner, queue: str) -> Removed:
        """What waits in the queue. Parts of joins are held by the owner, to be settled; what is
        delayed stays."""
        return self._broker.drain(owner, queue, _CHUNK)

    def expire(self, upkeep: Upkeep, now: float) -> None:
        """Remove the dead letters that are too old, or too many."""
        oldest = None if upkeep.dead_expires is None else now - upkeep.dead_expires
        with self._broker.using() as line:
            for name in self._broker.queue_names():
                depth = line.topology.depth(name + DEAD)
                if depth and depth[0]:
                    self._visit(line, name, _Expired(oldest, upkeep.dead_max, depth[0]))

    def _visit(
        self,
        line: Line,
        queue: str,
        remove: Callable[[Letter, Content], Any],
        before_ack: Callable[[], None] | None = None,
    ) -> int:
        """Show every dead letter of the queue, the oldest first; those for which the answer is
        True are removed, the others are as they were. How many were removed."""
        depth = line.topology.depth(queue + DEAD)
        if not depth or not depth[0]:
            return 0
        contents = _browse(line.connection, queue + DEAD, min(depth[0], _MOST))
        try:
            gone = [
                content.tag
                for content in contents
                if remove(letters.read(content, _home(content, queue)), content) is True
            ]
            if before_ack is not None:
                before_ack()
            line.connection.send(b"".join(frames.ack(BROWSE, tag) for tag in gone))
            if len(gone) < len(contents):
                line.connection.send(frames.nack_all(BROWSE))
        finally:
            line.connection.close_channel(BROWSE)
        self._await_return(line, queue + DEAD, len(contents) - len(gone))
        return len(gone)

    @staticmethod
    def _await_return(line: Line, queue: str, count: int) -> None:
        """What was looked at is in its queue again, for whoever looks next: a quorum queue takes
        a moment for that."""
        deadline = time.monotonic() + _RETURNING
        while (depth := line.topology.depth(queue)) and depth[0] < count:
            if time.monotonic() > deadline:
                return  # somebody else looks at them now
            time.sleep(0.002)


class _Expired:
    """Says which of ``depth`` dead letters, the oldest first, are to go."""

    def __init__(self, oldest: float | None, most: int | None, depth: int) -> None:
        self._oldest = oldest
        self._surplus = 0 if most is None else depth - most

    def __call__(self, letter: Letter, content: Content) -> bool:
        self._surplus -= 1
        if self._surplus >= 0:
            return True
        at = _buried_at(letter)
        return self._oldest is not None and at is not None and at <= self._oldest


def _browse(connection: Connection, queue: str, count: int) -> list[Content]:
    """The first ``count`` messages, unacknowledged on the channel BROWSE."""
    data = b"\x00\x00" + short(queue) + short("browse") + b"\x00" + encode_table({})
    connection.call(frames.QOS, b"\x00\x00\x00\x00\x00\x00\x00", frames.QOS_OK, on=BROWSE)
    connection.call(frames.CONSUME, data, frames.CONSUME_OK, on=BROWSE)
    came = connection.asides["browse"]
    deadline = time.monotonic() + _PATIENCE
    quiet = time.monotonic()
    while len(came) < count and time.monotonic() < deadline:
        before = len(came)
        connection.read(0.1)
        if len(came) > before:
            quiet = time.monotonic()
        elif time.monotonic() - quiet > 1.0:
            break  # somebody else has taken the rest
    cancel = short("browse") + b"\x00"
    connection.call(frames.CANCEL, cancel, frames.CANCEL_OK, on=BROWSE)
    contents = list(came)
    came.clear()
    return contents


def _home(content: Content, queue: str) -> str:
    """The queue that a dead letter came from: its own note, or the server's."""
    headers = content.properties.headers
    home = headers.get(letters.QUEUE)
    return str(home) if home else queue


def _revived(letter: Letter) -> Any:
    message = letter.message
    return msgspec.structs.replace(message, run=uuid(), due_at=None, dedupe_key=None)


def _buried_at(letter: Letter) -> float | None:
    at = letter.extra.get(letters.BURIED_AT)
    if at is not None:
        return float(at)
    return letters.instant(_death(letter).get("time"))


def _death(letter: Letter) -> dict[str, Any]:
    deaths = letter.extra.get("x-death")
    if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        return deaths[0]
    return {}


def _peeked(letter: Letter, content: Content) -> Peeked:
    death = _death(letter)
    reason = letter.extra.get(letters.REASON)
    if reason is None and death:
        reason = f"{death.get('reason')} by the server, from {death.get('queue')}"
    at = _buried_at(letter)
    cursor = msgspec.json.encode((at or 0.0, f"{letter.message.id} {letter.message.run}")).decode()
    return Peeked(
        message=letter.message,
        state=MessageState.DEAD,
        cursor=cursor,
        lost=int(letter.extra.get(letters.LOST, 0)),
        reason=str(reason or ""),
        at=at,
    )


def _place(peeked: Peeked) -> tuple[float, str]:
    return msgspec.json.decode(peeked.cursor, type=tuple[float, str])
