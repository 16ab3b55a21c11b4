"""How an idle worker waits for messages without taking any.

It is blocked in ``BLMOVE list → front`` for the first list of its first queue: the server wakes
exactly one of those who wait, and the message moves to ``front``, which is nobody's, so that it is
the next claimer's whatever becomes of the one that was woken. For its other lists (priorities,
further queues), pauses and delayed messages that become due sooner it has the server track the
keys (CLIENT TRACKING) and say when one was touched. Then it claims, on another connection.
"""

from __future__ import annotations

import os
import select
import threading
import time

import hiredis

from celeriac.drivers.redis.client import Client
from celeriac.drivers.redis.connection import Connection, forget_after_fork, pack
from celeriac.drivers.redis.errors import refusal
from celeriac.drivers.redis.scripts import Script
from celeriac.drivers.redis.sockets import readable
from celeriac.exceptions import OperationalError

__all__ = ["LOOK_EVERY", "Bell", "Waiter", "WaitingRoom"]

LOOK_EVERY = 10.0
"""Seconds after which a waiter claims again though nobody woke it."""

BLOCKED_FOR = 5.0
"""Seconds after which the server says that there was nothing; else the connection is dead."""

CLOSING = 2.0
"""Seconds that closing waits for those who wait to come back."""


class Bell:
    """Ends every wait of its owner, from any thread."""

    def __init__(self) -> None:
        self.rings = 0
        self._lock = threading.Lock()
        self._ears: set[int] = set()
        forget_after_fork(self)

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._ears.clear()

    def ring(self) -> None:
        with self._lock:
            self.rings += 1
            for ear in self._ears:
                try:
                    os.write(ear, b"\0")
                except BlockingIOError:
                    pass  # it has rung already

    def listen(self) -> Ear:
        return Ear(self)

    def add(self, descriptor: int) -> None:
        with self._lock:
            self._ears.add(descriptor)

    def remove(self, descriptor: int) -> None:
        with self._lock:
            self._ears.discard(descriptor)


class Ear:
    """A descriptor that can be read once the bell has rung."""

    def __init__(self, bell: Bell) -> None:
        self.fd, self._other = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._bell = bell
        bell.add(self._other)

    def clear(self) -> None:
        try:
            while os.read(self.fd, 512):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        self._bell.remove(self._other)
        os.close(self.fd)
        os.close(self._other)


class Waiter:
    """A connection on which one thread waits for some queues."""

    def __init__(self, room: WaitingRoom, queues: tuple[str, ...]) -> None:
        self.queues = queues
        self._room = room
        self.ear = room.bell.listen()
        self._connection: Connection | None = None
        self._blocked_until: float | None = None  # when the server ends our BLMOVE
        self._source = ""
        self.armed = False
        self.claimed_at = 0.0
        self.stopped: frozenset[str] = frozenset()
        self.due_at: float | None = None

    # --- preparing

    def arm(self) -> None:
        """From now on it is seen if one of the other keys is touched: claim once more."""
        connection = self._connection
        if connection is None:
            connection = self._connection = self._room.client.connect(3)
            connection.call(pack(("CLIENT", "TRACKING", "ON")))
        if self._blocked_until is not None:
            self.unblock()
        connection.call(pack(("EXISTS", *self._watched())))
        connection.pushes.clear()
        self.armed = True
        self.claimed_at = -LOOK_EVERY  # what was found before does not count

    def _watched(self) -> list[str]:
        options, base = self._room.client.options, self._room.base
        keys = [f"{base}paused"]
        for number, queue in enumerate(self.queues):
            keys.append(f"{base}sooner:{queue}")
            for step in options.priority_steps:
                if step or number:
                    keys.append(
                        options.prefix + queue + (f"{options.separator}{step}" * bool(step))
                    )
        return keys

    # --- waiting

    def is_fresh(self, now: float) -> bool:
        """Would a claim now find what the last one found: nothing?"""
        return self.armed and now - self.claimed_at < LOOK_EVERY and self._connection is not None

    def sleep(self, seconds: float) -> None:
        """Until there may be something to claim, or the bell rings, or the time is over."""
        connection = self._connection
        assert connection is not None
        deadline = time.monotonic() + min(seconds, LOOK_EVERY)
        poll = select.poll()
        poll.register(connection.socket, select.POLLIN)
        poll.register(self.ear.fd, select.POLLIN)
        while self.armed:
            self._hear(connection)
            left = deadline - time.monotonic()
            if not self.armed or left <= 0:
                return
            if self._blocked_until is None and self.queues[0] not in self.stopped:
                self._block(connection)
            events = poll.poll(left * 1000)
            if any(fd == self.ear.fd for fd, _ in events):
                self.ear.clear()
                return
            self._mind_stalls()

    def _block(self, connection: Connection) -> None:
        options = self._room.client.options
        queue = self.queues[0]
        seconds = BLOCKED_FOR
        connection.send(
            pack(
                (
                    "BLMOVE",
                    options.prefix + queue,
                    f"{self._room.base}front:{queue}",
                    "RIGHT",
                    "LEFT",
                    f"{seconds:.3f}",
                )
            )
        )
        self._blocked_until = time.monotonic() + seconds

    def _hear(self, connection: Connection) -> None:
        """Take in what the server said; ``armed`` is off if it was worth a claim."""
        while not connection.is_nothing(reply := connection.listen()):
            self._blocked_until = None
            if isinstance(reply, hiredis.ReplyError):
                raise refusal(reply, connection.options.shown)
            if reply is not None:
                self.armed = False
        if connection.pushes:
            connection.pushes.clear()
            self.armed = False

    def _mind_stalls(self) -> None:
        until = self._blocked_until
        if (
            until is not None
            and time.monotonic() > until + self._room.client.options.socket_timeout
        ):
            raise OperationalError(
                f"The Redis server of {self._room.client.options.shown} does not answer any more: "
                "the connection on which a worker waits is built anew."
            )

    # --- ending

    def leave(self) -> None:
        """There was something, and there may be more: nothing is known, and nothing held."""
        self.unblock()
        self.armed = False

    def unblock(self) -> None:
        """Wait no more: a message that was moved for this waiter goes back to its list, where it
        wakes another one."""
        connection = self._connection
        if connection is None or self._blocked_until is None:
            return
        unblock = pack(("CLIENT", "UNBLOCK", connection.client_id))
        # Two connections: the server may hear this before it has heard of the BLMOVE.
        while not self._room.client.call(unblock) and not readable(connection.socket, 0.001):
            self._mind_stalls()
        reply = connection.read()
        self._blocked_until = None
        if reply is not None:
            self._room.give_back(self.queues[0])

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self._blocked_until, self.armed = None, False
        if connection is not None:
            connection.close()
        self.ear.close()

    def forget(self) -> None:
        if self._connection is not None:
            self._connection.abandon()


class WaitingRoom:
    """The waiters of one broker object, bounded in number."""

    def __init__(self, client: Client, bell: Bell, unfront: Script, most: int) -> None:
        self.client = client
        self.bell = bell
        self.base = client.base.decode()
        self._unfront = unfront
        self._most = most
        self._lock = threading.Condition()
        self._free: list[Waiter] = []
        self._busy: set[Waiter] = set()
        forget_after_fork(self)

    def forget(self) -> None:
        for waiter in [*self._free, *self._busy]:
            waiter.forget()
        self._lock = threading.Condition()
        self._free, self._busy = [], set()

    def find(self, queues: tuple[str, ...]) -> Waiter | None:
        """One that waited for these queues before, if it is free."""
        if not self._free:
            return None
        with self._lock:
            for waiter in self._free:
                if waiter.queues == queues:
                    self._free.remove(waiter)
                    self._busy.add(waiter)
                    return waiter
        return None

    def take(self, queues: tuple[str, ...]) -> Waiter | None:
        """A new one; None if there are too many: then wait in another way."""
        stale: Waiter | None = None
        with self._lock:
            if len(self._free) + len(self._busy) >= self._most:
                if not self._free:
                    return None
                stale = self._free.pop(0)
            waiter = Waiter(self, queues)
            self._busy.add(waiter)
        if stale is not None:
            self.drop(stale)
        return waiter

    def put_back(self, waiter: Waiter) -> None:
        with self._lock:
            self._busy.discard(waiter)
            self._free.append(waiter)
            self._lock.notify_all()

    def drop(self, waiter: Waiter) -> None:
        """Throw it away, with nothing left behind."""
        try:
            waiter.unblock()
        except OperationalError:
            pass  # what was moved for it is in front, where the next claim finds it
        waiter.close()

    def throw_away(self, waiter: Waiter) -> None:
        """After an error: without a word to the server."""
        with self._lock:
            self._busy.discard(waiter)
            self._lock.notify_all()
        waiter.close()

    def close(self) -> None:
        """The bell has rung: whoever waits comes back at once."""
        with self._lock:
            self._lock.wait_for(lambda: not self._busy, CLOSING)
            free, self._free = self._free, []
        for waiter in free:
            self.drop(waiter)

    def give_back(self, queue: str) -> None:
        options = self.client.options
        self.client.run(self._unfront, options.prefix, queue)
