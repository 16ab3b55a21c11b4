"""Is what was decoded a task message? The messages of the errors are for whoever sent it."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from types import NoneType
from typing import Any, NoReturn

from celeriac.exceptions import InvalidTaskError
from celeriac.protocol.saferepr import saferepr
from celeriac.protocol.times import parse_time
from celeriac.protocol.written import Steps

__all__ = ["check_embed", "check_headers", "check_parts", "check_signature", "invalid"]

_are_texts_or_none = frozenset((str, NoneType)).issuperset
_are_strings = frozenset((str,)).issuperset
_IDS = ("root_id", "parent_id", "group")
_TEXTS = (*_IDS, "shadow", "origin", "argsrepr", "kwargsrepr")
_ZERO = 0  # one object in CPython; where it is not, the slower check comes to the same end
_MANY = 2**31  # no count in a message is larger; back-off and the like compute with them


def invalid(what: str, value: Any) -> NoReturn:
    """Raise InvalidTaskError: ``what`` says how it must be."""
    raise InvalidTaskError(f"not a task message: {what}, not {saferepr(value, 200)}")


def check_headers(headers: dict[str, Any]) -> None:
    """Raise InvalidTaskError for a header of the wrong type, and fill in those that TaskMessage
    promises."""
    get = headers.get
    task, id = get("task"), get("id")
    if type(task) is not str or not task:
        invalid("the header task must be the name of a task", task)
    if type(id) is not str or not id:
        invalid("the header id must be a text", id)
    if not _are_texts_or_none(map(type, map(get, _TEXTS))):
        _blame_text(headers)
    if get("retries") is not _ZERO:
        headers["retries"] = _count(headers, "retries") or 0
    if get("group_index") is not None:
        _count(headers, "group_index")
    if get("replaced_task_nesting") is not _ZERO:
        _count(headers, "replaced_task_nesting")
    if get("timelimit") != [None, None]:
        headers["timelimit"] = _timelimit(get("timelimit"))
    if get("stamps") != {} or get("stamped_headers") is not None:
        _check_stamps(headers)
    if get("eta") is not None:
        _check_time(headers, "eta")
    if get("expires") is not None:
        _check_time(headers, "expires")
    ignore = get("ignore_result")
    if ignore is not None and ignore is not False and ignore is not True:
        invalid("the header ignore_result must be true, false or null", ignore)
    if get("root_id") is None:
        headers["root_id"] = id
    if not task.isascii() or not id.isascii():
        check_encodable(headers, ("task", "id"))


def check_encodable(headers: dict[str, Any], names: Iterable[str] = ("task", "id", *_IDS)) -> None:
    """Refuse names and ids that no store can keep: JSON can hold halves of surrogate pairs."""
    for name in names:
        value = headers.get(name)
        try:
            if type(value) is str:
                value.encode()
        except UnicodeEncodeError:
            invalid(f"the header {name} must be a text that UTF-8 can write", value)


def _blame_text(headers: dict[str, Any]) -> None:
    for name in _TEXTS:
        value = headers.get(name)
        if value is not None and type(value) is not str:
            invalid(f"the header {name} must be a text or null", value)


def _count(headers: dict[str, Any], name: str) -> int | None:
    value = headers.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < _MANY:
        invalid(f"the header {name} must be a whole number from 0 to {_MANY - 1}", value)
    return value


def _timelimit(value: Any) -> list[float | None]:
    if value is None:
        return [None, None]
    if not isinstance(value, list | tuple) or len(value) != 2:
        invalid("the header timelimit must be [hard, soft]", value)
    for limit in value:
        if limit is None:
            continue
        if type(limit) not in (int, float) or not 0 <= limit < _MANY or not isfinite(limit):
            invalid("the header timelimit must hold seconds or null", value)
    return list(value)


def _check_stamps(headers: dict[str, Any]) -> None:
    stamps, names = headers.get("stamps"), headers.get("stamped_headers")
    if stamps is None:
        headers["stamps"] = {}
    elif not isinstance(stamps, dict):
        invalid("the header stamps must be an object", stamps)
    if names is not None and not (isinstance(names, list) and _are_strings(map(type, names))):
        invalid("the header stamped_headers must be a list of names or null", names)


def _check_time(headers: dict[str, Any], name: str) -> None:
    try:
        parse_time(headers[name])
    except (ValueError, OverflowError):
        invalid(f"the header {name} must be a time in ISO-8601", headers[name])


def check_parts(args: Any, kwargs: Any, embed: Any) -> tuple[list[Any], dict[str, Any], Any]:
    """The parts of a body in their right types. Raises InvalidTaskError."""
    if type(args) is not list:
        if args is not None and not isinstance(args, list | tuple):
            invalid("args must be a list", args)
        args = list(args or ())
    if type(kwargs) is not dict:
        if kwargs is not None:
            invalid("kwargs must be an object", kwargs)
        kwargs = {}
    if kwargs and not _are_strings(map(type, kwargs)):
        invalid("the names in kwargs must be texts", list(kwargs))
    if type(embed) is not dict:
        if embed is not None:
            invalid("the third part of the body must be an object", embed)
        embed = {}
    if any(embed.values()):
        check_embed(embed)
    return args, kwargs, embed


def check_embed(embed: dict[str, Any]) -> None:
    """What follows the task must be signature dicts. Raises InvalidTaskError."""
    for name in ("callbacks", "errbacks", "chain"):
        signatures = embed.get(name)
        if signatures is None or isinstance(signatures, Steps):
            continue  # the steps of a long chain are looked at when their turn comes
        if not isinstance(signatures, list | tuple):
            invalid(f"{name} must be a list of signatures or null", signatures)
        for signature in signatures:
            check_signature(name, signature)
    if embed.get("chord") is not None:
        check_signature("chord", embed["chord"])


def check_signature(name: str, signature: Any) -> None:
    if not isinstance(signature, dict) or type(signature.get("task")) is not str:
        invalid(f"{name} must hold signatures (objects with a task)", signature)
    check_parts(signature.get("args"), signature.get("kwargs"), None)
    options = signature.get("options")
    if options is not None and not isinstance(options, dict):
        invalid(f"the options of a signature in {name} must be an object", options)
