"""What all schedules are, and the simplest of them: an interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, NamedTuple

from celeriac.schedules.zones import aware, midnight_before, zone_named

__all__ = ["BaseSchedule", "maybe_schedule", "remaining", "schedstate", "schedule"]

SHORTEST = 0.001


class schedstate(NamedTuple):
    """Is it due, and in how many seconds to look again."""

    is_due: bool
    next: float


class BaseSchedule:
    """A schedule gives nominal times: the instants at which something is to run.

    A subclass has ``next_after``, or, as with Celery, ``is_due`` and ``remaining_estimate``
    alone; the latter kind is asked again and again and knows no times in advance. ``nowfun``
    tells the time; ``app`` (the current one by default) the time zone.
    """

    # Of the class, since there are subclasses that set ``tz`` before they call ``__init__``.
    _zone: tzinfo | None = None

    def __init__(
        self,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        *,
        timezone: str | tzinfo | None = None,
    ) -> None:
        self.nowfun = nowfun
        self._app = app
        if timezone is not None:
            self._zone = zone_named(timezone)

    @property
    def app(self) -> Any:
        if self._app is None:
            from celeriac.current import get_current_app

            return get_current_app()
        return self._app

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    @property
    def tz(self) -> tzinfo:
        """The zone whose clocks count."""
        if self._zone is None:
            return zone_named(self.app.timezone)
        return self._zone

    @tz.setter
    def tz(self, zone: str | tzinfo) -> None:
        self._zone = zone_named(zone)

    @property
    def utc_enabled(self) -> bool:
        return bool(self.app.conf.enable_utc)

    def in_zone(self, zone: tzinfo) -> None:
        """Go by this zone's clocks, if none was given."""
        if self._zone is None:
            self._zone = zone_named(zone)

    def now(self) -> datetime:
        """Now; aware, whatever ``nowfun`` gives."""
        return aware(self.nowfun()) if self.nowfun is not None else datetime.now(UTC)

    def next_after(self, after: float, anchor: float) -> float | None:
        """The first nominal time after the instant ``after``; None if there is none. Epoch
        seconds. ``anchor`` is when the entry was made."""
        raise NotImplementedError(f"{type(self).__name__} does not know its times in advance")

    def next(
        self, n: int = 1, *, after: datetime | None = None, anchor: datetime | None = None
    ) -> list[datetime]:
        """The next ``n`` nominal times (fewer if there are no more), in the schedule's zone;
        after now unless told otherwise. An interval counts from ``anchor``, by default ``after``.
        """
        at = aware(after if after is not None else self.now()).timestamp()
        counted_from = aware(anchor).timestamp() if anchor is not None else at
        found: list[datetime] = []
        while len(found) < n:
            following = self.next_after(at, counted_from)
            if following is None:
                break
            at = following
            found.append(datetime.fromtimestamp(at, self.tz))
        return found

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """From now to the run after ``last_run_at``; not positive if it is due."""
        last = aware(last_run_at).timestamp()
        following = self.next_after(last, last)
        if following is None:
            return timedelta.max
        return timedelta(seconds=following - self.now().timestamp())

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Is the run after ``last_run_at`` due, and in how many seconds is the next one?"""
        remaining = self.remaining_estimate(last_run_at).total_seconds()
        if remaining > 0:
            return schedstate(False, remaining)
        now = self.now().timestamp()
        following = self.next_after(now, aware(last_run_at).timestamp())
        return schedstate(True, following - now if following is not None else math.inf)

    def maybe_make_aware(self, dt: datetime, naive_as_utc: bool = True) -> datetime:
        if dt.tzinfo is not None:
            return dt
        return dt.replace(tzinfo=UTC if naive_as_utc else self.tz)

    def to_local(self, dt: datetime) -> datetime:
        return aware(dt).astimezone(self.tz)

    def __eq__(self, other: object) -> bool:
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]


class schedule(BaseSchedule):
    """Every ``run_every`` seconds (or timedelta) of elapsed time.

    Its nominal times are the anchor and whole intervals. With ``relative`` they are counted
    from the midnight before the anchor instead: every 30 seconds is then at :00 and :30.
    """

    def __init__(
        self,
        run_every: float | timedelta | None = None,
        relative: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        *,
        timezone: str | tzinfo | None = None,
    ) -> None:
        super().__init__(nowfun=nowfun, app=app, timezone=timezone)
        if run_every is not None:  # a subclass may set it later
            run_every = _interval(run_every)
        self.run_every = run_every
        self.relative = relative

    @property
    def seconds(self) -> float:
        if self.run_every is None:
            raise ValueError("this schedule was given no interval")
        return self.run_every.total_seconds()

    @property
    def human_seconds(self) -> str:
        return f"{self.seconds:g} seconds" if self.seconds != 1 else "1 second"

    def next_after(self, after: float, anchor: float) -> float | None:
        every = self.seconds
        if self.relative:
            anchor = midnight_before(self.tz, anchor)
        count = math.floor((after - anchor) / every)
        following = anchor + count * every
        while following <= after:  # the division was a little off, or exact
            count += 1
            following = anchor + count * every
        return following

    def is_due(self, last_run_at: datetime) -> schedstate:
        remaining = self.remaining_estimate(last_run_at).total_seconds()
        if remaining > 0:
            return schedstate(False, remaining)
        return schedstate(True, self.seconds)

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds}>" if self.run_every is not None else "<freq: not set>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, schedule):
            return self.run_every == other.run_every
        return self.run_every == other

    __hash__ = None

    def __reduce__(self) -> Any:
        return type(self), (self.run_every, self.relative, self.nowfun)


def _interval(value: float | timedelta) -> timedelta:
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise TypeError(f"{value!r} is no interval: give seconds or a timedelta")
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not SHORTEST <= seconds < math.inf:
        raise ValueError(f"an interval of {seconds:g} s: it is at least {SHORTEST:g} s")
    return value if isinstance(value, timedelta) else timedelta(seconds=seconds)


def remaining(
    start: datetime, ends_in: timedelta, now: datetime | None = None, relative: bool = False
) -> timedelta:
    """From now until ``ends_in`` after ``start``, by elapsed time; negative if that is past. With
    ``relative`` until the full second, minute, hour or day (whatever ``ends_in`` has at least one
    of) at or before that, by the clocks of ``start``'s zone. For schedules of one's own."""
    begin = aware(start)
    end = datetime.fromtimestamp(begin.timestamp() + ends_in.total_seconds(), begin.tzinfo)
    if relative:
        end = _rounded_down(end, ends_in.total_seconds())
    until = aware(now).timestamp() if now is not None else datetime.now(UTC).timestamp()
    return timedelta(seconds=end.timestamp() - until)


def _rounded_down(moment: datetime, seconds: float) -> datetime:
    moment = moment.replace(microsecond=0)
    for least, field in ((60, "second"), (3600, "minute"), (86400, "hour")):
        if seconds < least:
            break
        moment = moment.replace(**{field: 0})  # type: ignore[arg-type]
    return moment


def maybe_schedule(value: Any, relative: bool = False, app: Any = None) -> BaseSchedule:
    """A schedule as it is; of seconds or a timedelta, the interval. Raises TypeError."""
    if isinstance(value, int | float | timedelta) and not isinstance(value, bool):
        return schedule(value, relative, app=app)
    if not (isinstance(value, BaseSchedule) or hasattr(value, "is_due")):
        raise TypeError(
            f"{value!r} is no schedule: give seconds, a timedelta, or one of celeriac.schedules"
        )
    if app is not None and getattr(value, "_app", value) is None:
        value.app = app
    return value  # type: ignore[no-any-return]
