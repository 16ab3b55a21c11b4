"""Taking messages in: subscriptions, what came, and what is held unacknowledged.

A claim subscribes with a prefetch of its own limit and ends the subscription with what it got, so
nothing ever lies here behind a running task. Acknowledging while subscribed would bring more:
the subscription is ended first.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from celeriac.drivers.rabbitmq import frames, letters
from celeriac.drivers.rabbitmq.connection import WORK, Connection
from celeriac.drivers.rabbitmq.frames import Content
from celeriac.drivers.rabbitmq.letters import Letter
from celeriac.drivers.rabbitmq.tables import encode_table, short
from celeriac.drivers.rabbitmq.topology import Topology

# Where the server knows this argument (from RabbitMQ 3.11.15 on), it waits 24 days, its most.
_CONSUMER_TIMEOUT: Final = 2**31 - 1


_LINGER: Final = 0.05  # seconds to wait for what the server has said it has
ARGUMENTS: Final = encode_table({"x-consumer-timeout": _CONSUMER_TIMEOUT})


class Held(Struct, eq=False):
    """A message that the server has handed to this connection. ``tag`` is the server's, ``since``
    when it came (time.monotonic())."""

    tag: int
    letter: Letter
    lost: int
    redelivered: bool
    since: float


class Inbox:
    """The consuming side of one connection."""

    def __init__(self, connection: Connection, topology: Topology) -> None:
        self._connection = connection
        self._topology = topology
        self._numbers = itertools.count(1)
        self._queues_of: dict[str, str] = {}  # consumer tags, those of the past among them
        self._subscribed: dict[str, str] = {}  # queue: consumer tag
        self._window = 0
        self._prefetch = -1
        self._unacked: dict[int, None] = {}  # what the server counts as ours, in its order
        self.arrived: deque[Held] = deque()
        self.outbox: list[bytes] = []  # what goes out with the next write

    # --- subscriptions --------------------------------------------------------------------------

    def subscribed_to(self, queues: Sequence[str], window: int) -> bool:
        """Is this subscription still good, nothing of it used up?"""
        return self._window == window and list(self._subscribed) == list(queues)

    @property
    def waits(self) -> bool:
        """Would something that comes now be noticed?"""
        return bool(self._subscribed) and not self.arrived

    @property
    def silent(self) -> bool:
        """Has nothing been heard for so long that the connection may be dead?"""
        return self._connection.silent

    @property
    def waits_for_claim(self) -> bool:
        """Is a claim waiting for what comes?"""
        return bool(self._subscribed)

    def subscribe(self, queues: Sequence[str], window: int) -> None:
        """Ask for up to ``window`` messages of each queue. Raises Mismatch."""
        self.unsubscribe()
        for queue in queues:
            self._topology.consumed(queue)
        if self._prefetch != window:
            self._prefetch = window
            qos = b"\x00\x00\x00\x00" + window.to_bytes(2, "big") + b"\x00"
            self.outbox.append(frames.method(WORK, frames.QOS, qos))
        for queue in queues:
            tag = f"celeriac.{next(self._numbers)}"
            self._queues_of[tag] = queue
            self._subscribed[queue] = tag
            arguments = b"\x00\x00" + short(queue) + short(tag) + b"\x08" + ARGUMENTS
            self.outbox.append(frames.method(WORK, frames.CONSUME, arguments))
        self._window = window
        self.flush()

    def unsubscribe(self, *, wait: bool = False) -> None:
        """No more from now on, with ``wait``: what was on its way has arrived."""
        for tag in self._subscribed.values():
            arguments = short(tag) + (b"\x00" if wait else b"\x01")
            self.outbox.append(frames.method(WORK, frames.CANCEL, arguments))
        count = len(self._subscribed)
        self._subscribed.clear()
        self._window = 0
        if wait and count:
            self.flush()
            for _ in range(count):
                self._connection.answer(WORK, frames.CANCEL_OK)
        if len(self._queues_of) > 1000:
            for tag in list(self._queues_of)[:-200]:
                del self._queues_of[tag]

    def lost_subscriptions(self) -> list[str]:
        """Queues that were deleted while they were consumed from."""
        cancelled, self._connection.cancelled = self._connection.cancelled, []
        gone = [queue for queue, tag in self._subscribed.items() if tag in cancelled]
        for queue in gone:
            del self._subscribed[queue]
            self._topology.forget(queue)
        return gone

    def flush(self) -> None:
        if self.outbox:
            data = b"".join(self.outbox)
            self.outbox.clear()
            self._connection.send(data)

    # --- what came ------------------------------------------------------------------------------

    def take_in(self) -> int:
        """Read what the connection has; how many messages."""
        deliveries = self._connection.deliveries
        count = len(deliveries)
        while deliveries:
            content = deliveries.popleft()
            self._arrive(content, self._queues_of[content.consumer])
        return count

    def ask(self, queue: str, most: int) -> None:
        """Take up to ``most`` messages that wait in the queue now."""
        self._topology.consumed(queue)
        self.flush()
        content = self._connection.get(queue)
        if content is None:
            return
        self._arrive(content, queue)
        more = min(most - 1, content.left)
        if not more:
            return
        wanted = len(self.arrived) + more
        self.subscribe((queue,), more)
        deadline = time.monotonic() + _LINGER  # somebody else may have been faster
        while len(self.arrived) < wanted and time.monotonic() < deadline:
            self._connection.read(max(0.0, deadline - time.monotonic()))
            if self.take_in():
                deadline = time.monotonic() + _LINGER
        self.unsubscribe(wait=True)
        self.take_in()

    def _arrive(self, content: Content, queue: str) -> None:
        self._unacked[content.tag] = None
        letter = letters.read(content, self._topology.called(queue), queue)
        lost = int(letter.extra.get(letters.LOST, 0)) if letter.extra else 0
        held = Held(content.tag, letter, lost, content.redelivered, time.monotonic())
        self.arrived.append(held)

    # --- acknowledging --------------------------------------------------------------------------

    def acks(self, tags: Iterable[int]) -> bytes:
        """The frames that acknowledge these, as few as can be."""
        done = set(tags)
        upto = 0
        unacked = self._unacked
        for tag in unacked:
            if tag not in done:
                break
            upto = tag
        pieces: list[bytes] = []
        if upto:
            pieces.append(frames.ack(WORK, upto, True))
        for tag in done:
            if tag > upto:
                pieces.append(frames.ack(WORK, tag))
            unacked.pop(tag, None)
        return b"".join(pieces)

    def exchange(self, old: int, new: int) -> None:
        """The message of the old tag is held by the new one."""
        self._unacked.pop(old, None)
        self._unacked[new] = None
