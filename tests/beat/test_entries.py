"""Entries: what may be written, and what comes back from the store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from celeriac import Celeriac
from celeriac.beat.entries import Definition
from celeriac.exceptions import DecodeError, ImproperlyConfigured
from celeriac.schedules import BaseSchedule, crontab, schedstate, schedule

BERLIN = ZoneInfo("Europe/Berlin")


def made(**entry: Any) -> Definition:
    return Definition.from_dict("e", {"task": "t", "schedule": 30, **entry}, zone=BERLIN)


def test_defaults() -> None:
    entry = made()
    assert (entry.task, entry.args, entry.kwargs, entry.options) == ("t", (), {}, {})
    assert (entry.catch_up, entry.overlap) == ("latest", "allow")
    assert (entry.expires, entry.jitter, entry.start, entry.end) == (None, 0.0, None, None)
    assert entry.when() == "every 30 s"
    assert not entry.polled


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"schedul": 1}, "no 'schedul' in an entry. Did you mean 'schedule'"),
        ({"task": None}, "has no 'task'"),
        ({"schedule": None}, "has no 'schedule'"),
        ({"schedule": "* * * * *"}, "no schedule"),
        ({"schedule": 0}, "an interval of 0 s"),
        ({"overlap": "never"}, "overlap='never' is none of allow, skip, queue"),
        ({"catch_up": "some"}, "catch_up='some'"),
        ({"jitter": -1}, "jitter=-1"),
        ({"expires": "soon"}, "expires='soon'"),
        ({"start": 5}, "start=5"),
        ({"options": {"queu": "x"}}, "no calling option 'queu'"),
        ({"options": {"task_id": "x"}}, "must not give task_id"),
        ({"options": []}, None),
        ({"options": [1]}, "options is a dict"),
        ({"timezone": "Europe/Brelin"}, "Europe/Brelin"),
    ],
)
def test_wrong_entries(entry: dict[str, Any], said: str | None) -> None:
    if said is None:
        assert made(**entry).options == {}
        return
    with pytest.raises(ImproperlyConfigured, match=f"periodic task 'e': .*{said}"):
        made(**entry)


def test_the_zone_is_the_entrys_then_the_schedules_then_the_applications() -> None:
    assert made(schedule=crontab()).zone == BERLIN
    assert made(schedule=crontab(), timezone="Asia/Tokyo").zone.key == "Asia/Tokyo"  # type: ignore[attr-defined]
    assert made(schedule=crontab(timezone="UTC"), timezone="Asia/Tokyo").zone is UTC
    shared = crontab(0, 9)
    entry = made(schedule=shared)
    assert entry.schedule.tz == BERLIN
    assert shared._zone is None, "the application's own object was changed"


def test_start_and_end_are_local_unless_they_say_otherwise() -> None:
    entry = made(start=datetime(2026, 7, 1, 12), end="2026-07-01T12:00+00:00")  # noqa: DTZ001
    assert entry.start == datetime(2026, 7, 1, 10, tzinfo=UTC).timestamp()
    assert entry.end == datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "when", [30, timedelta(hours=1), schedule(7, True), crontab("*/5", "8-17", "mon-fri")]
)
def test_the_store_gives_back_what_was_written(when: Any) -> None:
    entry = made(
        schedule=when,
        args=(1, "ä", Decimal("1.5"), datetime(2026, 1, 1, tzinfo=UTC)),
        kwargs={"x": None},
        options={"queue": "q", "priority": 3},
        catch_up="all",
        catch_up_window=timedelta(hours=2),
        overlap="queue",
        expires=60,
        jitter=5,
        start=datetime(2026, 1, 1, tzinfo=UTC),
    )
    payload = entry.payload("shop")
    assert payload == entry.payload("shop")
    again = Definition.from_payload("e", payload)
    assert again is not None
    assert again.payload("shop") == payload
    for name in ("task", "args", "kwargs", "options", "catch_up", "catch_up_window", "overlap"):
        assert getattr(again, name) == getattr(entry, name)
    assert again.schedule.next_after(1e9, 0.0) == entry.schedule.next_after(1e9, 0.0)
    assert again.when() == entry.when()


def test_what_json_cannot_say_is_local() -> None:
    class Own(schedule):
        pass

    for entry in (made(schedule=Own(5)), made(args=(object(),)), made(options={"queue": object()})):
        payload = entry.payload("shop")
        assert b'"local"' in payload
        assert Definition.from_payload("e", payload) is None


@pytest.mark.parametrize("payload", [b"[]", b'{"task": "t"}', b"{", b'{"timezone": "UTC"}'])
def test_a_stored_entry_that_cannot_be_read(payload: bytes) -> None:
    with pytest.raises((ValueError, DecodeError)):
        Definition.from_payload("e", payload)


def test_schedules_that_must_be_asked() -> None:
    class Asked(BaseSchedule):
        def is_due(self, last_run_at: datetime) -> schedstate:
            return schedstate(False, 1.0)

    class OwnAnswer(crontab):
        def is_due(self, last_run_at: datetime) -> schedstate:
            return schedstate(False, 1.0)

    class OwnTimes(crontab):
        def next_after(self, after: float, anchor: float = 0.0) -> float | None:
            return after + 1

    class Duck:
        def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
            return False, 1.0

    assert made(schedule=Asked()).polled
    assert made(schedule=OwnAnswer()).polled
    assert made(schedule=Duck()).polled
    assert not made(schedule=OwnTimes()).polled


def test_add_periodic_task() -> None:
    app = Celeriac("periodic", broker="memory://", set_as_current=False)

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    first = app.add_periodic_task(10.0, add.s(1, 2), name="add", expires=5, overlap="skip")
    assert first == "add"
    assert app.conf.beat_schedule["add"] == {
        "task": "add",
        "schedule": 10.0,
        "args": (1, 2),
        "kwargs": {},
        "options": {"expires": 5},
        "overlap": "skip",
    }
    second = app.add_periodic_task(crontab(hour=7), add, args=(3, 4), queue="slow")
    assert second == "add()"
    entry = Definition.from_dict(second, app.conf.beat_schedule[second], zone=UTC)
    assert (entry.args, entry.options) == ((3, 4), {"queue": "slow"})


def test_add_periodic_task_before_and_after_the_settings_are_read() -> None:
    app = Celeriac("periodic", broker="memory://", set_as_current=False)
    app.config_from_object({"beat_schedule": {"a": {"task": "t", "schedule": 1}}})
    sig = app.signature("t")
    app.add_periodic_task(1, sig, name="b")

    @app.on_after_configure.connect
    def later(sender: Any, **_: Any) -> None:
        sender.add_periodic_task(1, sig, name="c")

    assert list(app.conf.beat_schedule) == ["a", "b", "c"]
