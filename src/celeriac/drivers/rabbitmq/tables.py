"""AMQP field tables (0-9-1, section 4.2.5.5, with RabbitMQ's type letters) to and from bytes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from struct import Struct
from typing import Any

from celeriac.exceptions import DecodeError, EncodeError

_LENGTH = Struct(">I")
_TYPED_LENGTH = Struct(">cI")
_TYPED_INT = Struct(">cq")
_TYPED_FLOAT = Struct(">cd")

# Header names repeat for ever; those that an application makes up are few.
_MOST_NAMES = 5000
_names: dict[str, bytes] = {}


def short(text: str) -> bytes:
    """A short string. Raises EncodeError beyond 255 bytes."""
    data = text.encode()
    if len(data) > 255:
        raise EncodeError(f"AMQP takes names of at most 255 bytes; {text[:60]!r}… has {len(data)}.")
    return bytes((len(data),)) + data


def encode_table(values: Mapping[str, Any]) -> bytes:
    """A table with its length. Raises EncodeError for what AMQP cannot express."""
    parts: list[bytes] = []
    add = parts.append
    for name, value in values.items():
        known = _names.get(name)
        if known is None:
            known = short(name)
            if len(_names) < _MOST_NAMES:
                _names[name] = known
        add(known)
        if value is None:
            add(b"V")
        elif type(value) is str:
            data = value.encode()
            add(_TYPED_LENGTH.pack(b"S", len(data)))
            add(data)
        else:
            add(_value(value))
    data = b"".join(parts)
    return _LENGTH.pack(len(data)) + data


def _value(value: Any) -> bytes:
    kind = type(value)
    if value is None:
        return b"V"
    if kind is bool:
        return b"t\x01" if value else b"t\x00"
    if kind is int:
        if not -(1 << 63) <= value < 1 << 63:
            raise EncodeError(f"AMQP headers hold integers of 64 bits, not {value}.")
        return _TYPED_INT.pack(b"l", value)
    if kind is float:
        return _TYPED_FLOAT.pack(b"d", value)
    if isinstance(value, str):
        data = value.encode()
        return _TYPED_LENGTH.pack(b"S", len(data)) + data
    if isinstance(value, bytes):
        return _TYPED_LENGTH.pack(b"x", len(value)) + value
    if isinstance(value, Mapping):
        return b"F" + encode_table(value)
    if isinstance(value, list | tuple):
        data = b"".join([_value(item) for item in value])
        return _TYPED_LENGTH.pack(b"A", len(data)) + data
    raise EncodeError(f"AMQP headers cannot hold {value!r}, a {kind.__name__}.")


def decode_table(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    """The table that begins at ``at``, and where it ends. Raises DecodeError."""
    end = at + 4 + _LENGTH.unpack_from(data, at)[0]
    if end > len(data):
        raise DecodeError("An AMQP table is longer than the frame that it is in.")
    at += 4
    values: dict[str, Any] = {}
    while at < end:
        start = at + 1
        at = start + data[at]
        name = data[start:at].decode()
        letter = data[at]
        if letter == 83:  # S, most of them
            start = at + 5
            at = start + _LENGTH.unpack_from(data, at + 1)[0]
            values[name] = data[start:at].decode("utf-8", "backslashreplace")
        elif letter == 86:  # V
            values[name] = None
            at += 1
        else:
            values[name], at = _read(data, at)
    return values, end


def _read(data: bytes, at: int) -> tuple[Any, int]:
    letter = data[at : at + 1]
    fixed = _FIXED.get(letter)
    if fixed is not None:
        layout, convert = fixed
        value = layout.unpack_from(data, at + 1)[0]
        return (convert(value) if convert else value), at + 1 + layout.size
    if letter == b"V":
        return None, at + 1
    if letter == b"F":
        return decode_table(data, at + 1)
    if letter == b"D":
        number = _LENGTH.unpack_from(data, at + 2)[0]
        return float(Decimal(number).scaleb(-data[at + 1])), at + 6
    if letter not in (b"S", b"x", b"A"):
        raise DecodeError(f"An AMQP table holds a value of the unknown type {letter!r}.")
    start = at + 5
    end = start + _LENGTH.unpack_from(data, at + 1)[0]
    if letter == b"S":
        return data[start:end].decode("utf-8", "backslashreplace"), end
    if letter == b"x":
        return base64.b64encode(data[start:end]).decode(), end
    items = []
    while start < end:
        item, start = _read(data, start)
        items.append(item)
    return items, end


def _instant(seconds: int) -> str:
    from datetime import UTC

    return datetime.fromtimestamp(seconds, UTC).isoformat()


_FIXED: dict[bytes, tuple[Struct, Callable[[Any], Any] | None]] = {
    b"t": (Struct(">?"), None),
    b"b": (Struct(">b"), None),
    b"B": (Struct(">B"), None),
    b"s": (Struct(">h"), None),
    b"U": (Struct(">h"), None),
    b"u": (Struct(">H"), None),
    b"I": (Struct(">i"), None),
    b"i": (Struct(">I"), None),
    b"l": (Struct(">q"), None),
    b"L": (Struct(">q"), None),
    b"f": (Struct(">f"), None),
    b"d": (Struct(">d"), None),
    b"T": (Struct(">Q"), _instant),
}
