"""Local time and instants. Instants are epoch seconds; local times are told by their zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo

__all__ = ["aware", "midnight_before", "offset_at", "offset_change", "zone_name", "zone_named"]

MINUTE = 60.0
DAY = 86400.0

_FIXED = re.compile(r"UTC([+-])(\d\d):(\d\d)")


def offset_at(zone: tzinfo, at: float) -> float:
    """Seconds by which the zone's clocks are ahead of UTC at this instant."""
    offset = datetime.fromtimestamp(at, zone).utcoffset()
    return offset.total_seconds() if offset is not None else 0.0


def offset_change(zone: tzinfo, start: float, end: float) -> float | None:
    """The first full minute in (start, end] from which on the offset is not that of ``start``."""
    offset = offset_at(zone, start)
    before = start
    while before < end:
        after = min(before + DAY, end)
        if offset_at(zone, after) != offset:
            while after - before > MINUTE:
                middle = before + (after - before) // (2 * MINUTE) * MINUTE
                if offset_at(zone, middle) == offset:
                    before = middle
                else:
                    after = middle
            return after
        before = after
    return None


def midnight_before(zone: tzinfo, at: float) -> float:
    """The instant at which the local day of ``at`` began."""
    day = datetime.fromtimestamp(at, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    return min(day.replace(fold=0).timestamp(), at)


def aware(moment: datetime) -> datetime:
    """The moment with a zone; one without is taken as UTC."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def zone_name(zone: tzinfo) -> str:
    """A text that ``zone_named`` reads: an IANA name, or ``UTC+02:00``. Raises ValueError for a
    zone that has none."""
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if isinstance(name, str):
        return name
    text = str(zone)
    if text == "UTC" or (isinstance(zone, timezone) and _FIXED.fullmatch(text)):
        return text
    raise ValueError(f"the time zone {zone!r} has no name: use zoneinfo.ZoneInfo")


def zone_named(name: str | tzinfo) -> tzinfo:
    """The zone of this name. Raises ValueError if there is none."""
    if isinstance(name, tzinfo):
        # pytz's zones must not be used as other tzinfo are: take the real zone of that name.
        named = getattr(name, "zone", None)
        return zone_named(named) if isinstance(named, str) else name
    if name == "UTC":
        return UTC
    if found := _FIXED.fullmatch(name):
        ahead = timedelta(hours=int(found[2]), minutes=int(found[3]))
        return timezone(ahead if found[1] == "+" else -ahead)
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"there is no time zone {name!r}: write an IANA name such as Europe/Berlin"
        ) from None
