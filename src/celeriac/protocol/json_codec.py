"""JSON as Celery writes and reads it: the standard library's, with envelopes for other types.

``{"__type__": T, "__value__": V}`` stands for a datetime, date, time, Decimal, UUID or bytes, or
for a type given to ``register_type``. The standard library's encoder and decoder define what is
right; msgspec, some times faster, does the work where the outcome is shown to be the same.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import sys
from collections.abc import Callable, Iterable
from datetime import date, datetime, time
from decimal import Decimal
from json import encoder as json_encoder
from math import isfinite
from types import NoneType
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from celeriac.exceptions import DecodeError

__all__ = ["decode_json", "encode_json", "encode_plain", "is_plain", "register_type"]

_TYPE, _VALUE = "__type__", "__value__"


class _Envelope(NamedTuple):
    marker: str
    encoder: Callable[[Any], Any]


_encoders: dict[type, _Envelope] = {}
_decoders: dict[str, Callable[[Any], Any]] = {}


def register_type(
    type: type, marker: str, encoder: Callable[[Any], Any], decoder: Callable[[Any], Any]
) -> None:
    """Let JSON carry instances of ``type`` (and of its subclasses that are not registered) as
    ``{"__type__": marker, "__value__": encoder(instance)}``, read back by ``decoder``. Both sides
    must know it. Types that JSON writes by itself (str, dict, …) never come here."""
    _encoders[type] = _Envelope(marker, encoder)
    _decoders[marker] = decoder


def _decode_uuid(value: Any) -> UUID:
    return UUID(**value)


def _decode_date(value: Any) -> date:
    return datetime.fromisoformat(value).date()  # other writers put a whole datetime here


def _encode_uuid(value: UUID) -> dict[str, str]:
    return {"hex": value.hex}


register_type(datetime, "datetime", datetime.isoformat, datetime.fromisoformat)
register_type(date, "date", date.isoformat, _decode_date)
register_type(time, "time", time.isoformat, time.fromisoformat)
register_type(Decimal, "decimal", str, Decimal)
register_type(UUID, "uuid", _encode_uuid, _decode_uuid)
_decoders["bytes"] = lambda value: value.encode("utf-8")
_decoders["base64"] = lambda value: base64.b64decode(value.encode("utf-8"))


# ------------------------------------------------------------------------------- encoding


def _encode_bytes(value: bytes) -> dict[str, str]:
    try:
        return {_TYPE: "bytes", _VALUE: value.decode("utf-8")}
    except UnicodeDecodeError:
        return {_TYPE: "base64", _VALUE: binascii.b2a_base64(value, newline=False).decode()}


def _find_envelope(value: Any) -> _Envelope | None:
    for cls in type(value).__mro__:
        if (envelope := _encoders.get(cls)) is not None:
            return envelope
    for cls, envelope in list(_encoders.items()):
        if isinstance(value, cls):  # abstract base classes are not in the mro
            return envelope
    return None


def _default(value: Any) -> Any:
    """What to write in place of a value that JSON does not know."""
    own = getattr(value, "__json__", None)
    if own is not None:
        return own()
    if isinstance(value, bytes):
        return _encode_bytes(value)
    envelope = _find_envelope(value)
    if envelope is not None:
        return {_TYPE: envelope.marker, _VALUE: envelope.encoder(value)}
    functional = sys.modules.get("django.utils.functional")
    if functional is not None and isinstance(value, functional.Promise):
        return str(value)  # a lazy translation
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_encoder = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=_default)
_make = getattr(json_encoder, "c_make_encoder", None)
if _make is None:

    def _write(value: Any) -> bytes:
        return _encoder.encode(value).encode()

else:
    # JSONEncoder.encode() builds this object anew for each value, which costs more than a small
    # value itself. Circles end in RecursionError.
    _chunks = _make(
        None, _default, json_encoder.encode_basestring_ascii, None, ":", ",", False, False, True
    )

    def _write(value: Any) -> bytes:
        return "".join(_chunks(value, 0)).encode()


# Types that msgspec and the standard library write with the same meaning whatever the value.
_SCALARS = frozenset((str, int, bool, NoneType))
_CONTAINERS = frozenset((list, tuple, dict))
_NESTABLE = _SCALARS | _CONTAINERS | {float}
_are_scalars = _SCALARS.issuperset
_are_strings = frozenset((str,)).issuperset
_are_nestable = _NESTABLE.issuperset

# Below this many items the standard library is done before a nested value is shown to be plain.
_WORTH_PROVING = 24
_FEW = 8
_MOST_CONTAINERS = 12


def is_plain(value: Any) -> bool:
    """Is it cheaply shown that msgspec writes ``value`` with the same meaning as the standard
    library? True for exact str, int, bool, None, finite float, and for shallow lists, tuples and
    dicts (with str keys) of them. False says nothing: not plain, or not worth finding out."""
    kind = type(value)
    if kind is dict:
        if not _are_strings(map(type, value)):
            return False
        items: Iterable[Any] = value.values()
    elif kind is list or kind is tuple:
        items = value
    else:
        return kind in _SCALARS or (kind is float and isfinite(value))
    if _are_scalars(map(type, items)):
        return True
    return _is_worth_proving(items, len(value)) and _is_plain_nested(items, _MOST_CONTAINERS)


def _is_worth_proving(items: Iterable[Any], size: int) -> bool:
    if size < _FEW:
        for item in items:
            if type(item) in _CONTAINERS:
                size += len(item)
            elif type(item) is float:
                return True
    return size >= _WORTH_PROVING


def _is_plain_nested(items: Iterable[Any], most: int) -> bool:
    kinds = set(map(type, items))
    if not _are_nestable(kinds):
        return False
    if float in kinds and not all(map(isfinite, [i for i in items if type(i) is float])):
        return False
    if _CONTAINERS.isdisjoint(kinds):
        return True
    inner = [item for item in items if type(item) in _CONTAINERS]
    if len(inner) > most:
        return False
    for item in inner:
        if type(item) is dict:
            if not _are_strings(map(type, item)):
                return False
            item = item.values()
        if not (_are_scalars(map(type, item)) or _is_plain_nested(item, most // 2)):
            return False
    return True


_write_fast = msgspec.json.Encoder().encode


def encode_plain(value: Any) -> bytes:
    """JSON of a value that is known to be plain (see ``is_plain``)."""
    try:
        return _write_fast(value)
    except (ValueError, OverflowError):  # lone surrogates, integers beyond what msgspec writes
        return _write(value)


def encode_json(value: Any) -> bytes:
    """JSON in UTF-8. Raises whatever the standard library or a type's own encoder raises."""
    return encode_plain(value) if is_plain(value) else _write(value)


# ------------------------------------------------------------------------------- decoding


def _open_envelope(value: dict[str, Any]) -> Any:
    if len(value) != 2 or _TYPE not in value or _VALUE not in value:
        return value
    marker = value[_TYPE]
    decoder = _decoders.get(marker) if isinstance(marker, str) else None
    if decoder is None:
        raise DecodeError(
            f"JSON holds a value of the unknown type {str(marker)[:80]!r}: both sides must "
            "make it known with register_type"
        )
    return decoder(value[_VALUE])


_read = json.JSONDecoder(object_hook=_open_envelope).decode
_read_fast = msgspec.json.Decoder().decode
# The letters of "__type__" written as escapes: no writer does that, but a reader must not care.
_ESCAPED = re.compile(rb"\\u00(?:5[fF]|7[049]|65)")


def decode_json(data: bytes | str) -> Any:
    """The value of a JSON text (bytes: in UTF-8), its envelopes opened. Raises DecodeError for an
    unknown type, else whatever the standard library or a type's own decoder raises."""
    if isinstance(data, str):
        return _read(data)
    if b"__type__" not in data and not (b"\\u00" in data and _ESCAPED.search(data)):
        try:
            return _read_fast(data)
        except (msgspec.DecodeError, ValueError, RecursionError):
            pass  # NaN, lone surrogates, numbers out of range, … or simply wrong
    return _read(str(data, "utf-8"))
