"""Reading task messages (wire-format.md 1.1, 1.3 and 1.6), whoever wrote them.

A message is protocol 2 if its headers have ``task``; else its body is one object with everything
(protocol 1), and the reader fills in the headers that protocol 2 would have had.
"""

from __future__ import annotations

from typing import Any

from celeriac.exceptions import (
    ContentError,
    DecodeError,
    InvalidTaskError,
    SoftTimeLimitExceeded,
)
from celeriac.message import Message
from celeriac.protocol import blocks, serialization
from celeriac.protocol import compression as compression_
from celeriac.protocol.checks import check_encodable, check_headers, check_parts, invalid
from celeriac.protocol.json_codec import decode_json
from celeriac.protocol.saferepr import saferepr
from celeriac.protocol.task import GZIP, NOTHING, TaskMessage
from celeriac.protocol.times import format_time, parse_time
from celeriac.protocol.usual import usual_headers, usual_parts
from celeriac.protocol.written import Steps

__all__ = ["decode", "decode_headers", "peek_task"]

_PEEKED = 1024 * 1024  # bytes: a larger body is not read to list it


def decode_headers(data: bytes) -> dict[str, Any]:
    """The headers of a message. Raises DecodeError."""
    if data == b"{}":
        return {}
    try:
        headers = decode_json(data)
    except SoftTimeLimitExceeded:
        raise
    except Exception:  # once more, by the way that says what is wrong
        headers = serialization.decode(data, serialization.JSON_TYPE, "utf-8", _JSON_ONLY)
    if type(headers) is not dict:
        raise DecodeError(f"the headers of a message must be an object, not {saferepr(headers)}")
    return headers


_JSON_ONLY = frozenset((serialization.JSON_TYPE,))


def decode(message: Message, accept: frozenset[str]) -> TaskMessage:
    """Read a message. Raises, whatever it holds, nothing but ContentDisallowed (``accept`` lists
    the content types that may be read), DecodeError (bytes that are not of their type) and
    InvalidTaskError (not a task), each saying what is wrong."""
    try:
        return _decode(message, accept)
    except (ContentError, InvalidTaskError, SoftTimeLimitExceeded):
        raise
    except Exception as exc:
        raise InvalidTaskError(
            f"not a task message: reading it raised {type(exc).__name__}: {str(exc)[:200]}"
        ) from exc


def _decode(message: Message, accept: frozenset[str]) -> TaskMessage:
    raw = message.headers
    headers = usual_headers(raw)
    if headers is not None:
        parts = usual_parts(message, accept)
        if parts is not None:
            return TaskMessage(headers, *parts)
    headers = decode_headers(raw)
    places = headers.pop(blocks.HEADER, None)
    body = None if places is None else _read_in_blocks(message, headers, places, accept)
    if body is None:
        body = _read_body(message, headers, accept)
    if "task" in headers:
        if type(body) not in (list, tuple) or len(body) != 3:
            invalid("the body must be [args, kwargs, embed]", body)
        args, kwargs, embed = check_parts(*body)
        protocol = 2
    else:
        args, kwargs, embed = _read_v1(headers, body)
        protocol = 1
    check_headers(headers)
    if b"\\u" in raw or protocol == 1:
        check_encodable(headers)
    return TaskMessage(headers, args, kwargs, embed, protocol)


# A body of at least so many bytes (with a chain in it) is read in parts.
_LONG = 4096
# What such a body has before the steps of its chain and after them, as we and Celery write it.
_BEFORE = (b'"chain":[', b'"chain": [')
_AFTER = (b'],"chord":null}]', b'], "chord": null}]')


_NOTHING_FOLLOWS = b',{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'


def _read_long(body: bytes) -> Any:
    """The parts of a body whose chain is long: its steps stay as they are. None if it is not of
    this kind."""
    for before, after in zip(_BEFORE, _AFTER, strict=True):
        if not body.endswith(after):
            continue
        start = body.find(before)
        while start >= 0:
            start += len(before)
            parts = _around(body[:start])
            if parts is not None:
                parts[2]["chain"] = Steps(text=body[start : -len(after)]) or None
                return parts
            start = body.find(before, start)
    return None


def _around(text: bytes) -> Any:
    """The parts, if the text is a body up to the steps of its chain: there may be other lists of
    this name among the arguments."""
    try:
        parts = decode_json(text + b'],"chord":null}]')
    except (ContentError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return parts if type(parts) is list and len(parts) == 3 and type(parts[2]) is dict else None


def _read_in_blocks(
    message: Message, headers: dict[str, Any], places: Any, accept: frozenset[str]
) -> Any:
    """The parts of a body whose chain is in blocks, which stay as they are. None if the header is
    not of this body: one that somebody has copied, or made up."""
    if message.content_type != serialization.JSON_TYPE or serialization.JSON_TYPE not in accept:
        return None
    found = blocks.read(message.body, places) if headers.get("compression") == GZIP else None
    if found is None or not found.head.endswith(b"["):
        return None
    try:
        parts = decode_json(found.head + found.foot)
        if parts[2]["chain"] == []:
            parts[2]["chain"] = Steps(text=found.last, blocks=found.blocks)
            return parts
    except (ContentError, ValueError, TypeError, LookupError, RecursionError):
        pass
    return None


def _read_body(message: Message, headers: dict[str, Any], accept: frozenset[str]) -> Any:
    body = message.body
    mime = headers.get("compression")
    if mime:
        if message.content_type not in accept:  # refuse it before doing any work for it
            return serialization.decode(b"", message.content_type, "", accept)
        body = compression_.decompress(body, str(mime))
    if (
        len(body) >= _LONG
        and message.content_type == serialization.JSON_TYPE
        and serialization.JSON_TYPE in accept
        and b'"chain"' in body
    ):
        parts = _read_long(body)
        if parts is not None:
            return parts
    if body.endswith(_NOTHING_FOLLOWS) and message.content_type == serialization.JSON_TYPE:
        # As nearly always. What ends so and is JSON is still JSON with the third part left out.
        body = body[: -len(_NOTHING_FOLLOWS)] + b",null]"
    return serialization.decode(body, message.content_type, message.content_encoding, accept)


def _read_v1(
    headers: dict[str, Any], body: Any
) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Fill ``headers`` from a body of protocol 1 and return the parts."""
    if type(body) is not dict or "task" not in body:
        invalid("there must be a task in the headers (protocol 2) or the body (protocol 1)", body)
    args, kwargs, embed = check_parts(
        body.get("args"),
        body.get("kwargs"),
        {name: body.get(name) for name in NOTHING},
    )
    local = body.get("utc") is False
    group = body.get("group")
    headers.update(
        lang="py",
        task=body["task"],
        id=body.get("id"),
        shadow=None,
        eta=_v1_time(body, "eta", local),
        expires=_v1_time(body, "expires", local),
        group=group if group is not None else body.get("taskset"),
        group_index=body.get("group_index"),
        retries=body.get("retries"),
        timelimit=body.get("timelimit"),
        root_id=None,
        parent_id=None,
        argsrepr=saferepr(tuple(args)),
        kwargsrepr=saferepr(kwargs),
        origin=None,
        ignore_result=None,
        replaced_task_nesting=0,
        stamped_headers=None,
        stamps={},
    )
    return args, kwargs, embed


def _v1_time(body: dict[str, Any], name: str, local: bool) -> str | None:
    try:
        epoch = parse_time(body.get(name), local=local)
        return None if epoch is None else format_time(epoch)
    except (ValueError, OverflowError):
        invalid(f"{name} must be a time in ISO-8601", body[name])


def peek_task(message: Message) -> tuple[str, str]:
    """Name and arguments of the task, as far as they can be told, for a list that people read.
    Never raises, and reads no body but JSON."""
    try:
        headers = decode_headers(message.headers)
        if "task" in headers:
            return _text(headers["task"]), _text(headers.get("argsrepr"))
        if (
            message.content_type != serialization.JSON_TYPE
            or "compression" in headers
            or len(message.body) > _PEEKED
        ):
            return "", ""
        body = decode_json(message.body)
        if type(body) is not dict:
            return "", ""
        args = body.get("args")
        shown = tuple(args) if isinstance(args, list) else args
        return _text(body.get("task")), "" if shown is None else saferepr(shown)
    except SoftTimeLimitExceeded:
        raise
    except Exception:
        return "", ""  # it may be anything; decode says what is wrong with it


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if type(value) is str else saferepr(value)
