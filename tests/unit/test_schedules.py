"""Schedules: their syntax, Celery's questions, the days when clocks are changed, the sun."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from celeriac import Celeriac
from celeriac.schedules import (
    BaseSchedule,
    ParseException,
    crontab,
    crontab_parser,
    maybe_schedule,
    remaining,
    schedstate,
    schedule,
    solar,
)
from celeriac.schedules.zones import zone_name, zone_named

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: Any = UTC) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


def texts(entry: BaseSchedule, n: int, after: str, zone: Any = BERLIN) -> list[str]:
    return [f"{moment:%m-%d %H:%M%z}" for moment in entry.next(n, after=at(after, zone))]


# --- fields ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "max_", "min_", "expected"),
    [
        ("*", 7, 0, {0, 1, 2, 3, 4, 5, 6}),
        ("*/15", 60, 0, {0, 15, 30, 45}),
        ("*/7", 31, 1, {1, 8, 15, 22, 29}),
        ("5", 60, 0, {5}),
        ("1-5", 7, 0, {1, 2, 3, 4, 5}),
        ("10-20/3", 60, 0, {10, 13, 16, 19}),
        ("8,9, 10", 24, 0, {8, 9, 10}),
        ("fri-mon", 7, 0, {5, 6, 0, 1}),
        ("fri-mon/2", 7, 0, {5, 0}),
        ("22-3", 24, 0, {22, 23, 0, 1, 2, 3}),
        ("Monday,WED", 7, 0, {1, 3}),
        ("jan-mar,december", 12, 1, {1, 2, 3, 12}),
        ("*/2,1", 24, 0, {1, *range(0, 24, 2)}),
    ],
)
def test_fields(spec: str, max_: int, min_: int, expected: set[int]) -> None:
    assert crontab_parser(max_, min_).parse(spec) == expected


@pytest.mark.parametrize(
    ("spec", "max_", "min_", "said"),
    [
        ("", 60, 0, "empty part"),
        ("1,,2", 60, 0, "empty part"),
        ("60", 60, 0, "not within 0-59"),
        ("7", 7, 0, "Sunday is 0"),
        ("0-7", 7, 0, "Sunday is 0"),
        ("0", 31, 1, "not within 1-31"),
        ("-5", 60, 0, "negative"),
        ("*/0", 60, 0, "from 1 on"),
        ("*/x", 60, 0, "from 1 on"),
        ("5/5", 60, 0, "follows"),
        ("1-", 60, 0, "not a number"),
        ("noday", 7, 0, "not a number"),
        ("jan", 60, 0, "not a number"),
        ("mo", 7, 0, "not a number"),
        ("٣", 60, 0, "not a number"),
        ("1.5", 60, 0, "not a number"),
    ],
)
def test_wrong_fields(spec: str, max_: int, min_: int, said: str) -> None:
    with pytest.raises(ParseException, match=said):
        crontab_parser(max_, min_).parse(spec)


def test_a_crontab_names_the_wrong_field() -> None:
    with pytest.raises(ValueError, match=r"day_of_week=7: .*Sunday is 0"):
        crontab(day_of_week=7)
    with pytest.raises(ValueError, match="hour='25'"):
        crontab(hour="25")
    with pytest.raises(TypeError, match=r"minute=1\.5"):
        crontab(minute=1.5)
    with pytest.raises(TypeError, match="minute=None"):
        crontab(minute=None)
    with pytest.raises(ValueError, match="empty"):
        crontab(minute=[])


def test_numbers_sets_and_text_are_the_same() -> None:
    assert crontab(5, {8, 9}, "mon") == crontab("5", "8,9", 1)
    assert crontab(minute=[0, "30"]) == crontab(minute="0,30")
    assert crontab(minute=0) != crontab(minute=1)
    assert crontab(hour="*") != crontab(hour="0-23")  # they differ when clocks are changed


def test_from_string_has_the_order_of_crontab_files() -> None:
    entry = crontab.from_string("1 2 3 4 fri")
    assert entry == crontab(minute=1, hour=2, day_of_month=3, month_of_year=4, day_of_week="friday")
    assert repr(entry) == "<crontab: 1 2 3 4 fri (m/h/dM/MY/d)>"
    assert crontab.from_string(entry.text()) == entry
    with pytest.raises(ValueError, match="4 fields"):
        crontab.from_string("* * * *")


@pytest.mark.parametrize(("day", "month"), [(31, "feb,apr"), ("30,31", 2), (31, {4, 6, 9, 11})])
def test_impossible_dates_are_refused(day: Any, month: Any) -> None:
    with pytest.raises(ValueError, match="would never run"):
        crontab(0, 0, day_of_month=day, month_of_year=month)


def test_29_february_on_a_given_weekday() -> None:
    entry = crontab(0, 0, "sun", 29, 2, timezone="UTC")
    years = [moment.year for moment in entry.next(3, after=at("2090-01-01"))]
    assert years == [2128, 2156, 2184]


def test_both_day_fields_must_match() -> None:
    entry = crontab(0, 0, "fri", 13, timezone="UTC")
    assert texts(entry, 2, "2026-01-01", UTC) == ["02-13 00:00+0000", "03-13 00:00+0000"]


# --- clocks that are changed ----------------------------------------------------------------------


def test_fixed_hours_once_when_clocks_go_forward() -> None:
    entry = crontab(30, 2, timezone=BERLIN)
    expected = ["03-29 02:30+0100", "03-30 03:30+0200", "03-31 02:30+0200"]
    assert texts(entry, 3, "2025-03-29T00:00") == expected


def test_fixed_hours_once_when_clocks_go_back() -> None:
    entry = crontab(30, 2, timezone=BERLIN)
    expected = ["10-25 02:30+0200", "10-26 02:30+0200", "10-27 02:30+0100"]
    assert texts(entry, 3, "2025-10-25T00:00") == expected


def test_a_shifted_time_that_meets_another_is_one() -> None:
    entry = crontab(30, "2,3", timezone=BERLIN)
    expected = ["03-30 03:30+0200", "03-31 02:30+0200"]
    assert texts(entry, 2, "2025-03-30T00:00") == expected


def test_shifted_times_come_in_their_order() -> None:
    """02:50 is shifted to 03:50, after 03:10."""
    entry = crontab("10,50", "2,3", timezone=BERLIN)
    expected = ["03-30 03:10+0200", "03-30 03:50+0200", "03-31 02:10+0200"]
    assert texts(entry, 3, "2025-03-30T00:00") == expected


@pytest.mark.parametrize("hour", ["*", "*/1"])
def test_every_hour_follows_elapsed_time(hour: str) -> None:
    entry = crontab(30, hour, timezone=BERLIN)
    forward = entry.next(6, after=at("2025-03-29T23:00", BERLIN))
    back = entry.next(6, after=at("2025-10-25T23:00", BERLIN))
    for found in (forward, back):
        seconds = [moment.timestamp() for moment in found]
        assert {b - a for a, b in pairwise(seconds)} == {3600}


def test_a_day_that_was_left_out() -> None:
    """Samoa had no 30 December 2011."""
    entry = crontab(0, 12, timezone="Pacific/Apia")
    found = entry.next(3, after=at("2011-12-28T13:00", ZoneInfo("Pacific/Apia")))
    assert [f"{moment:%d %H:%M}" for moment in found] == ["29 12:00", "31 12:00", "01 12:00"]


def test_the_zone_is_the_applications_unless_given() -> None:
    app = Celeriac("zoned", broker="memory://", timezone="Asia/Tokyo", set_as_current=False)
    entry = crontab(0, 9, app=app)
    (found,) = entry.next(after=at("2026-01-01"))
    assert found.isoformat() == "2026-01-02T09:00:00+09:00"
    assert crontab(0, 9, app=app, timezone="UTC").next(after=at("2026-01-01"))[0].hour == 9


def test_zones_by_name() -> None:
    for name in ("UTC", "Europe/Berlin", "UTC+05:30", "UTC-03:00"):
        assert zone_name(zone_named(name)) == name
    with pytest.raises(ValueError, match="Europe/Brelin"):
        zone_named("Europe/Brelin")


# --- intervals ------------------------------------------------------------------------------------


def test_intervals() -> None:
    entry = schedule(timedelta(minutes=10))
    assert entry == schedule(600) == 600 or entry == schedule(600)
    assert repr(schedule(30.0)) == "<freq: 30 seconds>"
    anchor = at("2026-01-01T00:03:20")
    found = entry.next(2, after=at("2026-01-01T00:20"), anchor=anchor)
    assert [moment.minute for moment in found] == [23, 33]


def test_relative_intervals_are_counted_from_midnight() -> None:
    entry = schedule(2, relative=True, timezone="UTC")
    found = entry.next(3, after=datetime.fromtimestamp(1_700_000_001.3, UTC))
    assert [moment.timestamp() for moment in found] == [1700000002, 1700000004, 1700000006]
    entry = schedule(timedelta(minutes=90), relative=True, timezone=BERLIN)
    assert texts(entry, 2, "2026-01-05T01:10") == ["01-05 01:30+0100", "01-05 03:00+0100"]


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), timedelta(0)])
def test_no_interval(value: Any) -> None:
    with pytest.raises(ValueError, match="interval"):
        schedule(value)


def test_maybe_schedule() -> None:
    assert isinstance(maybe_schedule(30), schedule)
    assert maybe_schedule(timedelta(1), relative=True).relative  # type: ignore[attr-defined]
    entry = crontab()
    assert maybe_schedule(entry) is entry
    for wrong in ("* * * * *", None, True):
        with pytest.raises(TypeError, match="no schedule"):
            maybe_schedule(wrong)


# --- Celery's questions ---------------------------------------------------------------------------


def test_is_due() -> None:
    now = at("2026-01-01T10:00:30")
    app = Celeriac("due", broker="memory://", set_as_current=False)
    every = schedule(60, nowfun=lambda: now, app=app)
    assert every.is_due(at("2026-01-01T10:00:00")) == schedstate(False, 30)
    assert every.is_due(at("2026-01-01T09:59:30")) == schedstate(True, 60)
    assert every.remaining_estimate(at("2026-01-01T09:59:00")) == timedelta(seconds=-30)
    hourly = crontab(0, nowfun=lambda: now, app=app)
    assert hourly.is_due(at("2026-01-01T09:30:00")) == schedstate(True, 3570)
    assert hourly.is_due(at("2026-01-01T10:00:00")) == schedstate(False, 3570)


def test_remaining() -> None:
    start = at("2026-03-29T00:30", BERLIN)
    now = at("2026-03-28T23:40")  # ten minutes after that
    assert remaining(start, timedelta(minutes=15), now) == timedelta(minutes=5)
    assert remaining(start, timedelta(minutes=5), now) == timedelta(minutes=-5)
    # Clocks go forward at two: three hours later they show 04:30.
    assert remaining(start, timedelta(hours=3), now) == timedelta(hours=2, minutes=50)
    assert remaining(start, timedelta(hours=3), now, relative=True) == timedelta(
        hours=2.25 + 1 / 12
    )
    assert remaining(start, timedelta(seconds=90), now, relative=True) == timedelta(minutes=-9)
    # The midnight after; the day has 23 hours.
    assert remaining(start, timedelta(days=1), now, relative=True) == timedelta(
        hours=22, minutes=20
    )


def test_naive_times_are_utc() -> None:
    app = Celeriac("naive", broker="memory://", timezone="Asia/Tokyo", set_as_current=False)
    now = datetime(2026, 1, 1, 10, 0, 30)  # noqa: DTZ001
    every = schedule(60, nowfun=lambda: now, app=app)
    assert every.is_due(datetime(2026, 1, 1, 10)) == schedstate(False, 30)  # noqa: DTZ001


def test_the_starting_deadline() -> None:
    now = at("2026-01-01T10:05:00")
    app = Celeriac("dead", broker="memory://", set_as_current=False)
    daily = crontab(0, 10, nowfun=lambda: now, app=app)
    assert daily.is_due(at("2025-12-31T10:00")).is_due
    app.conf.beat_cron_starting_deadline = 60
    assert daily.is_due(at("2025-12-31T10:00")) == schedstate(False, 86400 - 300)
    app.conf.beat_cron_starting_deadline = 301
    assert daily.is_due(at("2025-12-31T10:00")).is_due


def test_copies() -> None:
    for entry in (crontab(5, "*/2", timezone="Asia/Tokyo"), schedule(5, True)):
        for made in (pickle.loads(pickle.dumps(entry)), copy.copy(entry), copy.deepcopy(entry)):
            assert made == entry
            assert repr(made) == repr(entry)


# --- the sun --------------------------------------------------------------------------------------


class TestSolar:
    @pytest.fixture(autouse=True)
    def _library(self) -> None:
        pytest.importorskip("ephem")

    def test_sunset_in_berlin(self) -> None:
        entry = solar("sunset", 52.52, 13.405, timezone=BERLIN)
        found = entry.next(2, after=at("2026-06-20T12:00", BERLIN))
        # Almanacs: 21:33 on both days.
        assert [f"{moment:%d %H:%M}" for moment in found] == ["20 21:33", "21 21:33"]

    def test_the_order_of_a_day(self) -> None:
        events = (
            "dawn_astronomical dawn_nautical dawn_civil sunrise solar_noon sunset dusk_civil "
            "dusk_nautical dusk_astronomical"
        ).split()
        start = at("2026-03-20T00:00")
        found = [solar(event, 0, 0, timezone="UTC").next(after=start)[0] for event in events]
        assert found == sorted(found)
        assert len(set(found)) == len(events)

    def test_days_without_the_event_are_left_out(self) -> None:
        """Tromsø sees no sunset from May to July."""
        entry = solar("sunset", 69.65, 18.96, timezone="UTC")
        (found,) = entry.next(after=at("2026-05-20T12:00"))
        assert at("2026-07-20") < found < at("2026-08-01")

    def test_each_once(self) -> None:
        entry = solar("sunrise", -33.9, 151.2, timezone="UTC")
        found = entry.next(400, after=at("2026-01-01"))
        gaps = {b - a for a, b in pairwise(found)}
        assert timedelta(hours=23, minutes=50) < min(gaps) < max(gaps) < timedelta(hours=24.2)

    def test_wrong(self) -> None:
        with pytest.raises(ValueError, match="those are dawn_astronomical"):
            solar("noon", 0, 0)
        with pytest.raises(ValueError, match="latitude"):
            solar("sunset", 91, 0)
        with pytest.raises(ValueError, match="longitude"):
            solar("sunset", 0, -181)
        assert repr(solar("sunset", 1, 2)) == "<solar: sunset at latitude 1, longitude: 2>"
        assert pickle.loads(pickle.dumps(solar("sunset", 1, 2))) == solar("sunset", 1, 2)
