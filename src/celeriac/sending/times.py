"""Times that callers give: to epoch seconds, in the application's zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any


def zone_of(timezone: str | tzinfo | None) -> tzinfo:
    """The zone that the setting ``timezone`` names; UTC without one."""
    if timezone is None or timezone == "UTC":
        return UTC
    if isinstance(timezone, tzinfo):
        return timezone
    from zoneinfo import ZoneInfo  # here: it takes a while to import, and most need none

    return ZoneInfo(timezone)


def due_at(now: float, countdown: Any, eta: Any, zone: tzinfo) -> float | None:
    """When a call may start (epoch seconds); None: at once."""
    if countdown is not None:
        try:
            return now + float(countdown)
        except (TypeError, ValueError):
            raise TypeError(f"countdown={countdown!r}: expected a number of seconds") from None
    if eta is None:
        return None
    return instant(eta, "eta", zone)


def expires_at(now: float, expires: Any, zone: tzinfo) -> float | None:
    """After when a call must not start; a number is seconds from now."""
    if expires is None:
        return None
    if isinstance(expires, timedelta):
        return now + expires.total_seconds()
    if isinstance(expires, int | float):
        return now + float(expires)
    return instant(expires, "expires", zone)


def instant(value: Any, what: str, zone: tzinfo) -> float:
    """Epoch seconds of a datetime or ISO text; naive ones are in ``zone``."""
    given = value
    if isinstance(value, str):
        try:
            given = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{what}={value!r} is not an ISO-8601 time") from None
    if isinstance(given, datetime):
        return (given if given.tzinfo else given.replace(tzinfo=zone)).timestamp()
    raise TypeError(f"{what}={value!r}: expected a datetime, got {type(value).__name__}")
