"""Messages as Celery's Redis transport stores them (wire-format.md 2.2), and what ours say more.

The first key of our envelopes, ``celeriac``, holds notes, in the form of a URL's query (the names
are listed in messages.lua). It is empty for a plain message, and other readers pass over it.
"""

from __future__ import annotations

import binascii
import functools
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from msgspec import Raw, Struct, field

from celeriac.message import Message
from celeriac.protocol.times import parse_time

__all__ = ["Read", "encode", "published_at", "read", "step_of"]

_json = msgspec.json.Encoder().encode
_b64 = binascii.b2a_base64


def step_of(priority: int, steps: tuple[int, ...]) -> int:
    """Which list a priority belongs to: that of the largest step that is not above it."""
    best = steps[0]
    for step in steps:
        if step <= priority:
            best = step
    return best


# --- writing


@functools.lru_cache(maxsize=1024)
def _text(text: str) -> bytes:
    """As JSON; for what is the same in many messages."""
    return _json(text)


def encode(message: Message, now: float, *, parked: bool = False) -> bytes:
    """The envelope. ``parked``: it goes among the delayed ones, which know when it is due."""
    id, run, queue = message.id, message.run, message.queue
    tag = id if run == id else _new_tag(now)
    notes = b""
    if (
        run != id
        or message.join is not None
        or message.due_at is not None
        or message.expires_at is not None
        or message.exchange
        or message.routing_key != queue
    ):
        notes = _notes(message, now, parked)
    expiration = b""
    if message.expires_at is not None:
        left = max(0, int((message.expires_at - now) * 1000))
        expiration = b'"expiration":"%d",' % left
    return (
        b'{"celeriac":"%b","body":"%b","content-encoding":%b,"content-type":%b,"headers":%b,'
        b'"properties":{"correlation_id":%b,"reply_to":%b,"delivery_mode":%d,%b'
        b'"delivery_info":{"exchange":"","routing_key":%b},"priority":%d,'
        b'"body_encoding":"base64","delivery_tag":%b}}'
    ) % (
        notes,
        _b64(message.body, newline=False),
        _text(message.content_encoding),
        _text(message.content_type),
        message.headers,
        _json(id),
        _text(message.reply_to),
        message.delivery_mode,
        expiration,
        _text(queue),
        message.priority,
        _json(tag),
    )


def _notes(message: Message, now: float, parked: bool) -> bytes:
    notes = []
    if message.run != message.id:
        notes.append(f"run={quote(message.run, safe='')}")
    if message.join is not None:
        notes.append(f"join={quote(message.join, safe='')}")
    if message.exchange:
        notes.append(f"ex={quote(message.exchange, safe='')}")
    if message.routing_key != message.queue:
        notes.append(f"rk={quote(message.routing_key, safe='')}")
    if message.expires_at is not None:
        notes.append(f"exp={message.expires_at!r}")
    if message.due_at is not None and message.due_at > now and not parked:
        notes.append(f"due={message.due_at!r}")
    return "&".join(notes).encode()


def _new_tag(now: float) -> str:
    """A UUID of version 7, of the store's own time."""
    head = f"{max(0, int(now * 1000)):012x}"
    tail = os.urandom(10).hex()
    return f"{head[:8]}-{head[8:12]}-7{tail[:3]}-a{tail[4:7]}-{tail[7:19]}"


# --- reading


class _Info(Struct, gc=False):
    exchange: str | None = ""
    routing_key: str | None = ""
    redelivered: bool | None = False


class _Properties(Struct, gc=False):
    delivery_tag: str
    delivery_info: _Info
    correlation_id: str = ""
    reply_to: str | None = ""
    delivery_mode: int | None = 2
    priority: int | None = 0
    body_encoding: str | None = None


class _Envelope(Struct, gc=False):
    body: bytes
    headers: Raw
    properties: _Properties
    content_type: str = field(name="content-type", default="application/json")
    content_encoding: str = field(name="content-encoding", default="utf-8")
    celeriac: str | None = None


class _PlainEnvelope(_Envelope, gc=False):
    body: str  # type: ignore[assignment]


class _Times(Struct, gc=False):
    eta: str | None = None
    expires: str | None = None
    group: str | None = None


class Read(Struct, gc=False):
    """A message, and what its notes say of its fate."""

    message: Message
    lost: int = 0
    redelivered: bool = False
    begun: bool = False
    note: str = ""
    reason: str = ""
    at: float | None = None
    tag: str = ""


_decode = msgspec.json.Decoder(_Envelope).decode
_decode_plain = msgspec.json.Decoder(_PlainEnvelope).decode
_decode_times = msgspec.json.Decoder(_Times).decode
_NOTES = re.compile(rb'^{"celeriac": ?"([^"]*)", ?')


def read(raw: bytes, queue: str) -> Read:
    """Whatever stands in a list of the queue. What is no message comes back as one with the bytes
    as its body, for whoever claims it to bury."""
    try:
        envelope = _decode(raw)
        if envelope.properties.body_encoding != "base64":
            return _read(_decode_plain(raw), queue)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return _read_badly(raw, queue)
    if envelope.celeriac != "":
        return _read(envelope, queue)
    properties = envelope.properties
    info, id = properties.delivery_info, properties.correlation_id
    message = Message(
        id=id,
        run=properties.delivery_tag,
        queue=queue,
        headers=bytes(envelope.headers),
        body=envelope.body,
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        exchange="",
        routing_key=queue,
        priority=properties.priority or 0,
        reply_to=properties.reply_to or "",
        delivery_mode=properties.delivery_mode or 2,
    )
    return Read(message, redelivered=info.redelivered is True, tag=properties.delivery_tag)


def _read(envelope: Any, queue: str) -> Read:
    """One that is not ours, or has something to say."""
    ours = envelope.celeriac is not None
    notes = notes_of(envelope.celeriac or "")
    properties, headers = envelope.properties, bytes(envelope.headers)
    info = properties.delivery_info
    body = envelope.body
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogatepass")
    tag = properties.delivery_tag
    times = _Times() if ours else _times(headers)
    expires, due = notes.get("exp"), notes.get("due")
    message = Message(
        id=properties.correlation_id or _id_in(headers),
        run=notes.get("run", tag),
        queue=queue,
        headers=headers,
        body=body,
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        exchange=notes.get("ex", "") if ours else info.exchange or "",
        routing_key=notes.get("rk", queue) if ours else info.routing_key or "",
        priority=properties.priority or 0,
        reply_to=properties.reply_to or "",
        delivery_mode=properties.delivery_mode or 2,
        due_at=float(due) if due else _epoch(times.eta),
        expires_at=float(expires) if expires else _epoch(times.expires),
        join=notes.get("join") if ours else times.group,
    )
    return _with_fate(message, notes, info.redelivered is True, tag)


def _with_fate(message: Message, notes: Mapping[str, str], redelivered: bool, tag: str) -> Read:
    return Read(
        message,
        lost=int(notes.get("l", 0)),
        redelivered=redelivered or "r" in notes,
        begun="b" in notes,
        note=notes.get("n", ""),
        reason=notes.get("why", ""),
        at=float(notes["at"]) if "at" in notes else None,
        tag=tag,
    )


def notes_of(text: str) -> dict[str, str]:
    return {
        name: unquote(value)
        for name, _, value in (part.partition("=") for part in text.split("&"))
        if name
    }


def _times(headers: bytes) -> _Times:
    try:
        return _decode_times(headers)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return _Times()


def _epoch(text: str | None) -> float | None:
    try:
        return parse_time(text)
    except (ValueError, OverflowError, TypeError):
        return None


def _id_in(headers: bytes) -> str:
    try:
        id = msgspec.json.decode(headers).get("id")
    except (msgspec.DecodeError, AttributeError):
        return ""
    return id if isinstance(id, str) else ""


def _read_badly(raw: bytes, queue: str) -> Read:
    """A plain body, a type that kombu's clients never send, or no message at all."""
    try:
        return _read(_decode_plain(raw), queue)
    except (msgspec.DecodeError, msgspec.ValidationError):
        pass
    notes: dict[str, str] = {}
    found = _NOTES.match(raw)
    if found:
        notes = notes_of(found.group(1).decode("ascii", "replace"))
        rest = raw[found.end() :]
        raw = rest if "g" in notes else b"{" + rest
    try:
        whole = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        whole = None
    headers = whole.get("headers") if isinstance(whole, dict) else None
    id = headers.get("id") if isinstance(headers, dict) else None
    message = Message(
        id=id if isinstance(id, str) else "",
        run=id if isinstance(id, str) else "",
        queue=queue,
        headers=b"{}",
        body=raw,
        content_type="application/x-unreadable",
        content_encoding="binary",
        routing_key=queue,
    )
    return _with_fate(message, notes, False, "")


def published_at(tag: str) -> float | None:
    """When a message with this delivery tag was published: a UUID of version 7 tells."""
    if len(tag) != 36 or tag[14] != "7":
        return None
    try:
        return int(tag[:8] + tag[9:13], 16) / 1000
    except ValueError:
        return None
