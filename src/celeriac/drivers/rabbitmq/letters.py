"""Messages as AMQP contents, as Celery writes and reads them (task message protocol 2).

What Celery has no word for travels in headers named ``celeriac-…``, which Celery carries along
and ignores. A message whose run is its task id has no ``message_id``, and one without it, from a
Celery client, is its own run. ``expiration`` is never set: the server would drop the message, and
nobody would know; the header ``expires`` says the same to every worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid5

import msgspec
from msgspec import Struct

from celeriac.drivers.rabbitmq.frames import Content
from celeriac.drivers.rabbitmq.tables import encode_table, short
from celeriac.exceptions import EncodeError
from celeriac.message import Message

JOIN: Final = "celeriac-join"
DEDUPE: Final = "celeriac-dedupe"
PUBLISH_ID: Final = "celeriac-publish"
EXPIRES: Final = "celeriac-expires"
DUE: Final = "celeriac-due"
LOST: Final = "celeriac-lost"
NOTE: Final = "celeriac-note"
BEGUN: Final = "celeriac-begun"
REASON: Final = "celeriac-reason"
BURIED_AT: Final = "celeriac-buried-at"
EXCHANGE: Final = "celeriac-exchange"
ROUTING_KEY: Final = "celeriac-routing-key"
QUEUE: Final = "celeriac-queue"
OWN: Final = "celeriac-own"  # a worker's copy of what was sent to all: its run is its own

_OURS: Final = "celeriac-"
# What the server adds on the way; it is told apart from the application's own headers.
_SERVERS: Final = ("x-death", "x-delivery-count", "x-first-death-", "x-last-death-", "x-acquired-")

_CHAINS: Final = ("celeriac_delayed", "celery_delayed")

_FLAGS: Final = 0b1111_1100_0000_0000  # content type and encoding, headers, mode, priority, id
_REPLY_TO: Final = 1 << 9
_MESSAGE_ID: Final = 1 << 7
_MOST: Final = 131072 - 64  # properties must fit into one frame

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_shorts: dict[str, bytes] = {}


class Letter(Struct, frozen=True):
    """A message as it came in. ``home`` is the queue that it came from, which may be a worker's
    own; ``extra`` are the headers that only this driver understands, and the server's."""

    message: Message
    home: str
    extra: dict[str, Any]
    headers: dict[str, Any]


def properties(message: Message, extra: Mapping[str, Any]) -> tuple[int, bytes]:
    """Flags and properties of a message, with ``extra`` headers. Raises EncodeError."""
    headers = _decode(message.headers)
    if message.join is not None:
        headers[JOIN] = message.join
    if message.expires_at is not None:
        headers[EXPIRES] = message.expires_at
    if extra:
        headers.update(extra)
    flags = _FLAGS
    identity = _known(message.id)
    parts = [
        _known(message.content_type),
        _known(message.content_encoding),
        encode_table(headers),
        bytes((2 if message.delivery_mode == 2 else 1, max(0, min(message.priority, 255)))),
        identity,
    ]
    if message.reply_to:
        flags |= _REPLY_TO
        parts.append(_known(message.reply_to))
    if message.run != message.id:
        flags |= _MESSAGE_ID
        parts.append(short(message.run))
    data = b"".join(parts)
    if len(data) > _MOST:
        raise EncodeError(
            f"The headers of the message {message.id} have {len(data)} bytes; RabbitMQ takes "
            f"{_MOST} at most. Put large values into the arguments."
        )
    return flags, data


def _known(text: str) -> bytes:
    """A short string; those that repeat are made once."""
    known = _shorts.get(text)
    if known is None:
        known = short(text)
        if len(text) < 36 and len(_shorts) < 1000:
            _shorts[text] = known
    return known


def read(content: Content, queue: str, home: str = "") -> Letter:
    """The message of a content that came from ``home``, if that is not the queue itself."""
    properties = content.properties
    headers = properties.headers
    extra: dict[str, Any] = {}
    for name in list(headers):
        if name.startswith(_OURS) or name.startswith(_SERVERS):
            extra[name] = headers.pop(name)
    id = properties.correlation_id or str(headers.get("id") or "")
    expires_at = extra.get(EXPIRES)
    if expires_at is None and headers.get("expires") is not None:
        expires_at = instant(headers["expires"])
    exchange, key = content.exchange, content.routing_key
    if exchange.startswith(_CHAINS) and EXCHANGE not in extra:
        exchange, key = "", queue  # it has waited in a chain of delays
    elif QUEUE in extra:
        exchange, key = "", queue  # a dead letter
    run = properties.message_id or id
    if home and home != queue and OWN not in extra:
        run = str(uuid5(NAMESPACE_OID, f"{run}/{home}"))  # each worker's run is told apart
    return Letter(
        Message(
            id=id,
            run=run,
            queue=queue,
            headers=_encode(headers),
            body=content.body,
            content_type=properties.content_type,
            content_encoding=properties.content_encoding,
            exchange=extra.get(EXCHANGE, exchange),
            routing_key=extra.get(ROUTING_KEY, key),
            priority=properties.priority,
            reply_to=properties.reply_to,
            delivery_mode=properties.delivery_mode,
            expires_at=expires_at,
            join=extra.get(JOIN),
            dedupe_key=extra.get(DEDUPE),
        ),
        home or queue,
        extra,
        headers,
    )


def due_at(letter: Letter) -> float | None:
    """When the message is due, by what deferred it or by its ``eta``."""
    deferred = letter.extra.get(DUE)
    if deferred is not None:
        return float(deferred)
    eta = letter.headers.get("eta")
    return instant(eta) if eta is not None else None


def instant(text: Any) -> float | None:
    """Epoch seconds of an ISO time; naive ones are UTC. None for what is none."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        from datetime import UTC

        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def carried(letter: Letter) -> dict[str, Any]:
    """The headers of ours that a copy of the message keeps, whatever becomes of it."""
    kept = {name: letter.extra[name] for name in _KEPT if name in letter.extra}
    kept.update(way(letter.message, letter.home))
    return kept


def way(message: Message, home: str) -> dict[str, Any]:
    """The headers of ours that say how it once came here, for what goes to its queue directly."""
    known: dict[str, Any] = {}
    if (message.exchange, message.routing_key) != ("", message.queue):
        known[EXCHANGE] = message.exchange
        known[ROUTING_KEY] = message.routing_key
    if home != message.queue:
        known[OWN] = 1
    return known


_KEPT = (DEDUPE, PUBLISH_ID, LOST, NOTE, BEGUN)
