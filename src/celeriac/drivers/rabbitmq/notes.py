"""What every worker must know of single tasks: that they were cancelled, or how they ended.

A stream (``celeriac.notes``) that each process reads from its beginning: RabbitMQ's own log, which
many can read, and which outlives them all. Old notes go by age.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from celeriac.drivers.rabbitmq import frames
from celeriac.drivers.rabbitmq.connection import NOTES, Connection
from celeriac.drivers.rabbitmq.errors import ChannelClosed
from celeriac.drivers.rabbitmq.tables import encode_table, short
from celeriac.exceptions import OperationalError
from celeriac.message import Cancelled

logger = logging.getLogger("celeriac.drivers.rabbitmq")

STREAM: Final = "celeriac.notes"
CONSUMER: Final = "notes"
_ARGUMENTS: Final = {
    "x-queue-type": "stream",
    "x-max-age": "7D",
    "x-stream-max-segment-size-bytes": 500_000,  # what is old goes segment by segment
}
_WINDOW: Final = 500
_QUIET: Final = 0.03  # seconds without a note after which all old ones are read
_READING: Final = 3.0  # seconds for reading the old ones, at most
ENDED_KEPT: Final = 120.0  # seconds that a process's end is told of
_TOLD: Final = 120.0  # seconds that a heartbeat tells of a cancellation
_MOST: Final = 1_000_000
_TRIES, _PAUSE, _AGAIN = 5, 0.1, 10.0  # seconds


class Note(msgspec.Struct, omit_defaults=True):
    """One entry of the stream. ``cancel`` and ``ended`` are task ids."""

    cancel: list[str] = []
    until: float = 0.0
    terminate: bool = False
    signal: str = "SIGTERM"
    ended: list[str] = []
    why: str = ""
    limit: float = 0.0
    at: float = 0.0


_decode = msgspec.json.Decoder(Note).decode


class Notes:
    """What one process has read. It outlives connections: each reads on where the last was."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._offset: int | str = "first"
        self._connection: Connection | None = None
        self._unacked = 0
        self.cancelled: dict[str, Note] = {}
        self.ended: dict[str, Note] = {}
        self._swept = 0.0
        self._failed = 0.0  # when following was given up

    def follow(self, connection: Connection) -> None:
        """Read what is noted, on this connection; at first all that is there."""
        if self._connection is connection:
            if self._failed and time.monotonic() > self._failed + _AGAIN:
                self._begin(connection)
            self._take_in(connection)
            return
        self._connection = connection
        if not self._begin(connection):
            return
        deadline = time.monotonic() + _READING
        while time.monotonic() < deadline:
            if not connection.read(_QUIET):
                break
            self._take_in(connection)
        self._take_in(connection)

    def _begin(self, connection: Connection) -> bool:
        """Follow the stream from where we are; can it be followed?"""
        closed: ChannelClosed | None = None
        for _ in range(_TRIES):
            try:
                self.declare(connection)
                self._consume(connection)
                self._failed = 0.0
                return True
            except ChannelClosed as exc:  # a stream that is just being made is not ready at once
                closed = exc
                time.sleep(_PAUSE)
        if not self._failed:
            logger.warning(
                "The stream %s of RabbitMQ at %s cannot be read (%s): cancelled tasks are not "
                "known here until it can. Is its feature flag stream_queue enabled?",
                STREAM,
                connection.endpoint.name,
                closed,
            )
        self._failed = time.monotonic()
        return False

    def declare(self, connection: Connection) -> None:
        """Raises ChannelClosed where there are no streams."""
        data = b"\x00\x00" + short(STREAM) + b"\x02" + encode_table(_ARGUMENTS)
        connection.call(frames.QUEUE_DECLARE, data, frames.QUEUE_DECLARE_OK)

    def _consume(self, connection: Connection) -> None:
        qos = b"\x00\x00\x00\x00" + _WINDOW.to_bytes(2, "big") + b"\x00"
        connection.call(frames.QOS, qos, frames.QOS_OK, on=NOTES)
        arguments: dict[str, Any] = {"x-stream-offset": self._offset}
        data = b"\x00\x00" + short(STREAM) + short(CONSUMER) + b"\x00" + encode_table(arguments)
        connection.call(frames.CONSUME, data, frames.CONSUME_OK, on=NOTES)

    def _take_in(self, connection: Connection) -> None:
        came = connection.asides.get(CONSUMER)
        last = 0
        while came:
            content = came.popleft()
            last = content.tag
            offset = content.properties.headers.get("x-stream-offset")
            if isinstance(offset, int):
                self._offset = offset + 1
            try:
                self._note(_decode(content.body))
            except msgspec.DecodeError:
                logger.warning("The stream %s holds what is no note", STREAM)
        if last:
            connection.send(frames.ack(NOTES, last, True))
            self._sweep()

    def _note(self, note: Note) -> None:
        now = self._clock()
        if note.until > now:
            for id in note.cancel:
                old = self.cancelled.get(id)
                if old is not None and old.until > now:  # never shorter, never taken back
                    wish = old if old.terminate and not note.terminate else note
                    note = msgspec.structs.replace(
                        note,
                        until=max(old.until, note.until),
                        terminate=wish.terminate,
                        signal=wish.signal,
                    )
                self.cancelled[id] = note
        if note.at + ENDED_KEPT > now:
            for id in note.ended:
                self.ended[id] = note

    def _sweep(self) -> None:
        now = self._clock()
        if now - self._swept < 60.0 and len(self.cancelled) < _MOST:
            return
        self._swept = now
        self.cancelled = {id: n for id, n in self.cancelled.items() if n.until > now}
        self.ended = {id: n for id, n in self.ended.items() if n.at + ENDED_KEPT > now}

    # --- questions ------------------------------------------------------------------------------

    def is_cancelled(self, id: str) -> bool:
        note = self.cancelled.get(id)
        return note is not None and note.until > self._clock()

    def recent(self) -> tuple[Cancelled, ...]:
        """What was cancelled lately, whoever may be running it."""
        now = self._clock()
        return tuple(
            Cancelled(id=id, terminate=note.terminate, signal=note.signal)
            for id, note in self.cancelled.items()
            if note.until > now and note.at + _TOLD > now
        )

    def end_of(self, id: str) -> str:
        """How the process that ran the task was ended on purpose, as the note of a delivery."""
        note = self.ended.pop(id, None)
        if note is None or note.at + ENDED_KEPT < self._clock():
            return ""
        return f"ended {note.why} {note.limit!r}"


def cancel_note(ids: Sequence[str], until: float, terminate: bool, signal: str, at: float) -> bytes:
    note = Note(cancel=list(ids), until=until, terminate=terminate, signal=signal, at=at)
    return msgspec.json.encode(note)


def ended_note(ids: Sequence[str], why: str, limit: float, at: float) -> bytes:
    return msgspec.json.encode(Note(ended=list(ids), why=why, limit=limit, at=at))


def publish_note(connection: Connection, body: bytes) -> None:
    """Into the stream; confirmed when it returns. Raises OperationalError."""
    flags = 1 << 15 | 1 << 12
    properties = short("application/json") + b"\x02"
    connection.published += 1
    connection.send(
        frames.publish(1, "", STREAM, True)
        + frames.content(1, flags, properties, body, connection.frame_max)
    )
    connection.await_confirms()
    returned, connection.returned = connection.returned, []
    if returned:
        raise OperationalError(
            f"The stream {STREAM} of {connection.endpoint.name} was deleted; try again."
        )
