"""Celery's base classes, and how schedulers are found."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac, drivers
from celeriac.beat import (
    PersistentScheduler,
    ScheduleEntry,
    Scheduler,
    SchedulingError,
    Service,
    SharedScheduler,
)
from celeriac.beat.scheduler import CLEANUP
from celeriac.beat.service import scheduler_class
from celeriac.exceptions import ImproperlyConfigured
from celeriac.message import Message, MessageState
from celeriac.schedules import crontab, schedstate, schedule


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celeriac]:
    app = Celeriac(
        "base", broker=f"sqlite:///{tmp_path}/q.db", result_expires=None, set_as_current=False
    )
    yield app
    app.close()


def sent(app: Celeriac) -> list[Message]:
    return [one.message for one in app.admin().peek(None, MessageState.WAITING, 1000)]


def names(app: Celeriac) -> list[str]:
    return [json.loads(message.headers)["task"] for message in sent(app)]


# --- the base class itself ------------------------------------------------------------------------


def test_the_schedule_of_the_code(app: Celeriac) -> None:
    app.conf.beat_schedule = {
        "a": {"task": "do.a", "schedule": 0.05, "args": (1,), "options": {"queue": "q"}},
        "b": {"task": "do.b", "schedule": crontab(0, 4)},
    }
    scheduler = Scheduler(app)
    assert set(scheduler.schedule) == {"a", "b"}
    wait = scheduler.tick()
    assert 0 < wait <= 0.05
    entry = scheduler.schedule["a"]
    entry.last_run_at -= timedelta(seconds=1)
    scheduler.populate_heap()
    scheduler.tick()
    assert names(app) == ["do.a"]
    assert sent(app)[0].queue == "q"
    assert scheduler.schedule["a"].total_run_count == 1
    assert scheduler.schedule["a"].last_run_at > entry.last_run_at


def test_one_that_is_not_due_or_fails_does_not_hold_up_the_others(
    app: Celeriac, caplog: pytest.LogCaptureFixture
) -> None:
    class Entry(ScheduleEntry):
        def is_due(self) -> schedstate:
            if self.name == "failing":
                raise ZeroDivisionError("a schedule's mistake")
            if self.name == "off":
                return schedstate(False, next(waits))
            return super().is_due()

    waits = itertools.chain([0.01], itertools.repeat(3600.0))
    cls = type("Here", (Scheduler,), {"Entry": Entry})
    app.conf.beat_schedule = {
        name: {"task": f"do.{name}", "schedule": 0.05} for name in ("failing", "off", "often")
    }
    scheduler = cls(app)
    deadline = time.monotonic() + 10
    while names(app).count("do.often") < 3:
        assert time.monotonic() < deadline
        wait = scheduler.tick()
        assert 0 <= wait < 1
        time.sleep(wait)
    assert set(names(app)) == {"do.often"}
    assert "failing cannot say when it is due" in caplog.text
    assert "off cannot say" not in caplog.text


def test_merge_keeps_the_history(app: Celeriac) -> None:
    app.conf.beat_schedule = {"a": {"task": "do.a", "schedule": 60}}
    scheduler = Scheduler(app)
    scheduler.reserve(scheduler.schedule["a"])
    scheduler.merge_inplace(
        {"a": {"task": "do.other", "schedule": 30}, "b": {"task": "do.b", "schedule": 1}}
    )
    assert scheduler.schedule["a"].task == "do.other"
    assert scheduler.schedule["a"].total_run_count == 1
    scheduler.merge_inplace({"b": {"task": "do.b", "schedule": 1}})
    assert set(scheduler.schedule) == {"b"}


def test_add_and_apply_async(app: Celeriac) -> None:
    scheduler = Scheduler(app)
    entry = scheduler.add(name="x", task="do.x", schedule=5, kwargs={"k": 1})
    scheduler.apply_async(entry)
    assert names(app) == ["do.x"]
    bad = scheduler.add(name="y", task="do.y", schedule=5, args=(object(),))
    with pytest.raises(SchedulingError, match=r"y \(do\.y\) could not be sent"):
        scheduler.apply_async(bad)
    scheduler.apply_entry(bad)  # logged


def test_sync_after_so_many_tasks(app: Celeriac) -> None:
    app.conf.beat_sync_every = 2
    synced = []

    class Counting(Scheduler):
        def sync(self) -> None:
            synced.append(self._tasks_since_sync)

    scheduler = Counting(app)
    scheduler._do_sync()
    synced.clear()
    entry = scheduler.add(name="x", task="do.x", schedule=5)
    for _ in range(4):
        entry = scheduler.reserve(entry)
        scheduler.apply_async(entry, advance=False)
    assert synced == [2, 2]


def test_entries() -> None:
    one = ScheduleEntry("e", "t", schedule=5, args=(1,), options={"queue": "q"})
    fields = dict(one)
    assert fields["name"] == "e"
    assert fields["options"] == {"queue": "q"}
    following = next(one)
    assert following.total_run_count == 1
    assert following == one
    other = ScheduleEntry("e", "u", schedule=6)
    one.update(other)
    assert (one.task, one.schedule) == ("u", schedule(6))
    assert (one < other) != (other < one)
    assert "e u(" in repr(one)


# --- the clean-up of results ----------------------------------------------------------------------


def test_backend_cleanup_is_installed(app: Celeriac) -> None:
    app.conf.result_expires = 3600
    entry = Scheduler(app).schedule[CLEANUP]
    assert entry.schedule == crontab("0", "4", "*")
    assert entry.options == {"expires": 43200}
    shared = SharedScheduler(app)
    assert CLEANUP in shared.schedule
    shared.close()


@pytest.mark.parametrize(
    "setting",
    [
        {"result_expires": None},
        {"result_backend": "disabled://"},
        {"result_backend": "redis://127.0.0.1:1"},  # removes them by itself
        {"result_backend": "rpc://guest@127.0.0.1:1"},  # keeps none
    ],
)
def test_or_not(app: Celeriac, setting: dict[str, Any]) -> None:
    app.conf.update({"result_expires": 3600, **setting})
    assert CLEANUP not in Scheduler(app).schedule


def test_it_can_be_taken_away_or_changed(app: Celeriac) -> None:
    app.conf.result_expires = 3600
    app.conf.beat_schedule = {CLEANUP: None}
    with SharedSchedulerOf(app) as shared:
        assert shared.schedule == {}
    app.conf.beat_schedule = {CLEANUP: {"task": CLEANUP, "schedule": 60}}
    with SharedSchedulerOf(app) as shared:
        assert shared.schedule[CLEANUP].schedule == schedule(60)


class SharedSchedulerOf:
    def __init__(self, app: Celeriac) -> None:
        self.scheduler = SharedScheduler(app)

    def __enter__(self) -> SharedScheduler:
        self.scheduler.tick()
        return self.scheduler

    def __exit__(self, *exc_info: object) -> None:
        self.scheduler.close()


# --- finding schedulers ---------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["celeriac.beat_schedulers", "celery.beat_schedulers"])
def test_by_entry_point(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("table", "celeriac.beat:PersistentScheduler", group)
    points = {group: [point]}
    monkeypatch.setattr(drivers, "entry_points", lambda group: points.get(group, []))
    assert scheduler_class("table") is PersistentScheduler
    with pytest.raises(ImproperlyConfigured, match=r"no scheduler 'tabel'.*Installed: table"):
        scheduler_class("tabel")


@pytest.mark.parametrize(
    "text",
    [
        "celeriac.beat:SharedScheduler",
        "celeriac.beat.SharedScheduler",
        "celery.beat:SharedScheduler",
    ],
)
def test_by_path(text: str) -> None:
    assert scheduler_class(text) is SharedScheduler


def test_by_setting(app: Celeriac) -> None:
    app.conf.beat_scheduler = "celeriac.beat.PersistentScheduler"
    assert Service(app).scheduler_cls is PersistentScheduler
    assert Service(app, scheduler_cls=Scheduler).scheduler_cls is Scheduler
    with pytest.raises(ImproperlyConfigured, match="no scheduler"):
        Service(app, scheduler_cls="nowhere:Class")


def test_the_persistent_scheduler_has_a_file_of_its_own(app: Celeriac, tmp_path: Path) -> None:
    app.conf.beat_schedule = {"a": {"task": "t", "schedule": 60}}
    scheduler = PersistentScheduler(app, schedule_filename=str(tmp_path / "mine.db"))
    scheduler.tick()
    assert (tmp_path / "mine.db").exists()
    assert "a" in scheduler.schedule
    scheduler.close()
