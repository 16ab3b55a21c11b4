"""The result document: what a result backend stores of a task (wire-format.md 4.1)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from celeriac.exceptions import DecodeError
from celeriac.protocol import compression as compression_
from celeriac.protocol import serialization
from celeriac.protocol.exception_form import exception_form, exception_from_form
from celeriac.protocol.json_codec import encode_plain, is_plain
from celeriac.protocol.saferepr import saferepr
from celeriac.protocol.times import format_time

__all__ = [
    "GROUP_PREFIX",
    "decode_group",
    "decode_meta",
    "encode_group",
    "encode_meta",
    "exception_form",
    "exception_from_form",
    "group_key",
    "result_tuple",
    "uncompressed",
    "with_child",
]

GROUP_PREFIX = "celery-taskset-meta-"
"""What the ids of saved groups begin with in a result backend: Celery's key, which a driver that
shares its store with Celery uses as it is."""

_MARKER = b"\0celery-compressed\0"
_LONGEST_MIME = 100
_are_texts_or_none = frozenset((str, type(None))).issuperset


@functools.lru_cache(maxsize=64)
def _beginning(state: str) -> bytes:
    return b'{"status":%b,"result":' % encode_plain(state)


def encode_meta(
    *,
    id: str,
    state: str,
    result: Any,
    traceback: str | None = None,
    children: Sequence[Any] | None = (),
    date_done: float | None = None,
    group_id: str | None = None,
    parent_id: str | None = None,
    extended: Mapping[str, Any] | None = None,
    serializer: str = "json",
    compression: str | None = None,
) -> bytes:
    """The document as bytes, its keys in Celery's order.

    ``result`` is the value, or an exception's form; ``children`` result tuples, None if there was
    no task to have any; ``date_done`` epoch seconds, for ready states; ``extended`` what
    ``result_extended`` adds (name, args, kwargs, worker, retries, queue, stamps). Raises
    EncodeError naming the part that cannot be written.
    """
    if (
        serializer == "json"
        and not (compression or children or extended or group_id or parent_id)
        and children is not None
        and traceback is None
        and (result is None or is_plain(result))
        and type(id) is type(state) is str
    ):  # nearly all there are: what is written below, without the detour over a dictionary
        return b'%b%b,"traceback":null,"children":[],"date_done":%b,"task_id":%b}' % (
            _beginning(state),
            b"null" if result is None else encode_plain(result),
            b"null" if date_done is None else b'"%b"' % format_time(date_done).encode(),
            encode_plain(id),
        )
    meta: dict[str, Any] = {
        "status": state,
        "result": result,
        "traceback": traceback,
        "children": children if children is None else list(children),
        "date_done": None if date_done is None else format_time(date_done),
    }
    if group_id:
        meta["group_id"] = group_id
    if parent_id:
        meta["parent_id"] = parent_id
    if extended:
        meta.update(extended)
    meta["task_id"] = id
    if (
        serializer == "json"
        and not compression
        and not children
        and not extended
        and is_plain(result)
        and _are_texts_or_none(map(type, (id, state, traceback, group_id, parent_id)))
    ):
        return encode_plain(meta)
    return _encoded(meta, serializer, compression)


def with_child(
    payload: bytes, child: Any, serializer: str = "json", compression: str | None = None
) -> bytes:
    """The document with one more result tuple among the children."""
    meta = decode_meta(payload, serializer)
    meta["children"] = [*(meta.get("children") or ()), child]
    return _encoded(meta, serializer, compression)


def _encoded(meta: Any, serializer: str, compression: str | None) -> bytes:
    data = serialization.encode(meta, serializer).data
    if not compression:
        return data
    data, mime = compression_.compress(data, compression)
    return b"%b%b\0%b" % (_MARKER, mime.encode(), data)


def decode_meta(payload: bytes | str, serializer: str = "json") -> dict[str, Any]:
    """The document of the bytes, compressed or not. JSON is also read where another serializer is
    configured, so that results outlive a change of the setting. Raises DecodeError."""
    meta = _decoded(payload, serializer)
    if not isinstance(meta, dict) or not isinstance(meta.get("status"), str):
        raise DecodeError(f"not a result document: {saferepr(meta, 200)}")
    return meta


def _decoded(payload: bytes | str, serializer: str) -> Any:
    data = payload.encode("utf-8", "surrogatepass") if isinstance(payload, str) else payload
    data = uncompressed(data)
    content_type = serialization.serializer_type(serializer)
    if content_type != serialization.JSON_TYPE and data[:1] == b"{":
        content_type = serialization.JSON_TYPE
    encoding = "binary" if content_type == serialization.PICKLE_TYPE else "utf-8"
    return serialization.decode(data, content_type, encoding, frozenset((content_type,)))


def uncompressed(payload: bytes) -> bytes:
    """The document as its serializer wrote it. Raises DecodeError."""
    if not payload.startswith(_MARKER):
        return payload
    mime, found, data = payload[len(_MARKER) :].partition(b"\0")
    if not found or len(mime) > _LONGEST_MIME:
        raise DecodeError("a compressed result does not say how it is compressed")
    return compression_.decompress(data, mime.decode("latin-1"))


def group_key(id: str) -> str:
    """The id under which a group's record is stored."""
    return f"{GROUP_PREFIX}{id}"


def encode_group(tuples: Any, serializer: str = "json") -> bytes:
    """The document of a saved group; ``tuples``: GroupResult.as_tuple()."""
    return serialization.encode({"result": tuples}, serializer).data


def decode_group(payload: bytes | str, serializer: str = "json") -> Any:
    """The tuples of a saved group. Raises DecodeError."""
    document = _decoded(payload, serializer)
    if not isinstance(document, dict) or not isinstance(document.get("result"), list | tuple):
        raise DecodeError(f"not the document of a group: {saferepr(document, 200)}")
    return document["result"]


def result_tuple(
    id: str, parent: Sequence[Any] | None = None, children: Sequence[Any] | None = None
) -> list[Any]:
    """How a result is named inside documents: ``[[id, parent], children]``, where parent is such
    a list too and children, for a group, are the list of its members."""
    return [[id, parent], children if children is None else list(children)]
