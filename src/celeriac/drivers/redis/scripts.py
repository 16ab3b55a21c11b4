"""The Lua files of this folder. ``-- include: name`` takes in another one; ``-- now`` becomes the
server's time, or, where a clock is given (in tests), the last argument."""

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
_REMARK = re.compile(r"^[ \t]*--[^\n]*\n", re.MULTILINE)


class Script:
    """Its text and hash, for the server's clock and for a given one."""

    def __init__(self, text: str) -> None:
        self._forms = []
        for time in (_SERVER_TIME, _GIVEN_TIME):
            form = _REMARK.sub("", _NOW.sub(time, text)).encode()
            self._forms.append((hashlib.sha1(form).hexdigest().encode(), form))

    def at(self, given_time: bool) -> tuple[bytes, bytes]:
        return self._forms[given_time]


@functools.cache
def script(name: str) -> Script:
    return Script(_read(name))


def _read(name: str) -> str:
    text = resources.files(__package__).joinpath(f"{name}.lua").read_text("utf-8")
    return _INCLUDE.sub(lambda found: _read(found.group(1)), text)
