"""Hiding what must not be seen in a log, a report or a dashboard."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "********"

_SECRET_WORD = r"passw(?:or)?d|passphrase|secret|token|credential|private_?key|access_?key|api_?key"
_SECRET_NAME = re.compile(_SECRET_WORD, re.IGNORECASE)
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)")
_PARAMETER = re.compile(
    rf"(?P<key>(?:^|[?&;])[^=&;?#\s]*(?:{_SECRET_WORD}|\bpass|\bpwd|\bsig|account_?key|"
    r"sharedaccesssignature)[^=&;?#\s]*=)[^&;#\s]*",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Whether what goes by this name should not be shown."""
    return bool(_SECRET_NAME.search(name))


def hide_in_url(text: str) -> str:
    """Mask the passwords in a URL, or in several in one string.

    A password may hold any character, also unescaped, so all from the first colon to the last
    ``@`` goes: rather too much than a part of it left.
    """
    if "://" not in text:
        return text
    parts = _ADDRESS.split(text)
    shown = [parts[0]]
    for scheme, rest in zip(parts[1::2], parts[2::2], strict=True):
        user_info, at, place = rest.rpartition("@")
        if at:
            user, colon, _ = user_info.partition(":")
            rest = f"{user}:{MASK}@{place}" if colon else rest
        shown += [scheme, _PARAMETER.sub(rf"\g<key>{MASK}", rest)]
    return "".join(shown)


def hide(value: Any) -> Any:
    """The value with every secret in it masked, whatever it is nested in."""
    if isinstance(value, str):
        return hide_in_url(value)
    if isinstance(value, Mapping):
        return {
            key: MASK if item and is_secret_name(str(key)) else hide(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        hidden = [hide(item) for item in value]
        return tuple(hidden) if isinstance(value, tuple) else hidden
    return value
