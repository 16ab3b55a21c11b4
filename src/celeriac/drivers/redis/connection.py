"""Connections: our own few lines of socket code over hiredis, because a client library's path from
a command to its answer costs as much as the command.

A connection that failed in any way, in the middle of an answer too, is thrown away; the next call
builds a new one. In a forked child all are forgotten: what the parent has open is the parent's.
"""

from __future__ import annotations

import os
import ssl
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol, cast

import hiredis

from celeriac.drivers.redis.errors import lost_connection, refusal, unreachable
from celeriac.drivers.redis.options import Address, Options
from celeriac.drivers.redis.sockets import new_socket, readable
from celeriac.exceptions import OperationalError

__all__ = ["Connection", "forget_after_fork", "pack"]

pack: Callable[[tuple[Any, ...]], bytes] = cast(Any, hiredis.pack_command)
"""The bytes of one command."""
Reply = Any

OLDEST = (6, 2)
_NOTHING = object()
_BUFFER = 256 * 1024
_LOOK_AFTER = 1.0  # idle seconds after which a connection is looked at before it is used


class Connection:
    """One socket, logged in and in its database. Not thread-safe. ``protocol`` 3 for those on
    which the server speaks first. Raises OperationalError only."""

    def __init__(self, options: Options, protocol: int = 2, *, address: Address | None = None):
        self.options = options
        self.pushes: list[Any] = []
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._reader: Any = hiredis.Reader(notEnoughData=_NOTHING)
        self.address = address
        try:
            self.socket = new_socket(options, address)
        except OSError as error:
            raise unreachable(error, options.shown, options.socket_connect_timeout) from error
        self.used_at = time.monotonic()
        try:
            self._log_in(protocol)
        except BaseException:
            self.close()
            raise

    def _log_in(self, protocol: int) -> None:
        options = self.options
        hello: list[str | int] = ["HELLO", protocol]
        user, password = options.username, options.password
        if options.credentials is not None:
            user, password = options.credentials()
        if password:
            hello += ["AUTH", user or "default", password]
        try:
            answer = self.call(pack(tuple(hello)))
        except OperationalError as error:
            if "unknown command" in str(error):
                raise OperationalError(_too_old(options.shown, "before 6")) from None
            raise
        self.info = _as_dict(answer)
        version = str(self.info.get("version", "0"))
        numbers = tuple(int(n) for n in version.split(".")[:2] if n.isdigit())
        if numbers < OLDEST:
            raise OperationalError(_too_old(options.shown, version))
        if options.db and self.info.get("mode") != "sentinel":
            self.call(pack(("SELECT", options.db)))
        if options.client_name:
            self.call(pack(("CLIENT", "SETNAME", options.client_name)))

    @property
    def client_id(self) -> int:
        return int(self.info["id"])

    # --- calls

    def call(self, data: bytes) -> Reply:
        """One command and its answer. Raises Refused for an error of the server."""
        self.send(data)
        reply = self.read()
        if isinstance(reply, hiredis.ReplyError):
            raise refusal(reply, self.options.shown)
        return reply

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise self._lost(error) from error

    def read(self) -> Reply:
        """The next answer, errors as values. What the server says unasked goes to ``pushes``."""
        gets = self._reader.gets
        while True:
            reply = gets()
            while reply is _NOTHING:
                self._receive()
                reply = gets()
            if isinstance(reply, hiredis.PushNotification):
                self.pushes.append(reply)
                continue
            return reply

    def listen(self) -> Reply:
        """What is there without waiting: an answer, or None when there is none (yet)."""
        while True:
            try:
                reply = self._reader.gets()
            except hiredis.HiredisError as error:
                raise self._lost(error) from error
            if reply is _NOTHING:
                if not self._pending() and not readable(self.socket, 0.0):
                    return _NOTHING
                self._receive()
            elif isinstance(reply, hiredis.PushNotification):
                self.pushes.append(reply)
            else:
                return reply

    @staticmethod
    def is_nothing(reply: Reply) -> bool:
        return reply is _NOTHING

    def _receive(self) -> None:
        try:
            count = self.socket.recv_into(self._buffer)
            if count == 0:
                raise ConnectionResetError("the server closed it")
            self._reader.feed(self._view[:count])
        except (OSError, hiredis.HiredisError) as error:
            raise self._lost(error) from error

    def _pending(self) -> bool:
        """Bytes that TLS has read already are not seen by poll."""
        return isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0

    def _lost(self, error: BaseException) -> OperationalError:
        self.close()
        return lost_connection(error, self.options.shown, self.options.socket_timeout)

    # --- life

    def looks_alive(self) -> bool:
        """False if the server has hung up since it was used last."""
        now = time.monotonic()
        idle, self.used_at = now - self.used_at, now
        # Nothing is expected: what can be read is the end.
        return idle < _LOOK_AFTER or not readable(self.socket, 0.0)

    def close(self) -> None:
        sock = getattr(self, "socket", None)
        if sock is not None:
            sock.close()

    def abandon(self) -> None:
        """In a forked child: close this process's copy without a word to the server."""
        try:
            os.close(self.socket.detach())
        except OSError:
            pass  # it was closed


def _as_dict(answer: Reply) -> dict[str, Any]:
    if not isinstance(answer, dict):
        answer = dict(zip(answer[::2], answer[1::2], strict=True))
    return {
        key.decode(): value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for key, value in answer.items()
    }


def _too_old(shown: str, version: str) -> str:
    return (
        f"The server of {shown} is of version {version}; Celeriac needs Redis 6.2 or later, or "
        "Valkey."
    )


# --- forks


class NeedsFork(Protocol):
    def forget(self) -> None: ...


_forgetting: weakref.WeakSet[Any] = weakref.WeakSet()


def forget_after_fork(thing: NeedsFork) -> None:
    """Call its ``forget`` in every forked child."""
    _forgetting.add(thing)


def _in_child() -> None:
    for thing in list(_forgetting):
        thing.forget()


os.register_at_fork(after_in_child=_in_child)
