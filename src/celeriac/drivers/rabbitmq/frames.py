"""AMQP 0-9-1 frames: building those that this driver sends, taking apart those that come in.

No I/O here. The numbers are the protocol's (class, method); only what the driver uses is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Any, Final, NamedTuple

from celeriac.drivers.rabbitmq.tables import decode_table, encode_table, short

PROTOCOL: Final = b"AMQP\x00\x00\x09\x01"
END: Final = b"\xce"
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8

_FRAME = Struct(">BHI")
_KIND = Struct(">HH")
_DELIVER_TAG = Struct(">QB")
_SIZE_FLAGS = Struct(">QH")
_ACK = Struct(">BHIHHQBc")
_HEAD = Struct(">BHIHHQH")

START, START_OK, TUNE, TUNE_OK = (10, 10), (10, 11), (10, 30), (10, 31)
OPEN, OPEN_OK, CLOSE, CLOSE_OK = (10, 40), (10, 41), (10, 50), (10, 51)
BLOCKED, UNBLOCKED = (10, 60), (10, 61)
CHANNEL_OPEN, CHANNEL_OPEN_OK = (20, 10), (20, 11)
CHANNEL_CLOSE, CHANNEL_CLOSE_OK = (20, 40), (20, 41)
EXCHANGE_DECLARE, EXCHANGE_DECLARE_OK = (40, 10), (40, 11)
EXCHANGE_BIND, EXCHANGE_BIND_OK = (40, 30), (40, 31)
QUEUE_DECLARE, QUEUE_DECLARE_OK = (50, 10), (50, 11)
QUEUE_BIND, QUEUE_BIND_OK = (50, 20), (50, 21)
QUEUE_UNBIND, QUEUE_UNBIND_OK = (50, 50), (50, 51)
QUEUE_PURGE, QUEUE_PURGE_OK = (50, 30), (50, 31)
QUEUE_DELETE, QUEUE_DELETE_OK = (50, 40), (50, 41)
QOS, QOS_OK = (60, 10), (60, 11)
CONSUME, CONSUME_OK = (60, 20), (60, 21)
CANCEL, CANCEL_OK = (60, 30), (60, 31)
PUBLISH, RETURN, DELIVER = (60, 40), (60, 50), (60, 60)
GET, GET_OK, GET_EMPTY = (60, 70), (60, 71), (60, 72)
ACK, NACK = (60, 80), (60, 120)
CONFIRM_SELECT, CONFIRM_SELECT_OK = (85, 10), (85, 11)


class Properties(NamedTuple):
    """The properties of a message, as they came in. Absent ones are empty."""

    content_type: str = ""
    content_encoding: str = ""
    headers: dict[str, Any] = {}
    delivery_mode: int = 2
    priority: int = 0
    correlation_id: str = ""
    reply_to: str = ""
    expiration: str = ""
    message_id: str = ""
    timestamp: int = 0


class Content(NamedTuple):
    """A message that came in: by deliver, get or return. ``tag`` is 0 for a return, ``reply`` is
    why it came back. ``consumer`` is empty for a get, and ``left`` is how many wait behind it."""

    consumer: str
    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    properties: Properties
    body: bytes
    reply: str = ""
    left: int = 0


class Method(NamedTuple):
    """Any other method that came in; ``arguments`` begin after its two numbers."""

    channel: int
    kind: tuple[int, int]
    arguments: bytes


# --- what goes out ----------------------------------------------------------------------------


def method(channel: int, kind: tuple[int, int], arguments: bytes = b"") -> bytes:
    return _FRAME.pack(METHOD, channel, 4 + len(arguments)) + _KIND.pack(*kind) + arguments + END


def publish(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The first of a message's frames."""
    arguments = b"\x00\x00" + short(exchange) + short(routing_key) + bytes((mandatory,))
    return method(channel, PUBLISH, arguments)


def content(channel: int, flags: int, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """The frames that follow: header and body."""
    head = _HEAD.pack(HEADER, channel, 14 + len(properties), 60, 0, len(body), flags)
    size = len(body)
    most = frame_max - 8
    if size <= most:
        if not size:
            return b"".join((head, properties, END))
        return b"".join((head, properties, END, _FRAME.pack(BODY, channel, size), body, END))
    parts = [head, properties, END]
    for start in range(0, size, most):
        piece = body[start : start + most]
        parts += (_FRAME.pack(BODY, channel, len(piece)), piece, END)
    return b"".join(parts)


def ack(channel: int, tag: int, multiple: bool = False) -> bytes:
    return _ACK.pack(METHOD, channel, 13, 60, 80, tag, multiple, END)


def nack_all(channel: int) -> bytes:
    """Everything that is unacknowledged on the channel goes back into its queue."""
    return _ACK.pack(METHOD, channel, 13, 60, 120, 0, 1 + 2, END)


def table(values: Mapping[str, Any]) -> bytes:
    return encode_table(values)


def long_string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


# --- what comes in ----------------------------------------------------------------------------


class Splitter:
    """Takes bytes in as they come and hands out whole frames, contents put together."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun: dict[int, list[Any]] = {}  # channel: [first, properties, size, pieces, got]

    def feed(self, data: bytes) -> list[Content | Method]:
        """What is complete now."""
        if self._rest:
            data = self._rest + data
        found: list[Content | Method] = []
        at, end = 0, len(data)
        unpack = _FRAME.unpack_from
        while end - at >= 8:
            kind, channel, size = unpack(data, at)
            stop = at + 7 + size
            if stop >= end:
                break
            if data[stop] != 0xCE:
                raise ValueError("a frame does not end as AMQP frames do")
            if kind == METHOD:
                self._method(channel, data, at + 7, stop, found)
            elif kind == HEADER:
                self._header(channel, data, at + 7, found)
            elif kind == BODY:
                self._body(channel, data[at + 7 : stop], found)
            at = stop + 1
        self._rest = data[at:]
        return found

    def _method(
        self, channel: int, data: bytes, at: int, stop: int, found: list[Content | Method]
    ) -> None:
        kind = _KIND.unpack_from(data, at)
        if kind == DELIVER:
            first = _deliver(data, at + 4)
        elif kind == RETURN:
            first = _return(data, at + 4)
        elif kind == GET_OK:
            first = _get_ok(data, at + 4)
        else:
            found.append(Method(channel, kind, data[at + 4 : stop]))
            return
        self._begun[channel] = [first, None, 0, [], 0]

    def _header(self, channel: int, data: bytes, at: int, found: list[Content | Method]) -> None:
        begun = self._begun[channel]
        size, flags = _SIZE_FLAGS.unpack_from(data, at + 4)
        begun[1] = properties(data, at + 14, flags)
        begun[2] = size
        if not size:
            self._whole(channel, b"", found)

    def _body(self, channel: int, piece: bytes, found: list[Content | Method]) -> None:
        begun = self._begun[channel]
        if len(piece) == begun[2]:
            self._whole(channel, piece, found)
            return
        begun[3].append(piece)
        begun[4] += len(piece)
        if begun[4] >= begun[2]:
            self._whole(channel, b"".join(begun[3]), found)

    def _whole(self, channel: int, body: bytes, found: list[Content | Method]) -> None:
        first, properties, *_ = self._begun.pop(channel)
        consumer, tag, redelivered, exchange, key, reply, left = first
        found.append(
            Content(consumer, tag, redelivered, exchange, key, properties, body, reply, left)
        )


_First = tuple[str, int, bool, str, str, str, int]


def short_at(data: bytes, at: int) -> tuple[str, int]:
    """The short string at this place, and where it ends."""
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(), end


def _deliver(data: bytes, at: int) -> _First:
    consumer, at = short_at(data, at)
    tag, redelivered = _DELIVER_TAG.unpack_from(data, at)
    exchange, at = short_at(data, at + 9)
    key, at = short_at(data, at)
    return consumer, tag, redelivered != 0, exchange, key, "", 0


def _get_ok(data: bytes, at: int) -> _First:
    tag, redelivered = _DELIVER_TAG.unpack_from(data, at)
    exchange, at = short_at(data, at + 9)
    key, at = short_at(data, at)
    left = int.from_bytes(data[at : at + 4], "big")
    return "", tag, redelivered != 0, exchange, key, "", left


def _return(data: bytes, at: int) -> _First:
    reply, at = short_at(data, at + 2)
    exchange, at = short_at(data, at)
    key, at = short_at(data, at)
    return "", 0, False, exchange, key, reply or "returned", 0


# Bits of the property flags, in the order of the wire; what is left out is passed over.
_SHORT, _TABLE, _OCTET, _LONG = "short", "table", "octet", "long"
_PROPERTIES: tuple[tuple[int, int, str], ...] = (
    (15, 0, _SHORT),
    (14, 1, _SHORT),
    (13, 2, _TABLE),
    (12, 3, _OCTET),
    (11, 4, _OCTET),
    (10, 5, _SHORT),
    (9, 6, _SHORT),
    (8, 7, _SHORT),
    (7, 8, _SHORT),
    (6, 9, _LONG),
)
_DEFAULTS: tuple[Any, ...] = ("", "", {}, 2, 0, "", "", "", "", 0)
_plans: dict[int, tuple[tuple[int, str], ...]] = {}


def properties(data: bytes, at: int, flags: int) -> Properties:
    """The properties at this place."""
    plan = _plans.get(flags)
    if plan is None:
        plan = _plans[flags] = tuple(
            (index, kind) for bit, index, kind in _PROPERTIES if flags >> bit & 1
        )
    values = list(_DEFAULTS)
    for index, kind in plan:
        if kind is _SHORT:
            end = at + 1 + data[at]
            values[index] = data[at + 1 : end].decode()
            at = end
        elif kind is _TABLE:
            values[index], at = decode_table(data, at)
        elif kind is _OCTET:
            values[index] = data[at]
            at += 1
        else:
            values[index] = int.from_bytes(data[at : at + 8], "big")
            at += 8
    return Properties(*values)
