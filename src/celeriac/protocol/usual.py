"""The messages that nearly all are, read and checked in one go.

Plain JSON, every header there and of its usual form, nothing that follows the task. What these
readers refuse, the general ones of task.py read, and say what is wrong with it.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from celeriac.message import Message
from celeriac.protocol.serialization import JSON_TYPE

__all__ = ["usual_headers", "usual_parts"]

_Text = Annotated[str, Meta(min_length=1)]
_Count = Annotated[int, Meta(ge=0, lt=2**31)]
_NoLimits = Annotated[list[None], Meta(min_length=2, max_length=2)]
_Empty = Annotated[dict[str, Any], Meta(max_length=0)]


class _Headers(Struct, forbid_unknown_fields=True, gc=False):
    """Those that checks.check_headers lets pass as they are; in the order of wire-format.md 1.1."""

    lang: str
    task: _Text
    id: _Text
    shadow: str | None
    eta: None
    expires: None
    group: str | None
    group_index: _Count | None
    retries: _Count
    timelimit: _NoLimits
    root_id: _Text
    parent_id: str | None
    argsrepr: str | None
    kwargsrepr: str | None
    origin: str | None
    ignore_result: bool | None
    replaced_task_nesting: _Count
    stamped_headers: None
    stamps: _Empty


class _NoEmbed(Struct, forbid_unknown_fields=True, gc=False):
    callbacks: None
    errbacks: None
    chain: None
    chord: None


class _Body(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    args: list[Any]
    kwargs: dict[str, Any]
    embed: _NoEmbed


_read_headers = msgspec.json.Decoder(_Headers).decode
_read_body = msgspec.json.Decoder(_Body).decode
_REFUSED = (msgspec.DecodeError, ValueError, RecursionError)
_as_dict = msgspec.structs.asdict


def usual_headers(raw: bytes) -> dict[str, Any] | None:
    """The headers; None if they are not the usual ones. They are neither compressed nor do they
    hold halves of surrogate pairs."""
    try:
        return _as_dict(_read_headers(raw))
    except _REFUSED:
        return None


def usual_parts(
    message: Message, accept: frozenset[str]
) -> tuple[list[Any], dict[str, Any], dict[str, Any]] | None:
    """Args, kwargs and what follows (nothing) of a body that is not compressed; None if it is not
    a usual one."""
    body = message.body
    if (
        message.content_type != JSON_TYPE
        or message.content_encoding != "utf-8"
        or JSON_TYPE not in accept
        or b"__type__" in body  # an envelope of json_codec
        or b"\\u00" in body  # which may be hidden so
    ):
        return None
    try:
        found = _read_body(body)
    except _REFUSED:
        return None
    return found.args, found.kwargs, {}
