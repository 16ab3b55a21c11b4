"""What an ``sqlite://`` URL and its options say."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

from celeriac.contracts import Clock
from celeriac.exceptions import ImproperlyConfigured

__all__ = ["Options", "read_options"]

SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")


class Options(Struct, frozen=True, kw_only=True):
    """``timeout``: seconds to wait for another process's lock. ``wal_autocheckpoint``: pages of
    the log after which a commit moves them into the file (0: never). ``dedupe_window``: seconds
    that a key is remembered."""

    path: str
    synchronous: str = "NORMAL"
    timeout: float = 5.0
    wal_autocheckpoint: int = 4000
    dedupe_window: float = 86400.0
    clock: Clock = time.time

    @property
    def store(self) -> str:
        return f"sqlite:///{self.path}"


def read_options(url: str, options: Mapping[str, Any]) -> Options:
    """Raises ImproperlyConfigured for what is not understood. The URL's query goes first."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    given = {**options, **dict(parse_qsl(query, keep_blank_values=True))}
    values: dict[str, Any] = {"path": _path(url, scheme, unquote(place))}
    for name, value in given.items():
        reader = _READERS.get(name)
        if reader is None:
            raise ImproperlyConfigured(_unknown(name, url))
        try:
            values[name] = reader(value)
        except (TypeError, ValueError) as wrong:
            raise ImproperlyConfigured(
                f"The option {name}={value!r} of {url!r} is not usable: {wrong}."
            ) from None
    return Options(**values)


def _path(url: str, scheme: str, place: str) -> str:
    if scheme.lower() != "sqlite" or not place.startswith("/") or place == "/":
        raise ImproperlyConfigured(
            f"{url!r} does not name a file. Write sqlite:///relative/path.db or "
            "sqlite:////absolute/path.db; for a store without a file, use memory://."
        )
    if place == "/:memory:":
        raise ImproperlyConfigured(
            f"{url!r}: a database in memory cannot be shared between processes. "
            "Use memory:// for one process, or name a file."
        )
    return os.path.abspath(os.path.expanduser(place[1:]))


def _unknown(name: str, url: str) -> str:
    near = difflib.get_close_matches(name, _READERS, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{url!r} has no option {name!r}.{hint} Known: {', '.join(sorted(_READERS))}."


def _synchronous(value: Any) -> str:
    name = str(value).upper()
    if name not in SYNCHRONOUS:
        raise ValueError(f"it is one of {', '.join(SYNCHRONOUS)}")
    return name


def _at_least(least: float, kind: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        number = kind(value)
        if not number >= least:
            raise ValueError(f"it is a number of at least {least:g}")
        return number

    return read


def _clock(value: Any) -> Clock:
    if not callable(value):
        raise TypeError("it is a function that gives epoch seconds")
    return value  # type: ignore[no-any-return]


_READERS: dict[str, Callable[[Any], Any]] = {
    "synchronous": _synchronous,
    "timeout": _at_least(0.0, float),
    "wal_autocheckpoint": _at_least(0, int),
    "dedupe_window": _at_least(0.0, float),
    "clock": _clock,
}
