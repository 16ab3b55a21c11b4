"""One connection for commands that are answered at once, for all threads of a process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import hiredis

from celeriac.drivers.redis.connection import Connection, forget_after_fork, pack
from celeriac.drivers.redis.errors import IS_FULL, is_fatal, refusal
from celeriac.drivers.redis.finding import find_server
from celeriac.drivers.redis.options import Options
from celeriac.drivers.redis.scripts import Script

__all__ = ["Client"]

Reply = Any


class Client:
    """A connection for commands that are answered at once, for all threads of a process."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.base = f"{options.prefix}celeriac:".encode()
        self.forget()
        forget_after_fork(self)

    def forget(self) -> None:
        """Begin anew, without a word to the server: what was open is another process's."""
        old: Connection | None = getattr(self, "_connection", None)
        if old is not None:
            old.abandon()
        self.lock = threading.Lock()
        self._connection: Connection | None = None

    def connect(self, protocol: int = 2) -> Connection:
        """A new connection to wherever the data is now."""
        return find_server(self.options, protocol)

    def open(self) -> dict[str, Any]:
        """Connect now; what the server said of itself."""
        with self.lock:
            return self._connected().info

    def close(self) -> None:
        with self.lock:
            self._drop()

    def _connected(self) -> Connection:
        """The lock is held."""
        connection = self._connection
        if connection is not None:
            if connection.looks_alive():
                return connection
            self._drop()
        connection = self._connection = self.connect()
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def call(self, data: bytes) -> Reply:
        """One packed command and its answer."""
        with self.lock:
            connection = self._connected()
            try:
                connection.send(data)
                reply = connection.read()
            except BaseException:  # an answer may be under way: it is nobody's
                self._drop()
                raise
        if isinstance(reply, hiredis.ReplyError):
            self._refuse(reply)
        return reply

    def pipeline(self, commands: Sequence[bytes]) -> list[Reply]:
        """Several, in one round trip; raises for the first that was refused."""
        with self.lock:
            connection = self._connected()
            try:
                connection.send(b"".join(commands))
                replies = [connection.read() for _ in commands]
            except BaseException:
                self._drop()
                raise
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                self._refuse(reply)
        return replies

    def _refuse(self, reply: BaseException) -> None:
        error = refusal(reply, self.options.shown)
        if is_fatal(error.code):
            self.close()
        raise error

    def run(self, script: Script, *args: Any) -> Reply:
        """A script; ``args`` are its ARGV, text, bytes or whole numbers."""
        # The count of what is packed comes first: "*3\r\n".
        packed = pack(args) if args else b"*0\r\n"
        return self.run_packed(script, len(args), packed[packed.index(b"\n") + 1 :])

    def run_packed(self, script: Script, count: int, packed: bytes) -> Reply:
        """The same with ``count`` ARGV that are packed already, for the path of every task."""
        clock = self.options.clock
        if clock is not None:
            now = repr(clock()).encode()
            count, packed = count + 1, packed + b"$%d\r\n%b\r\n" % (len(now), now)
        rest = b"$1\r\n1\r\n$%d\r\n%b\r\n%b" % (len(self.base), self.base, packed)
        with self.lock:
            connection = self._connected()
            try:
                reply = _evaluated(connection, script.at(clock is not None), count, rest)
                if (
                    script.drains
                    and isinstance(reply, hiredis.ReplyError)
                    and IS_FULL in str(reply)
                ):
                    reply = _evaluated(connection, script.when_full(clock is not None), count, rest)
            except BaseException:
                self._drop()
                raise
        if isinstance(reply, hiredis.ReplyError):
            self._refuse(reply)
        return reply


def _evaluated(connection: Connection, form: tuple[bytes, bytes], count: int, rest: bytes) -> Reply:
    """What the script answers; the server is told its text if it does not know it (any more)."""
    sha, text = form
    connection.send(b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n%b" % (count + 4, sha, rest))
    reply = connection.read()
    if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
        head = b"*%d\r\n$4\r\nEVAL\r\n$%d\r\n%b\r\n" % (count + 4, len(text), text)
        connection.send(head + rest)
        reply = connection.read()
    return reply
