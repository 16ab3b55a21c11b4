"""Which workers there are: the server knows connections only.

Each worker writes into a short stream (``celeriac.workers``) that it is there, at every heartbeat,
and when it leaves. Whoever asks reads the last minute of it. Never part of correctness.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from celeriac.drivers.rabbitmq import frames
from celeriac.drivers.rabbitmq.connection import BROWSE, WORK, Connection
from celeriac.drivers.rabbitmq.errors import ChannelClosed
from celeriac.drivers.rabbitmq.tables import encode_table, short
from celeriac.message import Worker, WorkerInfo

STREAM: Final = "celeriac.workers"
_ARGUMENTS: Final = {
    "x-queue-type": "stream",
    "x-max-age": "1m",
    "x-stream-max-segment-size-bytes": 100_000,
}
_LOOKED_AT: Final = "1m"
_KEPT: Final = 60.0  # seconds that a worker is shown whose lease has lapsed
_WINDOW: Final = 1000
_QUIET: Final = 0.1  # seconds without an entry after which all are read
_READING: Final = 3.0  # seconds for reading them, at most


class Sign(msgspec.Struct, omit_defaults=True):
    """One entry: a worker was there ``at``, since ``since``; ``gone``: it has left."""

    worker: Worker
    since: float
    at: float
    gone: bool = False


_decode = msgspec.json.Decoder(Sign).decode


class Presence:
    """What one process tells of the leases that it has registered."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}
        self._connection: Connection | None = None  # where the stream was declared
        self._missing = False

    def tell(self, connection: Connection, worker: Worker, *, gone: bool = False) -> None:
        """Write that the worker is here, or leaves. Where there are no streams nothing is told.
        Raises OperationalError if the connection is broken; nothing is waited for."""
        now = self._clock()
        since = self._since.setdefault(worker.lease, now)
        if gone:
            del self._since[worker.lease]
        if connection.blocked or not self._declared(connection):
            return
        body = msgspec.json.encode(Sign(worker=worker, since=since, at=now, gone=gone))
        connection.published += 1
        connection.send(
            frames.publish(WORK, "", STREAM, False)
            + frames.content(WORK, 1 << 12, b"\x02", body, connection.frame_max)
        )

    def _declared(self, connection: Connection) -> bool:
        if self._connection is not connection:
            self._connection = connection
            data = b"\x00\x00" + short(STREAM) + b"\x02" + encode_table(_ARGUMENTS)
            try:
                connection.call(frames.QUEUE_DECLARE, data, frames.QUEUE_DECLARE_OK)
                self._missing = False
            except ChannelClosed:
                self._missing = True
        return not self._missing

    def look(self, connection: Connection) -> list[WorkerInfo]:
        """Every worker that was there in the last minute and has not left, by name."""
        if not self._declared(connection):
            return []
        now = self._clock()
        latest: dict[str, Sign] = {}
        for sign in _signs(connection):
            known = latest.get(sign.worker.lease)
            if known is None or known.at <= sign.at:
                latest[sign.worker.lease] = sign
        infos = [
            _info(sign, now)
            for sign in latest.values()
            if not sign.gone and sign.at + sign.worker.ttl + _KEPT > now
        ]
        return sorted(infos, key=lambda info: (info.name, info.lease))


def _signs(connection: Connection) -> list[Sign]:
    """What the stream holds of the last minute; maybe something older before it."""
    arguments: dict[str, Any] = {"x-stream-offset": _LOOKED_AT}
    data = b"\x00\x00" + short(STREAM) + short("browse") + b"\x00" + encode_table(arguments)
    qos = b"\x00\x00\x00\x00" + _WINDOW.to_bytes(2, "big") + b"\x00"
    signs: list[Sign] = []
    came = connection.asides["browse"]
    try:
        connection.call(frames.QOS, qos, frames.QOS_OK, on=BROWSE)
        connection.call(frames.CONSUME, data, frames.CONSUME_OK, on=BROWSE)
        deadline = time.monotonic() + _READING
        while (connection.read(_QUIET) or came) and time.monotonic() < deadline:
            last = 0
            while came:
                content = came.popleft()
                last = content.tag
                try:
                    signs.append(_decode(content.body))
                except msgspec.DecodeError:
                    continue  # somebody else's
            if last:
                connection.send(frames.ack(BROWSE, last, True))
    except ChannelClosed:
        pass  # just made, and not ready
    connection.close_channel(BROWSE)
    came.clear()
    return signs


def _info(sign: Sign, now: float) -> WorkerInfo:
    worker = sign.worker
    return WorkerInfo(
        name=worker.name,
        lease=worker.lease,
        hostname=worker.hostname,
        pid=worker.pid,
        alive=sign.at + worker.ttl > now,
        since=sign.since,
        expires_at=sign.at + worker.ttl,
        in_flight=0,  # the server does not tell
    )
