"""Schedules by the sun. Needs the package ephem: ``pip install celeriac[solar]``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any

from celeriac.exceptions import MissingDependency
from celeriac.schedules.base import BaseSchedule
from celeriac.schedules.zones import DAY, MINUTE

__all__ = ["solar"]

# Event: method of ephem's observer, the sun's height in degrees, and whether its centre is meant
# (else its upper edge). -0:34 is what the air bends at the horizon, as almanacs have it.
_EVENTS: dict[str, tuple[str, str, bool]] = {
    "dawn_astronomical": ("next_rising", "-18", True),
    "dawn_nautical": ("next_rising", "-12", True),
    "dawn_civil": ("next_rising", "-6", True),
    "sunrise": ("next_rising", "-0:34", False),
    "solar_noon": ("next_transit", "0", False),
    "sunset": ("next_setting", "-0:34", False),
    "dusk_civil": ("next_setting", "-6", True),
    "dusk_nautical": ("next_setting", "-12", True),
    "dusk_astronomical": ("next_setting", "-18", True),
}
_DAYS_AHEAD = 400  # beyond the polar circles an event may not come for most of a year


class solar(BaseSchedule):
    """Fires when the sun does ``event`` at this place: degrees, north and east positive. Times
    are rounded to full minutes. Days on which the sun does not do it are left out."""

    def __init__(
        self,
        event: str,
        lat: float,
        lon: float,
        *,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        timezone: str | tzinfo | None = None,
    ) -> None:
        super().__init__(nowfun=nowfun, app=app, timezone=timezone)
        if event not in _EVENTS:
            raise ValueError(f"there is no solar event {event!r}; those are {', '.join(_EVENTS)}")
        if not -90 <= lat <= 90:
            raise ValueError(f"the latitude {lat} is not within -90 and 90 degrees")
        if not -180 <= lon <= 180:
            raise ValueError(f"the longitude {lon} is not within -180 and 180 degrees")
        self.event = event
        self.lat = lat
        self.lon = lon
        self._ephem = _library()

    def next_after(self, after: float, anchor: float = 0.0) -> float | None:
        # Worked out from the beginning of a day of UTC, whatever is asked: the library's answer
        # depends a little on where it begins to look, and an event must have one time only.
        day = after // DAY * DAY - DAY
        for _ in range(_DAYS_AHEAD):
            at = self._event_after(day)
            while at is not None and at < day + DAY:
                rounded = round(at / MINUTE) * MINUTE
                if rounded > after:
                    return rounded
                at = self._event_after(at + 10 * MINUTE)
            day += DAY
        return None

    def _event_after(self, start: float) -> float | None:
        """The first event after ``start``; None if the sun does not do it on that day."""
        method, horizon, centre = _EVENTS[self.event]
        ephem = self._ephem
        place = ephem.Observer()
        place.lat, place.lon = str(self.lat), str(self.lon)
        place.elevation, place.pressure, place.horizon = 0, 0, horizon
        place.date = ephem.Date(datetime.fromtimestamp(start, UTC).replace(tzinfo=None))
        options = {} if method == "next_transit" else {"use_center": centre}
        try:
            found = getattr(place, method)(ephem.Sun(), **options)
        except ephem.CircumpolarError:
            return None
        at: float = found.datetime().replace(tzinfo=UTC).timestamp()
        return at

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat:g}, longitude: {self.lon:g}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, solar):
            return NotImplemented
        return (self.event, self.lat, self.lon) == (other.event, other.lat, other.lon)

    __hash__ = None

    def __reduce__(self) -> Any:
        return type(self), (self.event, self.lat, self.lon)


def _library() -> Any:
    try:
        return importlib.import_module("ephem")
    except ModuleNotFoundError as missing:
        raise MissingDependency(
            "solar schedules need the package 'ephem', which is not installed: "
            "pip install celeriac[solar]"
        ) from missing
