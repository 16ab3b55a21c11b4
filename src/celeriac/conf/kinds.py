"""What a setting's value may be, and how what people write becomes it.

Text is understood everywhere, not only from the environment: settings modules pass on what
``os.environ.get`` gave them, and ``"false"`` must never come to mean true.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta, tzinfo
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
NOTHING = frozenset({"none", "null"})


class Kind(Generic[T]):
    """A type of value. ``convert`` returns the value as it is kept, or raises ValueError;
    ``expected`` completes the sentence "expected …"; ``nullable``: None is such a value."""

    __slots__ = ("convert", "expected", "nullable")

    def __init__(
        self, expected: str, convert: Callable[[Any], T], *, nullable: bool = False
    ) -> None:
        self.expected = expected
        self.convert = convert
        self.nullable = nullable


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    raise ValueError


def _int(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return int(value.strip())
    raise ValueError


def _number(value: Any) -> float:
    """Whole numbers stay ``int``: they go on the wire as Celery writes them."""
    if isinstance(value, str):
        text = value.strip()
        value = int(text) if text.lstrip("+-").isdigit() else float(text)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError
    return value


def _text(value: Any) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise ValueError
    return value


def _names(value: Any) -> Sequence[str]:
    """A list stays the list it is, so that an application may go on appending to it."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, set | frozenset):
        value = sorted(value)
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise ValueError
    return value


def _json(value: str) -> Any:
    import json  # late: rarely needed, and every process pays for imports

    return json.loads(value)  # its error is a ValueError


def _from_json(value: str, type_: type) -> Any:
    found = _json(value)
    if not isinstance(found, type_):
        raise ValueError
    return found


def _mapping(value: Any) -> dict[Any, Any]:
    """A dict stays the dict it is: applications add to ``conf.beat_schedule`` in place."""
    if isinstance(value, str):
        value = _from_json(value, dict)
    if not isinstance(value, Mapping):
        raise ValueError
    return value if isinstance(value, dict) else dict(value)


def _anything(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return _json(value)
        except ValueError:
            return value
    return value


def _ssl(value: Any) -> bool | dict[str, Any]:
    if isinstance(value, Mapping) or (isinstance(value, str) and value[:1] == "{"):
        return _mapping(value)
    return _bool(value)


def _urls(value: Any) -> str | list[str]:
    if isinstance(value, list | tuple):
        return [_text(url) for url in value]
    return _text(value)


def _rate(value: Any) -> str | float:
    """ "10/s", "10/m", "10/h" or tasks a second."""
    if isinstance(value, str):
        count, slash, unit = value.strip().partition("/")
        float(count)
        if slash and unit.strip() not in ("s", "m", "h"):
            raise ValueError
        return value
    return _number(value)


def _timezone(value: Any) -> str | tzinfo:
    if isinstance(value, tzinfo):
        return value
    name = _text(value)
    if name.upper() == "UTC":
        return "UTC"
    import zoneinfo  # late: it takes 4 ms

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, OSError) as exc:
        raise ValueError from exc
    return name


def _level(value: Any) -> str | int:
    if isinstance(value, str) and not value.strip().isdigit():
        return value.strip().upper()
    return _int(value)


def _concurrency(value: Any) -> int | str:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    number = _int(value)
    if number < 1:
        raise ValueError
    return number


def _grace(value: Any) -> float | None:
    if value is None or (isinstance(value, str) and value.strip().lower() == "done"):
        return None
    return SECONDS.convert(value)


def maybe(kind: Kind[T]) -> Kind[T | None]:
    """The kind, or None where the default is something else."""

    def convert(value: Any) -> T | None:
        return None if value is None else kind.convert(value)

    return Kind(kind.expected, convert, nullable=True)


def _queues(value: Any) -> Any:
    """What is inside is looked at where it is used, in routing.py, which knows queues."""
    if isinstance(value, str):
        return _names(value) if value[:1] not in ("{", "[") else _anything(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return value
    raise ValueError


def _weights(value: Any) -> dict[str, int]:
    found = {str(name): _int(weight) for name, weight in _mapping(value).items()}
    if any(weight < 1 for weight in found.values()):
        raise ValueError
    return found


def _class(value: Any) -> str | type:
    return value if isinstance(value, type) else _text(value)


def _secret(value: Any) -> str | bytes:
    return value if isinstance(value, bytes) else _text(value)


def at_least(minimum: int) -> Kind[int]:
    """Whole numbers from ``minimum`` on."""

    def convert(value: Any) -> int:
        number = _int(value)
        if number < minimum:
            raise ValueError
        return number

    return Kind(f"a whole number, at least {minimum}", convert)


def seconds(*, above: float = -1.0) -> Kind[float]:
    """Durations, not negative: a number of seconds, or a timedelta, which becomes one."""

    def convert(value: Any) -> float:
        number = value.total_seconds() if isinstance(value, timedelta) else _number(value)
        if number < 0 or number <= above:
            raise ValueError
        return number

    limit = "" if above < 0 else f" above {above:g}"
    return Kind(f"seconds{limit} (a number, or a timedelta)", convert)


def one_of(*choices: T) -> Kind[T]:
    """One of a few values; text that looks like one counts."""
    by_text = {str(choice): choice for choice in choices}

    def convert(value: Any) -> T:
        try:
            return by_text[str(value).strip()]
        except KeyError:
            raise ValueError from None

    return Kind("one of " + ", ".join(repr(choice) for choice in choices), convert)


BOOL = Kind("True or False", _bool)
INT = Kind("a whole number", _int)
NUMBER = Kind("a number", _number)
TEXT = Kind("text", _text)
NAMES = Kind("a list of names", _names)
MAPPING = Kind("a dict", _mapping)
ANY = Kind("any value", _anything)
SECONDS = seconds()
SSL = Kind("True, False or a dict of SSL options", _ssl)
URLS = Kind("a URL, or a list of them", _urls)
RATE = Kind('a rate such as "10/s", "10/m" or "10/h", or a number (a second)', _rate)
TIMEZONE = Kind("the name of a time zone such as Europe/Berlin, or a tzinfo", _timezone)
LEVEL = Kind("a log level", _level)
CONCURRENCY = Kind('a whole number from 1 on, or "auto"', _concurrency)
GRACE = Kind('seconds, or "done" or None: until all is done', _grace, nullable=True)
QUEUES = Kind("a list of queues or names, or a dict of name to queue options", _queues)
WEIGHTS = Kind("a dict of queue name to a whole number from 1 on", _weights)
CLASS = Kind("a class, or its path such as pkg.module:Name", _class)
SECRET = Kind("text or bytes", _secret)

BY_TYPE: dict[Any, Kind[Any]] = {
    bool: BOOL,
    int: INT,
    float: NUMBER,
    str: TEXT,
    dict: MAPPING,
    list: NAMES,
    tuple: NAMES,
    object: ANY,
    Any: ANY,
}
