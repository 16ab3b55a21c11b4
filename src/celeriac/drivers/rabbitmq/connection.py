"""One connection to RabbitMQ: the socket, the handshake, calls and their answers.

Not thread-safe: whoever uses it holds the lock of its owner. After any error of the transport it
is dead, and stays so: its owner throws it away and makes another.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from celeriac.drivers.rabbitmq import frames
from celeriac.drivers.rabbitmq.dialing import dial, introduction, reason
from celeriac.drivers.rabbitmq.errors import (
    ChannelClosed,
    NothingTaken,
    Refused,
    Unreachable,
    refusal,
)
from celeriac.drivers.rabbitmq.frames import Content, Method
from celeriac.drivers.rabbitmq.tables import decode_table, short
from celeriac.drivers.rabbitmq.urls import Endpoint, Options
from celeriac.exceptions import DecodeError, OperationalError

WORK: Final = 1  # the channel of messages
SIDE: Final = 2  # the channel of declarations and questions: an error there closes only it
NOTES: Final = 3  # the channel of the stream of notes
BROWSE: Final = 4  # the channel of looking at dead letters

_FRAME_MAX: Final = 131072
_RECEIVE: Final = 262144
_SILENCE: Final = 15.0  # seconds


class Connection:
    """Open after construction, with the channel WORK in confirm mode.

    ``deliveries``: contents that came in and were not fetched yet; ``asides``: those of consumers
    that are no claim's. ``returned``: messages that no
    queue wanted. ``cancelled``: consumer tags that the server gave up (a deleted queue).
    """

    def __init__(self, options: Options, name: str) -> None:
        self.options = options
        self.deliveries: deque[Content] = deque()
        self.asides: dict[str, deque[Content]] = {
            name: deque() for name in ("notes", "guard", "browse")
        }
        self.returned: list[Content] = []
        self.cancelled: list[str] = []
        self.blocked = ""
        self.alive = False
        self.published = 0  # messages sent on WORK
        self.confirmed = 0  # all up to this one are
        self.refused = False  # the server did not take one of them
        self.taken = False  # it took one since this was last set to False
        self.heard = time.monotonic()  # when something came last
        self._ahead: set[int] = set()
        self._splitter = frames.Splitter()
        self._answers: dict[int, deque[Method | Content]] = {
            channel: deque() for channel in range(5)
        }
        self._errors: dict[int, ChannelClosed] = {}
        self._open_channels: set[int] = set()
        self._name = name
        self.frame_max = _FRAME_MAX
        self.server: Mapping[str, Any] = {}
        self.endpoint, self._socket = self._reach()
        self._poller = select.poll()
        self._poller.register(self._socket, select.POLLIN)

    @property
    def version(self) -> tuple[int, ...]:
        """The server's, as (3, 10, 8)."""
        parts = str(self.server.get("version", "0")).split(".")
        return tuple(int(part) for part in parts[:3] if part.isdigit())

    def fileno(self) -> int:
        return self._socket.fileno()

    # --- connecting -----------------------------------------------------------------------------

    def _reach(self) -> tuple[Endpoint, socket.socket]:
        """The first server that takes us. Raises the error of each, if none does."""
        errors: list[OperationalError] = []
        for endpoint in self.options.endpoints:
            try:
                self.endpoint = endpoint
                self._socket = dial(endpoint, self.options)
                self._handshake(endpoint)
                return endpoint, self._socket
            except OperationalError as exc:
                self._drop()
                errors.append(exc)
        if len(errors) == 1:
            raise errors[0]
        raise Unreachable(" ".join(str(error) for error in errors))

    def _handshake(self, endpoint: Endpoint) -> None:
        """From the protocol header to the open channel. Heartbeats are off: a task that holds the
        interpreter for long must not cost the connection; the kernel's keepalive watches it."""
        self._splitter = frames.Splitter()
        self._poller = select.poll()
        self._poller.register(self._socket, select.POLLIN)
        self.alive = True
        deadline = time.monotonic() + self.options.connect_timeout
        try:
            self.send(frames.PROTOCOL)
            start = self._await(0, (frames.START,), deadline)
            self.server, at = decode_table(start.arguments, 2)
            length = int.from_bytes(start.arguments[at : at + 4], "big")
            offered = start.arguments[at + 4 : at + 4 + length].decode().split()
            self.send(introduction(endpoint, self.options, self._name, offered))
            tune = self._await(0, (frames.TUNE,), deadline)
            self._tune(tune.arguments)
            self._call(0, frames.OPEN, short(endpoint.vhost) + b"\x00\x00", frames.OPEN_OK)
            self._open_channel(WORK)
            self._call(WORK, frames.CONFIRM_SELECT, b"\x00", frames.CONFIRM_SELECT_OK)
        except Refused as exc:
            raise refusal(endpoint, exc) from exc
        except (OperationalError, DecodeError) as exc:
            raise Unreachable(f"RabbitMQ at {endpoint.name} did not let us in: {exc}") from exc

    def _tune(self, arguments: bytes) -> None:
        offered = int.from_bytes(arguments[2:6], "big")
        self.frame_max = min(offered or _FRAME_MAX, _FRAME_MAX)
        channels = int.from_bytes(arguments[:2], "big") or 2047
        answer = channels.to_bytes(2, "big") + self.frame_max.to_bytes(4, "big") + b"\x00\x00"
        self.send(frames.method(0, frames.TUNE_OK, answer))

    def _open_channel(self, channel: int) -> None:
        self._errors.pop(channel, None)
        self._answers[channel].clear()
        self._call(channel, frames.CHANNEL_OPEN, b"\x00", frames.CHANNEL_OPEN_OK)
        self._open_channels.add(channel)

    # --- calls ----------------------------------------------------------------------------------

    def call(
        self, kind: tuple[int, int], arguments: bytes, *answers: tuple[int, int], on: int = SIDE
    ) -> Method:
        """Send a method and wait for its answer. Raises ChannelClosed if the server refuses, and
        OperationalError if it does not answer in time."""
        if on not in self._open_channels:
            self._open_channel(on)
        return self._call(on, kind, arguments, *answers)

    def _call(
        self, channel: int, kind: tuple[int, int], arguments: bytes, *answers: tuple[int, int]
    ) -> Method:
        self.send(frames.method(channel, kind, arguments))
        return self._await(channel, answers, time.monotonic() + self.options.timeout)

    def _await(self, channel: int, kinds: Sequence[tuple[int, int]], deadline: float) -> Method:
        waiting = self._answers[channel]
        while True:
            while waiting:
                answer = waiting.popleft()
                if isinstance(answer, Method) and answer.kind in kinds:
                    return answer
            self._check(channel)
            self._read_until(deadline, "answer")

    def close_channel(self, channel: int) -> None:
        """What was delivered there and not acknowledged is the server's again."""
        if channel in self._open_channels and self.alive:
            goodbye = (200).to_bytes(2, "big") + short("") + b"\x00\x00\x00\x00"
            self._open_channels.discard(channel)
            self._call(channel, frames.CHANNEL_CLOSE, goodbye, frames.CHANNEL_CLOSE_OK)

    def answer(self, channel: int, kind: tuple[int, int]) -> Method:
        """Wait for the answer to what was sent before."""
        return self._await(channel, (kind,), time.monotonic() + self.options.timeout)

    def get(self, queue: str) -> Content | None:
        """Take one message without consuming, to be acknowledged on WORK."""
        arguments = b"\x00\x00" + short(queue) + b"\x00"
        self._check(WORK)
        self.send(frames.method(WORK, frames.GET, arguments))
        deadline = time.monotonic() + self.options.timeout
        waiting = self._answers[WORK]
        while True:
            while waiting:
                answer = waiting.popleft()
                if isinstance(answer, Content):
                    return answer
                if answer.kind == frames.GET_EMPTY:
                    return None
            self._check(WORK)
            self._read_until(deadline, "answer")

    # --- confirms -------------------------------------------------------------------------------

    def await_confirms(self) -> None:
        """Until everything published is the server's. Raises OperationalError after the time."""
        deadline = time.monotonic() + self.options.timeout
        while self.confirmed < self.published:
            self._check(WORK)
            self._read_until(deadline, "confirm")
        if self.refused:
            self.refused = False
            error = Unreachable if self.taken else NothingTaken
            raise error(
                f"{self.endpoint.name} did not take a message: a queue is full (x-overflow "
                "reject-publish), or its node has a problem; see the server's log."
            )

    def _confirm(self, tag: int, multiple: bool) -> None:
        if multiple:
            self.confirmed = max(self.confirmed, tag)
        elif tag == self.confirmed + 1:
            self.confirmed = tag
        else:
            self._ahead.add(tag)
        ahead = self._ahead
        if ahead:
            while self.confirmed + 1 in ahead:
                self.confirmed += 1
                ahead.discard(self.confirmed)
            if multiple:
                self._ahead = {one for one in ahead if one > self.confirmed}

    # --- the socket -----------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write all. Raises OperationalError, after which the connection is dead."""
        try:
            self._socket.settimeout(self.options.timeout)
            self._socket.sendall(data)
        except OSError as exc:
            self._peek_forreason()
            self._dead(exc)

    def _peek_forreason(self) -> None:
        """What the server said before it went, or stopped reading."""
        try:
            while self.alive and self.read(0.0):
                pass
        except OperationalError:
            raise
        except OSError:
            return

    def read(self, timeout: float) -> bool:
        """Take in what has come, waiting up to ``timeout`` seconds for something; was there
        something? Raises OperationalError if the connection has ended."""
        if not self._pending() and not self._poller.poll(timeout * 1000):
            return False
        try:
            data = self._socket.recv(_RECEIVE)
        except ssl.SSLWantReadError:
            return False
        except OSError as exc:
            self._dead(exc)
        if not data:
            self._dead(ConnectionError("the server closed the connection"))
        self.heard = time.monotonic()
        self._take(data)
        return True

    def probe(self) -> None:
        """Have the server answer. Raises OperationalError if it does not, within its time."""
        self.call(frames.QOS, b"\x00\x00\x00\x00\x00\x00\x00", frames.QOS_OK)

    @property
    def silent(self) -> bool:
        """Has nothing come for so long that whoever waits should make sure of the server?"""
        return time.monotonic() - self.heard > _SILENCE

    def _pending(self) -> bool:
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def _read_until(self, deadline: float, what: str) -> None:
        if self.read(max(0.0, deadline - time.monotonic())):
            return
        if time.monotonic() < deadline:
            return
        if self.blocked:
            reason = (
                f"it takes no messages just now ({self.blocked}): free memory or disk on the "
                "server, or raise its limits"
            )
        else:
            reason = f"no {what} came within {self.options.timeout:g} s"
        self._drop()
        raise Unreachable(f"RabbitMQ at {self.endpoint.name}: {reason}.")

    def _dead(self, exc: Exception) -> None:
        self._drop()
        raise Unreachable(
            f"The connection to RabbitMQ at {self.endpoint.name} broke: {reason(exc)}."
        ) from exc

    def _drop(self) -> None:
        self.alive = False
        sock: socket.socket | None = getattr(self, "_socket", None)
        if sock is not None:
            sock.close()

    def close(self) -> None:
        """Say goodbye, if there is somebody to say it to."""
        if self.alive:
            try:
                goodbye = (200).to_bytes(2, "big") + short("") + b"\x00\x00\x00\x00"
                self.send(frames.method(0, frames.CLOSE, goodbye))
                self._await(0, (frames.CLOSE_OK,), time.monotonic() + 1.0)
            except (OperationalError, DecodeError, ChannelClosed):
                pass  # it is closed either way
        self._drop()

    def abandon(self) -> None:
        """In a forked child: the connection is the parent's; only this copy of it goes."""
        self._drop()

    # --- what came in ---------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        try:
            found = self._splitter.feed(data)
        except (ValueError, LookupError) as exc:
            self._dead(exc)
        for one in found:
            if isinstance(one, Content):
                if one.consumer:
                    self.asides.get(one.consumer, self.deliveries).append(one)
                elif one.reply:
                    self.returned.append(one)
                else:
                    self._answers[WORK].append(one)
            else:
                self._heed(one)

    def _heed(self, came: Method) -> None:
        kind = came.kind
        if kind in (frames.ACK, frames.NACK):
            tag = int.from_bytes(came.arguments[:8], "big")
            self.refused = self.refused or kind == frames.NACK
            self.taken = self.taken or kind != frames.NACK
            self._confirm(tag, bool(came.arguments[8] & 1))
        elif kind == frames.CANCEL:
            self.cancelled.append(frames.short_at(came.arguments, 0)[0])
        elif kind == frames.BLOCKED:
            self.blocked = frames.short_at(came.arguments, 0)[0] or "blocked"
        elif kind == frames.UNBLOCKED:
            self.blocked = ""
        elif kind == frames.CHANNEL_CLOSE:
            self._channel_closed(came)
        elif kind == frames.CLOSE:
            code = int.from_bytes(came.arguments[:2], "big")
            text = frames.short_at(came.arguments, 2)[0]
            self._drop()
            raise Refused(code, text, self.endpoint.name)
        else:
            self._answers[came.channel].append(came)

    def _channel_closed(self, came: Method) -> None:
        code = int.from_bytes(came.arguments[:2], "big")
        text = frames.short_at(came.arguments, 2)[0]
        self._open_channels.discard(came.channel)
        self._errors[came.channel] = ChannelClosed(code, text)
        self.send(frames.method(came.channel, frames.CHANNEL_CLOSE_OK))

    def _check(self, channel: int) -> None:
        error = self._errors.get(channel)
        if error is None:
            return
        if channel == WORK:  # consumers and unconfirmed messages went with it
            self._drop()
            raise Unreachable(
                f"RabbitMQ at {self.endpoint.name} closed the channel: {error}."
            ) from error
        del self._errors[channel]
        raise error


def connection_name(role: str) -> str:
    return f"celeriac {role} {os.getpid()}@{socket.gethostname()}"
