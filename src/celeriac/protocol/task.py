"""Task messages, and writing them (wire-format.md 1.1, 1.3 and 1.6)."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from msgspec import Struct

from celeriac.exceptions import SoftTimeLimitExceeded
from celeriac.protocol import blocks, serialization
from celeriac.protocol import compression as compression_
from celeriac.protocol.json_codec import encode_plain, is_plain
from celeriac.protocol.saferepr import saferepr
from celeriac.protocol.times import format_time
from celeriac.protocol.written import Steps, Written, plain

__all__ = [
    "Embed",
    "TaskMessage",
    "encode_body",
    "encode_headers",
    "encode_v1",
    "make_headers",
]


class Embed(TypedDict):
    """What is to happen after the task, as signature dicts; ``chain`` last one first."""

    callbacks: list[dict[str, Any]] | None
    errbacks: list[dict[str, Any]] | None
    chain: list[dict[str, Any]] | None
    chord: dict[str, Any] | None


class TaskMessage(Struct, gc=False):
    """A task message as read.

    ``headers`` always has ``task``, ``id``, ``root_id``, ``retries``, ``timelimit`` (hard, soft)
    and ``stamps``; the other headers of wire-format 1.1 may be missing, but none has a wrong type.
    ``embed`` is empty, or has an Embed's keys. ``protocol`` is 1 or 2.
    """

    headers: dict[str, Any]
    args: list[Any]
    kwargs: dict[str, Any]
    embed: dict[str, Any]
    protocol: int = 2


NOTHING: Embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_PARTS = ("args", "kwargs", "embed")
# The rest of a chain that is so many bytes long or longer is compressed, in blocks.
_LARGE = 16 * 1024
GZIP = "application/x-gzip"

Body = tuple[bytes, str, str, str | None]
"""Bytes, content type, content encoding, and the content type of the compression or None."""


def encode_body(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    embed: Mapping[str, Any] | None = None,
    serializer: str = "json",
    compression: str | None = None,
    headers: dict[str, Any] | None = None,
) -> Body:
    """The body of protocol 2. ``headers``: those that it will go with; what helps to read it is
    put there. Raises EncodeError naming the argument that cannot be written; ImproperlyConfigured
    for an unknown serializer or compression."""
    if not embed:
        if serializer == "json" and compression is None and is_plain(args) and is_plain(kwargs):
            return (
                encode_plain((args, kwargs, NOTHING)),
                serialization.JSON_TYPE,
                "utf-8",
                None,
            )
        embed = {**NOTHING}
    elif len(embed) < len(NOTHING):
        embed = {**NOTHING, **embed}
    if serializer == "json":
        if compression is None and _carries_json(embed):
            chain = embed["chain"]
            if headers is not None and isinstance(chain, Steps) and chain.size >= _LARGE:
                data, headers[blocks.HEADER] = _in_blocks(args, kwargs, embed)
                return data, serialization.JSON_TYPE, "utf-8", GZIP
            return _spliced(args, kwargs, embed), serialization.JSON_TYPE, "utf-8", None
    else:
        embed = plain(embed)
    body = [list(args), kwargs, embed]
    return _compressed(serialization.encode(body, serializer, names=_PARTS), compression)


def _carries_json(embed: Mapping[str, Any]) -> bool:
    return isinstance(embed["chord"], Written) or isinstance(embed["chain"], Steps)


def _spliced(args: Sequence[Any], kwargs: Mapping[str, Any], embed: Mapping[str, Any]) -> bytes:
    """The body around what is JSON already."""
    before, after = _around_chain(args, kwargs, embed)
    return b"".join((before, _json_of(embed["chain"]), after))


def _around_chain(
    args: Sequence[Any], kwargs: Mapping[str, Any], embed: Mapping[str, Any]
) -> tuple[bytes, bytes]:
    """The body before the chain and behind it."""
    before = (
        serialization.encode([list(args), kwargs], names=_PARTS).data[:-1],
        b',{"callbacks":',
        _json_of(embed["callbacks"]),
        b',"errbacks":',
        _json_of(embed["errbacks"]),
        b',"chain":',
    )
    return b"".join(before), b',"chord":%b}]' % _json_of(embed["chord"])


def _in_blocks(
    args: Sequence[Any], kwargs: Mapping[str, Any], embed: Mapping[str, Any]
) -> tuple[bytes, list[Any]]:
    """The body compressed, with the value of the header that says where its blocks are."""
    before, after = _around_chain(args, kwargs, embed)
    found, last = embed["chain"].in_blocks()
    return blocks.write(blocks.Parts(before + b"[", found, last, b"]" + after))


def _json_of(value: Any) -> bytes:
    if value is None:
        return b"null"
    if isinstance(value, Written | Steps):
        try:
            return value.json
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            value = plain(value)  # once more, by the way that says what is wrong
    return serialization.encode(value, names=()).data


def _compressed(encoded: serialization.Encoded, compression: str | None) -> Body:
    content_type, content_encoding, data = encoded
    if not compression:
        return data, content_type, content_encoding, None
    data, mime = compression_.compress(data, compression)
    return data, content_type, content_encoding, mime


def encode_v1(
    *,
    task: str,
    id: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    group: str | None = None,
    group_index: int | None = None,
    retries: int = 0,
    eta: float | None = None,
    expires: float | None = None,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
    callbacks: list[dict[str, Any]] | None = None,
    errbacks: list[dict[str, Any]] | None = None,
    chord: dict[str, Any] | None = None,
    serializer: str = "json",
    compression: str | None = None,
) -> Body:
    """The body of protocol 1, which has no headers (but ``compression``, if any) and no chain:
    the tasks that follow are nested ``callbacks``. Times are epoch seconds."""
    body = {
        "task": task,
        "id": id,
        "args": list(args),
        "kwargs": kwargs,
        "group": group,
        "group_index": group_index,
        "retries": retries,
        "eta": None if eta is None else format_time(eta),
        "expires": None if expires is None else format_time(expires),
        "utc": True,
        "callbacks": callbacks,
        "errbacks": errbacks,
        "timelimit": [time_limit, soft_time_limit],
        "taskset": group,
        "chord": chord,
    }
    return _compressed(serialization.encode(body, serializer), compression)


@functools.cache
def _hostname() -> str:
    return socket.gethostname()


def make_headers(
    *,
    task: str,
    id: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    root_id: str | None = None,
    parent_id: str | None = None,
    shadow: str | None = None,
    eta: float | None = None,
    expires: float | None = None,
    group: str | None = None,
    group_index: int | None = None,
    retries: int = 0,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
    argsrepr: str | None = None,
    kwargsrepr: str | None = None,
    origin: str | None = None,
    ignore_result: bool | None = False,
    replaced_task_nesting: int = 0,
    stamped_headers: Sequence[str] | None = None,
    stamps: Mapping[str, Any] | None = None,
    compression: str | None = None,
    repr_maxlen: int = 1024,
    repr_maxlevels: int = 3,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All headers of protocol 2. Times are epoch seconds (ValueError for one that no calendar
    has), ``root_id`` is the id unless given, ``compression`` the content type that ``encode_body``
    returned. ``extra`` (the caller's own headers) goes over all others."""
    headers: dict[str, Any] = {
        "lang": "py",
        "task": task,
        "id": id,
        "shadow": shadow,
        "eta": None if eta is None else format_time(eta),
        "expires": None if expires is None else format_time(expires),
        "group": group,
        "group_index": group_index,
        "retries": retries,
        "timelimit": [time_limit, soft_time_limit],
        "root_id": root_id or id,
        "parent_id": parent_id,
        "argsrepr": saferepr(args, repr_maxlen, repr_maxlevels) if argsrepr is None else argsrepr,
        "kwargsrepr": (
            saferepr(kwargs, repr_maxlen, repr_maxlevels) if kwargsrepr is None else kwargsrepr
        ),
        "origin": f"gen{os.getpid()}@{_hostname()}" if origin is None else origin,
        "ignore_result": ignore_result,
        "replaced_task_nesting": replaced_task_nesting,
        "stamped_headers": list(stamped_headers) if stamped_headers is not None else None,
        "stamps": dict(stamps) if stamps else {},
    }
    if compression is not None:
        headers["compression"] = compression
    if extra:
        headers.update(extra)
    return headers


_are_usual = frozenset((str, int, bool, type(None), list, dict)).issuperset
_are_strings = frozenset((str,)).issuperset
_are_limits = frozenset((int, type(None))).issuperset


def encode_headers(headers: dict[str, Any]) -> bytes:
    """The headers as a JSON object. Raises EncodeError naming the header that cannot be
    written."""
    limits = headers.get("timelimit")
    kinds = list(map(type, headers.values()))
    if (
        _are_usual(kinds)
        and kinds.count(list) == 1  # then it is timelimit
        and kinds.count(dict) == 1  # then it is stamps
        and headers.get("stamps") == {}
        and type(limits) is list
        and _are_limits(map(type, limits))
        and _are_strings(map(type, headers))
    ):
        return encode_plain(headers)
    return serialization.encode(headers).data
