"""Times on the wire: ISO-8601 text; in the program: epoch seconds."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any

__all__ = ["format_time", "parse_time"]

_MILLION = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


def format_time(epoch: float) -> str:
    """ISO-8601 with the offset ``+00:00``. Raises ValueError for what is not in the years 1 to
    9999."""
    try:
        second, micro = divmod(round(epoch * _MILLION), _MILLION)
        text = _second(second)
    except (ValueError, OverflowError, OSError) as exc:
        raise ValueError(f"{epoch!r} is not a time (epoch seconds) that can be written") from exc
    return f"{text}.{micro:06d}+00:00" if micro else f"{text}+00:00"


@functools.lru_cache(maxsize=8)
def _second(epoch: int) -> str:
    """Many tasks end in the same second."""
    return datetime.fromtimestamp(epoch, UTC).replace(tzinfo=None).isoformat()


def parse_time(value: Any, *, local: bool = False) -> float | None:
    """Epoch seconds of ISO-8601 text, a number (epoch seconds already), a datetime, or None.
    Without an offset it is UTC (``local``: this machine's zone). Raises ValueError."""
    if value is None:
        return None
    if type(value) is str:
        value = datetime.fromisoformat(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if isfinite(value) and abs(value) < 1e15:
            return float(value)
        raise ValueError(f"{value!r} is not a time in epoch seconds")
    if not isinstance(value, datetime):
        raise ValueError(f"a value of type {type(value).__name__} is not a time")
    if value.tzinfo is None:
        value = value.astimezone() if local else value.replace(tzinfo=UTC)
    epoch: float = (value - _EPOCH) / _SECOND
    return epoch
