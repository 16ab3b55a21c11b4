"""Connections: our own few lines of socket code over hiredis, because a client library's path from
a command to its answer costs as much as the command.

A connection that failed in any way, in the middle of an answer too, is thrown away; the next call
builds a new one. In a forked child all are forgotten: what the parent has open is the parent's.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import hiredis

from celeriac.drivers.redis.errors import is_fatal, lost_connection, refusal, unreachable
from celeriac.drivers.redis.options import Address, Options
from celeriac.drivers.redis.scripts import Script
from celeriac.exceptions import ImproperlyConfigured, OperationalError

__all__ = ["Client", "Connection", "NeedsFork", "forget_after_fork", "pack"]

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
            self.socket = _connected(options, address)
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
        if options.password:
            hello += ["AUTH", options.username or "default", options.password]
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


def readable(sock: socket.socket, seconds: float, *others: int) -> bool:
    """Is there something to read on the socket (or one of the other descriptors) by then?"""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    for other in others:
        poll.register(other, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


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


def _connected(options: Options, address: Address | None) -> socket.socket:
    patience = options.socket_connect_timeout
    if options.path:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(patience)
            sock.connect(options.path)
        except BaseException:
            sock.close()
            raise
        sock.settimeout(options.socket_timeout)
        return sock
    host, port = address or options.addresses[0]
    sock = socket.create_connection((host, port), patience)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if options.socket_keepalive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if options.tls is not None:
            sock = _encrypted(sock, host, options)
        sock.settimeout(options.socket_timeout)
    except BaseException:
        sock.close()
        raise
    return sock


def _encrypted(sock: socket.socket, host: str, options: Options) -> socket.socket:
    tls = options.tls
    assert tls is not None
    try:
        context = ssl.create_default_context(cafile=tls.ca_certs)
        if tls.certfile:
            context.load_cert_chain(tls.certfile, tls.keyfile)
    except OSError as error:  # those of TLS are among them
        raise ImproperlyConfigured(
            f"The TLS files of {options.shown} cannot be used: {error}."
        ) from error
    if not tls.check_hostname or tls.cert_reqs != "required":
        context.check_hostname = False
    context.verify_mode = {
        "required": ssl.CERT_REQUIRED,
        "optional": ssl.CERT_OPTIONAL,
        "none": ssl.CERT_NONE,
    }[tls.cert_reqs]
    try:
        return context.wrap_socket(sock, server_hostname=host)
    except TimeoutError as error:
        raise ssl.SSLError("it does not answer the handshake") from error


# --- one connection for many threads


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
        from celeriac.drivers.redis.finding import find_server

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
        clock = self.options.clock
        if clock is not None:
            args = (*args, repr(clock()))
        sha, text = script.at(clock is not None)
        with self.lock:
            connection = self._connected()
            try:
                connection.send(pack((b"EVALSHA", sha, 1, self.base, *args)))
                reply = connection.read()
                if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
                    connection.send(pack((b"EVAL", text, 1, self.base, *args)))
                    reply = connection.read()
            except BaseException:
                self._drop()
                raise
        if isinstance(reply, hiredis.ReplyError):
            self._refuse(reply)
        return reply

    def run_packed(self, script: Script, count: int, packed: bytes) -> Reply:
        """The same with ``count`` ARGV that are packed already, for the path of every task."""
        clock = self.options.clock
        if clock is not None:
            now = repr(clock()).encode()
            count, packed = count + 1, packed + b"$%d\r\n%b\r\n" % (len(now), now)
        sha, text = script.at(clock is not None)
        tail = b"$1\r\n1\r\n$%d\r\n%b\r\n%b" % (len(self.base), self.base, packed)
        data = b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n%b" % (count + 4, sha, tail)
        with self.lock:
            connection = self._connected()
            try:
                connection.send(data)
                reply = connection.read()
                if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
                    head = b"*%d\r\n$4\r\nEVAL\r\n$%d\r\n%b\r\n" % (count + 4, len(text), text)
                    connection.send(head + tail)
                    reply = connection.read()
            except BaseException:
                self._drop()
                raise
        if isinstance(reply, hiredis.ReplyError):
            self._refuse(reply)
        return reply


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
