"""Schedules by the clock on the wall.

What happens on the days when clocks are changed:

* **The hour field is anything but ``*`` or ``*/n``** ("fixed hours"): every matching local time
  fires once. One that does not exist, because clocks are set forward over it, fires at the shifted
  time: 02:30 at 03:30, which is as long after midnight as 02:30 always is. Of one that exists
  twice, because clocks are set back, the first counts. If a shifted time meets another of the same
  entry, both are one.
* **The hour field is ``*`` or ``*/n``**: the entry follows elapsed time. Every minute that passes
  is looked at by itself, and fires if clocks then show a matching time. ``30 * * * *`` runs every
  60 minutes all through both nights: never for an hour that is left out, twice for one that is
  repeated.

Day of month and day of week must *both* match, as with Celery and unlike cron.
"""

from __future__ import annotations

from bisect import bisect_left
from calendar import monthrange
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from celeriac.schedules.base import BaseSchedule, schedstate
from celeriac.schedules.fields import FIELDS, ParseException
from celeriac.schedules.zones import DAY, MINUTE, aware, offset_at, offset_change

__all__ = ["crontab"]

_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
# February 29 on a given weekday comes every 28 years, but 40 around 2100.
_MONTHS_AHEAD = 41 * 12
_ONE_MINUTE = timedelta(minutes=1)
_ALL_DAYS = range(1, 32)


class crontab(BaseSchedule):
    """Fires at every minute whose local time matches all five fields. See the module's text for
    the fields' syntax (``celeriac.schedules.fields``) and the rules for changing clocks.

    ``timezone`` is the zone whose clocks count, the application's by default.
    """

    def __init__(
        self,
        minute: Any = "*",
        hour: Any = "*",
        day_of_week: Any = "*",
        day_of_month: Any = "*",
        month_of_year: Any = "*",
        *,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        timezone: str | tzinfo | None = None,
    ) -> None:
        super().__init__(nowfun=nowfun, app=app, timezone=timezone)
        self._orig_minute = minute
        self._orig_hour = hour
        self._orig_day_of_week = day_of_week
        self._orig_day_of_month = day_of_month
        self._orig_month_of_year = month_of_year
        self.minute = FIELDS["minute"].expand(minute)
        self.hour = FIELDS["hour"].expand(hour)
        self.day_of_week = FIELDS["day_of_week"].expand(day_of_week)
        self.day_of_month = FIELDS["day_of_month"].expand(day_of_month)
        self.month_of_year = FIELDS["month_of_year"].expand(month_of_year)
        self._prepare()

    @classmethod
    def from_string(cls, crontab: str, **more: Any) -> crontab:
        """From ``"minute hour day-of-month month day-of-week"``, as in a crontab file."""
        fields = crontab.split()
        if len(fields) != 5:
            raise ParseException(
                f"{crontab!r} has {len(fields)} fields, not five: minute, hour, day of month, "
                "month, day of week"
            )
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year, **more)

    def _prepare(self) -> None:
        longest = max(_LONGEST_MONTH[month - 1] for month in self.month_of_year)
        if min(self.day_of_month) > longest:
            raise ValueError(
                f"{self!r} would never run: none of its months has a day {min(self.day_of_month)}"
            )
        self._minutes = sorted(self.minute)
        self._hours = sorted(self.hour)
        self._days = sorted(self.day_of_month)
        self._weekdays = {(day - 1) % 7 for day in self.day_of_week}  # Monday is 0
        hour = str(self._orig_hour).strip()
        self._answered: tuple[float | None, tzinfo | None, float | None] = (None, None, None)
        self._elapsed = hour == "*" or (hour.startswith("*/") and "," not in hour)

    # --- the calendar, without clocks

    def matches(self, local: datetime) -> bool:
        """Does this local time match all five fields?"""
        return local.minute in self.minute and local.hour in self.hour and self._matches_day(local)

    def _matches_day(self, local: datetime) -> bool:
        return (
            local.month in self.month_of_year
            and local.day in self.day_of_month
            and local.weekday() in self._weekdays
        )

    def _first_from(self, local: datetime) -> datetime | None:
        """The first matching time of the calendar that is not before ``local``, a full minute."""
        if self._matches_day(local):
            time = self._time_from(local.hour, local.minute)
            if time is not None:
                return local.replace(hour=time[0], minute=time[1])
        year, month, day = local.year, local.month, local.day
        for _ in range(_MONTHS_AHEAD):
            if month in self.month_of_year:
                found = self._day_after(year, month, day)
                if found:
                    return datetime(year, month, found, self._hours[0], self._minutes[0])  # noqa: DTZ001
            month, day = month + 1, 0
            if month > 12:
                year, month = year + 1, 1
            if year > 9998:
                break
        return None

    def _time_from(self, hour: int, minute: int) -> tuple[int, int] | None:
        if hour in self.hour:
            at = bisect_left(self._minutes, minute)
            if at < len(self._minutes):
                return hour, self._minutes[at]
        at = bisect_left(self._hours, hour + 1)
        return (self._hours[at], self._minutes[0]) if at < len(self._hours) else None

    def _day_after(self, year: int, month: int, day: int) -> int:
        """The first matching day of the month after ``day``; 0 if there is none."""
        weekday_of_first, length = monthrange(year, month)
        for candidate in self._days[bisect_left(self._days, day + 1) :]:
            if candidate > length:
                break
            if (weekday_of_first + candidate - 1) % 7 in self._weekdays:
                return candidate
        return 0

    # --- instants

    def next_after(self, after: float, anchor: float = 0.0) -> float | None:
        # Thousands of entries may share a schedule and be due at the same moment.
        asked, zone, found = self._answered
        if asked != after or zone is not self.tz:
            zone = self.tz
            found = self._next_elapsed(after) if self._elapsed else self._next_fixed(after)
            self._answered = (after, zone, found)
        return found

    def _next_elapsed(self, after: float) -> float | None:
        """Between two changes of clocks, local time and elapsed time are the same but for an
        offset: go from one such stretch to the next."""
        zone = self.tz
        at = (after // MINUTE + 1) * MINUTE
        while True:
            offset = offset_at(zone, at)
            found = self._first_from(_calendar(at + offset))
            if found is None:
                return None
            candidate = _epoch(found) - offset
            change = offset_change(zone, at, candidate)
            if change is None:
                return candidate
            at = change

    def _next_fixed(self, after: float) -> float | None:
        zone = self.tz
        # A time that was left out up to a day ago may be shifted to after this instant.
        offset = min(offset_at(zone, after), offset_at(zone, after - DAY - MINUTE))
        local = _calendar(after + offset)
        shifted: float | None = None
        until: datetime | None = None
        while True:
            found = self._first_from(local)
            if found is None or (until is not None and found > until):
                return shifted
            at = found.replace(tzinfo=zone).timestamp()  # fold=0: the first of two, or shifted
            if at > after:
                there = datetime.fromtimestamp(at, zone).replace(tzinfo=None, fold=0)
                if there == found:
                    return at if shifted is None else min(at, shifted)
                # One that does not exist: a later time of the calendar may come before it.
                if shifted is None or at < shifted:
                    shifted, until = at, there
            local = found + _ONE_MINUTE

    # --- Celery's questions

    def is_due(self, last_run_at: datetime) -> schedstate:
        """As all schedules; but a run that was missed by more than
        ``beat_cron_starting_deadline`` seconds is not due any more."""
        state = super().is_due(last_run_at)
        deadline = self.app.conf.beat_cron_starting_deadline
        if not state.is_due or deadline is None:
            return state
        now = self.now().timestamp()
        # The latest run that was missed counts, not the first.
        missed = self.next_after(max(aware(last_run_at).timestamp(), now - deadline), 0.0)
        return state if missed is not None and missed <= now else schedstate(False, state.next)

    def __repr__(self) -> str:
        return f"<crontab: {self.text()} (m/h/dM/MY/d)>"

    def text(self) -> str:
        """The five fields in the order of a crontab file, as ``from_string`` reads them."""
        return " ".join(
            _field_text(field)
            for field in (
                self._orig_minute,
                self._orig_hour,
                self._orig_day_of_month,
                self._orig_month_of_year,
                self._orig_day_of_week,
            )
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, crontab):
            return NotImplemented
        mine, theirs = (
            (one.minute, one.hour, one.day_of_week, one.day_of_month, one.month_of_year)
            for one in (self, other)
        )
        return mine == theirs and self._elapsed == other._elapsed and self._zone == other._zone

    __hash__ = None

    def __reduce__(self) -> Any:
        fields = (
            self._orig_minute,
            self._orig_hour,
            self._orig_day_of_week,
            self._orig_day_of_month,
            self._orig_month_of_year,
        )
        return type(self), fields, {"_zone": self._zone}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _field_text(field: Any) -> str:
    if isinstance(field, str):
        return "".join(field.split())
    if isinstance(field, int):
        return str(field)
    return ",".join(_field_text(one) for one in sorted(field, key=str))


def _calendar(local_seconds: float) -> datetime:
    """What clocks show, as a full minute without a zone."""
    at = local_seconds // MINUTE * MINUTE
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None)


def _epoch(local: datetime) -> float:
    return local.replace(tzinfo=UTC).timestamp()
