"""Schedules against a walker that goes minute by minute and applies the written rules, over zones
and instants from 2000 to 2040."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from celeriac.schedules import crontab, schedule

MINUTE = timedelta(minutes=1)
LONGEST = dict(enumerate([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], 1))
START, END = 946684800, 2208988800  # 2000, 2040
ZONES = sorted(name for name in available_timezones() if name not in ("localtime", "posixrules"))
# Where clocks do what elsewhere they do not: half an hour, a whole day, at midnight, at a minute
# past it, twice a year for Ramadan.
ODD = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/Havana",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Africa/Casablanca",
    "Asia/Tehran",
    "Asia/Pyongyang",
    "America/Caracas",
    "Antarctica/Troll",
    "Asia/Gaza",
    "America/Asuncion",
]


# --- the walker -----------------------------------------------------------------------------------


def walk(zone: ZoneInfo, start: int, minutes: int) -> list[tuple[datetime, datetime]]:
    """Each minute that passes, with what the clocks of the zone show then."""
    moments = [datetime.fromtimestamp(start + 60 * n, UTC) for n in range(minutes)]
    return [(at, at.astimezone(zone).replace(tzinfo=None, fold=0)) for at in moments]


def instants(
    fields: dict[str, set[int]], elapsed: bool, zone: ZoneInfo, start: int, hours: int
) -> list[float]:
    """When the entry fires within the hours after ``start``, by the rules as they are written."""
    begin = start // 60 * 60 - 2 * 86400  # a shifted time comes up to a day later
    steps = walk(zone, begin, 2 * 1440 + hours * 60 + 1)
    fired: set[datetime] = set()
    if elapsed:
        fired = {at for at, local in steps if matches(local, fields)}
    else:
        seen: set[datetime] = set()
        for (_, before), (at, local) in pairwise(steps):
            missing = before + MINUTE
            while missing < local:  # clocks were set forward: times that do not exist
                if matches(missing, fields) and missing not in seen:
                    fired.add(at + (missing - (before + MINUTE)))
                seen.add(missing)
                missing += MINUTE
            if local not in seen and matches(local, fields):  # the first of two
                fired.add(at)
            seen.add(local)
    end = start + hours * 3600
    return sorted(t for t in (at.timestamp() for at in fired) if start < t <= end)


def matches(local: datetime, fields: dict[str, set[int]]) -> bool:
    """Day of the month *and* day of the week, as Celery has it."""
    return (
        local.minute in fields["minute"]
        and local.hour in fields["hour"]
        and local.day in fields["day_of_month"]
        and local.month in fields["month_of_year"]
        and local.isoweekday() % 7 in fields["day_of_week"]
    )


# --- what is tried --------------------------------------------------------------------------------


Fields = st.SearchStrategy[tuple[str, set[int]]]
DAYS = "sunday monday tuesday wednesday thursday friday saturday".split()
MONTHS = (
    "january february march april may june july august september october november december"
).split()


def field(first: int, last: int, names: Sequence[str] = ()) -> Fields:
    """A field's text, and its numbers by a reading of its own."""
    whole = list(range(first, last + 1))
    number = st.integers(first, last)

    def spelt(n: int, how: int) -> tuple[str, int]:
        name = names[n - first] if names else str(n)
        return (str(n), name, name[:3], name[:3].upper())[how if names else 0], n

    word = st.builds(spelt, number, st.integers(0, 3))

    def ranged(start: tuple[str, int], end: tuple[str, int], step: int) -> tuple[str, set[int]]:
        (a, at), (b, until) = start, end
        found = [at]
        while at != until:
            at = first if at == last else at + 1
            found.append(at)
        return (f"{a}-{b}/{step}" if step > 1 else f"{a}-{b}"), set(found[::step])

    one = st.one_of(
        word.map(lambda spelt: (spelt[0], {spelt[1]})),
        st.builds(ranged, word, word, st.integers(1, 5)),
    )
    listed = st.lists(one, min_size=1, max_size=3).map(
        lambda parts: (",".join(t for t, _ in parts), set().union(*(s for _, s in parts)))
    )
    star = st.just(("*", set(whole)))
    stepped = st.integers(1, last).map(lambda n: (f"*/{n}", set(whole[::n])))
    return st.one_of(star, stepped, listed)


@cache
def changes(name: str) -> list[int]:
    """Days on which the zone's clocks are changed."""
    zone = ZoneInfo(name)
    days = range(START, END, 86400)
    offsets = [datetime.fromtimestamp(day, zone).utcoffset() for day in days]
    found = [day for day, (a, b) in zip(days, pairwise(offsets), strict=False) if a != b]
    return found or [START]


@st.composite
def moments(draw: st.DrawFn) -> tuple[str, int]:
    """A zone and an instant, mostly near a change of clocks."""
    name = draw(st.sampled_from(ODD) | st.sampled_from(ZONES))
    if draw(st.integers(0, 3)):
        day = draw(st.sampled_from(changes(name)))
        return name, day + draw(st.integers(-90_000, 90_000))
    return name, draw(st.integers(START, END))


USUAL = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))


@USUAL
@given(moments(), field(0, 59), field(0, 23), field(0, 6, DAYS))
@example(("Pacific/Apia", 1325203200), ("0", {0}), ("0", {0}), ("*", set(range(7))))
@example(("America/St_Johns", 1162609200), ("30", {30}), ("*", set(range(24))), ("6", {6}))
def test_crontab_fires_as_the_walker_says(
    moment: tuple[str, int],
    minute: tuple[str, set[int]],
    hour: tuple[str, set[int]],
    weekday: tuple[str, set[int]],
) -> None:
    name, start = moment
    zone = ZoneInfo(name)
    entry = crontab(minute[0], hour[0], weekday[0], timezone=zone)
    fields = {
        "minute": minute[1],
        "hour": hour[1],
        "day_of_week": weekday[1],
        "day_of_month": set(range(1, 32)),
        "month_of_year": set(range(1, 13)),
    }
    elapsed = hour[0] == "*" or (hour[0].startswith("*/") and "," not in hour[0])
    expected = instants(fields, elapsed, zone, start, hours=54)
    found: list[float] = []
    at: float | None = float(start)
    while at is not None:
        at = entry.next_after(at, 0.0)
        if at is None or at > start + 54 * 3600:
            break
        found.append(at)
    assert found == expected


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(ODD) | st.sampled_from(ZONES),
    st.integers(START, END),
    field(1, 31),
    field(1, 12, MONTHS),
    field(0, 6, DAYS),
    st.booleans(),
)
def test_dates_are_found_and_none_is_passed_over(
    name: str,
    start: int,
    day: tuple[str, set[int]],
    month: tuple[str, set[int]],
    weekday: tuple[str, set[int]],
    elapsed: bool,
) -> None:
    """Far ahead, day by day: noon exists in every zone on every day but the one Samoa left out."""
    zone = ZoneInfo(name)
    hour = "*/12" if elapsed else "12"
    assume(min(day[1]) <= max(LONGEST[number] for number in month[1]))
    entry = crontab("0", hour, weekday[0], day[0], month[0], timezone=zone)
    found = entry.next_after(float(start), 0.0)
    noon = datetime.fromtimestamp(start, zone).replace(hour=12, minute=0, second=0, tzinfo=None)
    fields = {"day_of_month": day[1], "month_of_year": month[1], "day_of_week": weekday[1]}
    fields |= {"minute": {0}, "hour": {12}}
    for ahead in range(-1, 366 * 41):
        local = noon + timedelta(days=ahead)
        if not matches(local, fields):
            continue
        expected = local.replace(tzinfo=zone).timestamp()
        if expected > start:
            break
    else:
        expected = None
    # Midnight, which the entry has too; twice where clocks are set back then.
    while elapsed and found is not None and datetime.fromtimestamp(found, zone).hour == 0:
        assert expected is not None
        assert start < found < expected
        found = entry.next_after(found, 0.0)
    assert found == expected


@USUAL
@given(
    st.integers(START, END),
    st.floats(0.01, 1e6, allow_nan=False),
    st.integers(0, 10_000),
    st.sampled_from(ODD),
    st.booleans(),
)
def test_intervals_are_anchor_and_whole_intervals(
    anchor: int, every: float, count: int, zone: str, relative: bool
) -> None:
    entry = schedule(every, relative, timezone=zone)
    every = entry.seconds
    origin = float(anchor)
    if relative:
        day = datetime.fromtimestamp(anchor, ZoneInfo(zone))
        origin = day.replace(hour=0, minute=0, second=0, fold=0).timestamp()
        origin = min(origin, float(anchor))
    nominal = origin + count * every
    following = entry.next_after(nominal, float(anchor))
    assert following == origin + (count + 1) * every
    between = entry.next_after(nominal - every / 2, float(anchor))
    assert between is not None
    assert abs(between - nominal) < 1e-6
