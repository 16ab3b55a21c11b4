"""The Lua files of this folder. ``-- include: name`` takes in another one; ``-- now`` becomes the
server's time, or, where a clock is given (in tests), the last argument. ``-- drains``: a full
server must permit it too. It permits what follows a write that it permits, and so is asked again,
with such a write first, once it has refused."""

from __future__ import annotations

import functools
import hashlib
import re
from importlib import resources

__all__ = ["Script", "script"]

_SERVER_TIME = (
    "local time = redis.call('TIME') "
    "local now_text = string.format('%d.%06d', time[1], time[2]) local now = tonumber(now_text)"
)
_GIVEN_TIME = "local now_text = ARGV[#ARGV] local now = tonumber(now_text)"
_INCLUDE = re.compile(r"^-- include: (\w+)$", re.MULTILINE)
_NOW = re.compile(r"^-- now$", re.MULTILINE)
_DRAINS = re.compile(r"^-- drains$", re.MULTILINE)
_PERMITTED = "redis.call('DEL', KEYS[1] .. 'none')"
_REMARK = re.compile(r"^[ \t]*--[^\n]*\n", re.MULTILINE)


class Script:
    """Its text and hash, for the server's clock and for a given one."""

    def __init__(self, text: str) -> None:
        self.drains = _DRAINS.search(text) is not None
        self._forms = [_form(text, time) for time in (_SERVER_TIME, _GIVEN_TIME)]
        full = _DRAINS.sub(_PERMITTED, text)
        self._full_forms = [_form(full, time) for time in (_SERVER_TIME, _GIVEN_TIME)]

    def at(self, given_time: bool) -> tuple[bytes, bytes]:
        return self._forms[given_time]

    def when_full(self, given_time: bool) -> tuple[bytes, bytes]:
        """The form that a full server permits, if the script drains."""
        return self._full_forms[given_time]


def _form(text: str, time: str) -> tuple[bytes, bytes]:
    form = _REMARK.sub("", _NOW.sub(time, text)).encode()
    return hashlib.sha1(form).hexdigest().encode(), form


@functools.cache
def script(name: str) -> Script:
    return Script(_read(name))


def _read(name: str) -> str:
    text = resources.files(__package__).joinpath(f"{name}.lua").read_text("utf-8")
    return _INCLUDE.sub(lambda found: _read(found.group(1)), text)
