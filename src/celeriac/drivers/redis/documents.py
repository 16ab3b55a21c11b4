"""Records as Celery's Redis backend stores them (wire-format.md 4.1), and what ours say more.

A result document ends with a key ``celeriac`` that holds notes; beside a value that is no such
document (pickled, compressed, …) the notes stand under a key of their own, with a digest of the
value that they are about: a Celery worker may replace that one alone. put.lua reads them too.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

from celeriac import states
from celeriac.drivers.redis.envelope import notes_of
from celeriac.exceptions import ContentError, ImproperlyConfigured
from celeriac.message import TaskRecord
from celeriac.protocol.results import GROUP_PREFIX, uncompressed

__all__ = ["META", "decode_record", "encode_record", "key_of", "needs_notes"]

META = "celery-task-meta-"

_STATUS = re.compile(rb'^{"status": ?"([^"\\]*)"')
_NOTES = re.compile(rb',"celeriac":"([^"]*)"}$')
# In somebody else's documents: pickle and msgpack (it comes first, its length before it), YAML.
_FINAL = rb"(SUCCESS|FAILURE|REVOKED)"
_PACKED = re.compile(rb"status(?:\x94\x8c\x07|q.X\x07\0\0\0|\xa7)" + _FINAL, re.DOTALL)
_YAML = re.compile(rb"^status: " + _FINAL + rb"$", re.MULTILINE)
_TAIL = 400  # bytes that the notes can be long
_PLAIN_STATES = {
    state: (b'{"status":"%b"' % state.encode(), state in states.READY_STATES)
    for state in states.ALL_STATES | states.UNREADY_STATES
}


def key_of(id: str) -> str:
    """Where the record is, behind the prefix. Saved groups have a key that is whole."""
    return id if id.startswith(GROUP_PREFIX) else META + id


def encode_record(record: TaskRecord) -> tuple[bytes, bytes]:
    """The value, and the notes that stand beside it (or nothing)."""
    payload = record.payload
    known = _PLAIN_STATES.get(record.state)
    document = False
    notes = "" if record.expires_at is None else f"x={record.expires_at!r}"
    if record.run != record.id:
        notes += f"&run={quote(record.run, safe='')}"
    if known is not None and payload.startswith(known[0]) and payload.endswith(b"}"):
        document = True
        if known[1] != record.ready:
            notes += f"&y={int(record.ready)}"
    else:
        document = _STATUS.match(payload) is not None and payload.endswith(b"}")
        notes += f"&s={quote(record.state, safe='')}&y={int(record.ready)}"
    if not document:
        return payload, f"{notes}&h={_digest(payload)}".encode()
    if not notes:
        return payload, b""
    return b'%b,"celeriac":"%b"}' % (payload[:-1], notes.encode()), b""


def _digest(value: bytes) -> str:
    return hashlib.sha1(value, usedforsecurity=False).hexdigest()[:16]


def needs_notes(value: bytes) -> bool:
    """Is it a value beside which notes may stand?"""
    return _STATUS.match(value) is None


def decode_record(id: str, value: bytes, beside: bytes | None = None) -> TaskRecord:
    """The record. One that was stored by somebody else has an empty run."""
    status = _STATUS.match(value)
    found = None
    if status is not None:
        found = _NOTES.search(value, max(0, len(value) - _TAIL))
    text = found.group(1) if found else beside
    payload = value[: found.start()] + b"}" if found else value
    if text is beside and text is not None and b"h=" + _digest(value).encode() not in text:
        text = None
    if status is not None:
        state = status.group(1).decode("utf-8", "replace")
    elif text is None or b"s=" not in text:
        state = _guessed(value)
    else:
        state = ""  # the notes say it
    if text is None:
        # Ours without notes has everything as it usually is; whose it is cannot be told.
        ready = state in states.READY_STATES
        return TaskRecord(id=id, run=id, state=state, ready=ready, payload=payload)
    notes = notes_of(text.decode("ascii", "replace"))
    state = notes.get("s", state)
    ready = notes["y"] == "1" if "y" in notes else state in states.READY_STATES
    return TaskRecord(
        id=id,
        run=notes.get("run", id),
        state=state,
        ready=ready,
        payload=payload,
        expires_at=float(notes["x"]) if "x" in notes else None,
    )


def _guessed(value: bytes) -> str:
    """The state in a document of another serializer, or a compressed one, if it is a final one. One
    that cannot be read is ready, so that whoever waits for it is told why."""
    try:
        value = uncompressed(value)
    except (ContentError, ImproperlyConfigured):
        return states.FAILURE
    status = _STATUS.match(value)
    if status is not None:
        return status.group(1).decode("utf-8", "replace")
    packed = value[:1] >= b"\x80"
    found = _PACKED.search(value, 0, 64) if packed else _YAML.search(value)
    if found is not None:
        return found.group(1).decode()
    return states.PENDING
