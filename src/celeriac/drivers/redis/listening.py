"""Many threads that wait for results, one connection: the one of them that leads reads it.

On one connection (RESP3) the subscription is asked for first and the value read next, so that
nothing falls between; and once in a while the values are read again, in case a message was lost.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import Sequence

import hiredis

from celeriac.drivers.redis.client import Client
from celeriac.drivers.redis.connection import Connection, forget_after_fork, pack
from celeriac.drivers.redis.documents import META, decode_record, needs_notes
from celeriac.drivers.redis.errors import refusal
from celeriac.drivers.redis.sockets import readable
from celeriac.exceptions import OperationalError
from celeriac.message import TaskRecord

__all__ = ["ResultListener"]

LOOK_EVERY = 5.0
"""Seconds after which the values are read again though nothing was said."""
FORGOTTEN_AT_ONCE = 100
_AT_ONCE = 1000


class _Waiter:
    """``bell`` is a lock that is taken while there is nothing to tell."""

    __slots__ = ("bell", "found", "ids")

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = dict.fromkeys(ids)
        self.found: dict[str, TaskRecord] = {}
        self.bell = threading.Lock()
        self.bell.acquire()


class ResultListener:
    """``prefix`` stands before every key and channel."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._head = prefix + META
        self._patience = client.options.socket_timeout
        self.forget()
        forget_after_fork(self)

    def forget(self) -> None:
        old: Connection | None = getattr(self, "_connection", None)
        if old is not None:
            old.abandon()
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._waiters: dict[int, _Waiter] = {}
        self._counts: dict[str, int] = {}
        # When, for which ids, and whether the answer is the last one of the same question.
        self._asked: deque[tuple[float, list[str], bool]] = deque()
        self._gathered: list[tuple[str, bytes]] = []  # answers to a question that has more to come
        self._unwanted: set[str] = set()
        self._subscribed: set[str] = set()
        self._leader: int | None = None
        self._wakes = 0
        self._closed = False
        self._looked_at = 0.0
        pipe: tuple[int, int] | None = getattr(self, "_pipe", None)
        if pipe is not None:
            for end in pipe:
                os.close(end)
        self._pipe: tuple[int, int] | None = None

    def open(self) -> None:
        self._closed = False

    def close(self) -> None:
        """Every wait returns with what it has: nothing."""
        self._closed = True
        self.wake()
        with self._lock:
            if self._leader is None:
                self._put_away()

    def wake(self) -> None:
        """Every wait that is under way returns with what it has."""
        self._wakes += 1
        with self._lock:
            for waiter in self._waiters.values():
                _ring(waiter)
            self._rouse()

    def _rouse(self) -> None:
        """The leader looks up. The lock is held."""
        if self._pipe is not None:
            try:
                os.write(self._pipe[1], b"\0")
            except BlockingIOError:
                pass  # it was roused already

    # --- waiting

    def wait(self, ids: Sequence[str], timeout: float) -> list[TaskRecord]:
        deadline = time.monotonic() + timeout
        waiter = _Waiter(ids)
        key = id(waiter)
        wakes = self._wakes
        with self._lock:
            self._waiters[key] = waiter
            for task in waiter.ids:
                self._counts[task] = self._counts.get(task, 0) + 1
                self._unwanted.discard(task)
            leads = self._leader is None
            if leads:
                self._leader = key
            elif self._connection is not None:
                try:
                    self._ask(self._connection, list(waiter.ids))
                except OperationalError:
                    self._drop()  # the leader builds a new one and asks for all
                    self._rouse()
        try:
            if leads and self._connection is not None:
                self._ask_for_own(waiter)
            while not waiter.found and not self._closed and self._wakes == wakes:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                if leads:
                    self._lead(waiter, deadline, wakes)
                    break
                waiter.bell.acquire(timeout=min(left, threading.TIMEOUT_MAX))
                leads = self._leader == key
        finally:
            self._leave(key, waiter)
        return list(waiter.found.values())

    def _lead(self, own: _Waiter, deadline: float, wakes: int) -> None:
        """Read for all, until the own ones are there."""
        delay = 0.05
        while not self._closed and self._wakes == wakes and not own.found:
            left = deadline - time.monotonic()
            try:
                connection = self._connected()
                self._hear(connection)
                if own.found or left <= 0:
                    return
                now = time.monotonic()
                if now - self._looked_at > LOOK_EVERY:
                    with self._lock:
                        self._looked_at = now
                        self._ask(connection, list(self._counts))
                self._mind_stalls(now)
                pipe = self._pipe_made()
                until = min(left, LOOK_EVERY, self._patience)
                if readable(connection.socket, until, pipe[0]):
                    _drain(pipe[0])
                delay = 0.05
            except OperationalError:
                with self._lock:
                    self._drop()
                left = deadline - time.monotonic()
                if left <= 0 or self._closed:
                    raise
                time.sleep(min(left, delay * random.uniform(0.5, 1.0)))
                delay = min(delay * 2, 1.0)

    def _ask_for_own(self, waiter: _Waiter) -> None:
        """The connection may have been idle for long: look at it before."""
        with self._lock:
            connection = self._connection
            if connection is None:
                return
            try:
                self._ask(connection, list(waiter.ids))
            except OperationalError:
                self._drop()

    def _leave(self, key: int, waiter: _Waiter) -> None:
        """The leader leaves its place to somebody who still waits."""
        with self._lock:
            self._waiters.pop(key, None)
            for task in waiter.ids:
                count = self._counts[task] - 1
                if count:
                    self._counts[task] = count
                else:
                    del self._counts[task]
                    self._unwanted.add(task)
            if self._leader != key:
                return
            self._leader = None
            for other, waiting in self._waiters.items():
                if not waiting.found:
                    self._leader = other
                    _ring(waiting)
                    return
            if self._closed:
                self._put_away()

    # --- the connection

    def _connected(self) -> Connection:
        """For the leader. Who came meanwhile is asked for too."""
        connection = self._connection
        if connection is not None:
            return connection
        connection = self._client.connect(3)
        with self._lock:
            self._connection = connection
            self._asked.clear()
            self._gathered = []
            self._subscribed.clear()
            self._unwanted.clear()
            self._ask(connection, list(self._counts))
            self._looked_at = time.monotonic()
        return connection

    def _drop(self) -> None:
        """The lock is held."""
        connection, self._connection = self._connection, None
        self._asked.clear()
        self._gathered = []
        if connection is not None:
            connection.close()

    def _put_away(self) -> None:
        """When closed, by the last one who used it. The lock is held."""
        self._drop()
        pipe, self._pipe = self._pipe, None
        for end in pipe or ():
            os.close(end)

    def _ask(self, connection: Connection, ids: Sequence[str]) -> None:
        """Subscribe to the ids and read what is there already. The lock is held."""
        commands = []
        if len(self._unwanted) > FORGOTTEN_AT_ONCE:
            old = self._unwanted & self._subscribed
            if old:
                commands.append(pack(("UNSUBSCRIBE", *(self._head + task for task in old))))
            self._subscribed -= old
            self._unwanted.clear()
        for at in range(0, len(ids), _AT_ONCE):
            some = list(ids[at : at + _AT_ONCE])
            new = [self._head + task for task in some if task not in self._subscribed]
            if new:
                commands.append(pack(("SUBSCRIBE", *new)))
                self._subscribed.update(some)
            commands.append(pack(("MGET", *(self._head + task for task in some))))
            self._asked.append((time.monotonic(), some, at + _AT_ONCE >= len(ids)))
        if commands:
            connection.send(b"".join(commands))

    def _hear(self, connection: Connection) -> None:
        """Hand out what the server has said. For the leader."""
        found: list[tuple[str, bytes]] = []
        while not connection.is_nothing(reply := connection.listen()):
            if isinstance(reply, hiredis.ReplyError):
                raise refusal(reply, connection.options.shown)
            with self._lock:
                _, ids, last = self._asked.popleft()
            there = [(task, value) for task, value in zip(ids, reply, strict=True) if value]
            self._gathered += there
            if last:  # who asked for many is told of all that are ready
                found += self._gathered
                self._gathered = []
        for push in connection.pushes:
            if push[0] == b"message":
                task = push[1].decode("utf-8", "surrogatepass").removeprefix(self._head)
                found.append((task, push[2]))
        connection.pushes.clear()
        if found:
            self._tell(found)

    def _tell(self, found: Sequence[tuple[str, bytes]]) -> None:
        records = []
        for task, value in found:
            if task in self._counts:
                beside = self._beside(task) if needs_notes(value) else None
                records.append(decode_record(task, value, beside))
        now = self._client.options.now()
        ready = {
            record.id: record
            for record in records
            if record.ready and (record.expires_at is None or record.expires_at > now)
        }
        with self._lock:
            for waiter in self._waiters.values():
                mine = {task: ready[task] for task in waiter.ids.keys() & ready.keys()}
                if mine:
                    waiter.found.update(mine)
                    _ring(waiter)

    def _beside(self, task: str) -> bytes | None:
        return self._client.call(pack(("GET", f"{self._head}{task}.celeriac")))  # type: ignore[no-any-return]

    def _mind_stalls(self, now: float) -> None:
        if self._asked and now - self._asked[0][0] > self._patience:
            raise OperationalError(
                f"The Redis server of {self._client.options.shown} does not answer: the connection "
                "on which results are waited for is built anew."
            )

    def _pipe_made(self) -> tuple[int, int]:
        pipe = self._pipe
        if pipe is None:
            pipe = self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        return pipe


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 512):
            pass
    except BlockingIOError:
        pass


def _ring(waiter: _Waiter) -> None:
    if waiter.bell.locked():
        waiter.bell.release()
