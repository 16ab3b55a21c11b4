"""Celery's base classes: a scheduler as another package would write it, with its entries in a
database of its own, and how schedulers are found."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
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


# --- a scheduler of another package ---------------------------------------------------------------


class RowEntry(ScheduleEntry):
    """One row of the table."""

    def __init__(self, *, table: sqlite3.Connection, **fields: Any) -> None:
        super().__init__(**fields)
        self.table = table

    def is_due(self) -> schedstate:
        row = self.table.execute("SELECT enabled FROM entry WHERE name = ?", (self.name,))
        if not row.fetchone()[0]:
            return schedstate(False, 5.0)
        return super().is_due()

    def _next_instance(self, last_run_at: datetime | None = None) -> RowEntry:
        self.last_run_at = last_run_at or self.default_now()
        self.total_run_count += 1
        return self

    __next__ = next = _next_instance


class TableScheduler(Scheduler):
    """As django-celery-beat's and others: entries are read from a table, and written back by
    ``sync``."""

    Entry = RowEntry
    database = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.table = sqlite3.connect(self.database)
        self._schedule: dict[str, RowEntry] = {}
        self._dirty: set[str] = set()
        super().__init__(*args, **kwargs)
        self.max_interval = kwargs.get("max_interval") or 5.0

    def setup_schedule(self) -> None:
        self.install_default_entries(self.schedule)
        for name, task, every, last in self.table.execute(
            "SELECT name, task, every, last FROM entry"
        ):
            self._schedule[name] = RowEntry(
                table=self.table,
                name=name,
                task=task,
                schedule=schedule(every, app=self.app),
                last_run_at=datetime.fromtimestamp(last, UTC),
                app=self.app,
            )

    def reserve(self, entry: Any) -> Any:
        following = super().reserve(entry)
        self._dirty.add(following.name)
        return following

    def sync(self) -> None:
        for name in self._dirty:
            entry = self._schedule[name]
            values = (entry.last_run_at.timestamp(), entry.total_run_count, name)
            self.table.execute("UPDATE entry SET last = ?, runs = ? WHERE name = ?", values)
        self.table.commit()
        self._dirty.clear()

    def close(self) -> None:
        super().close()
        self.table.close()

    @property
    def schedule(self) -> dict[str, Any]:
        return self._schedule


@pytest.fixture
def table(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    path = tmp_path / "entries.db"
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE entry (name TEXT, task TEXT, every REAL, last REAL, runs INT, enabled INT)"
    )
    yield connection
    connection.close()


def add_row(table: sqlite3.Connection, name: str, every: float, ago: float, on: int = 1) -> None:
    last = datetime.now(UTC).timestamp() - ago
    table.execute(
        "INSERT INTO entry VALUES (?, ?, ?, ?, 0, ?)", (name, f"do.{name}", every, last, on)
    )
    table.commit()


def test_a_database_scheduler_of_another_package(
    app: Celeriac, table: sqlite3.Connection, tmp_path: Path
) -> None:
    add_row(table, "due", 60, 90)
    add_row(table, "later", 60, 10)
    add_row(table, "off", 60, 90, on=0)
    cls = type("Here", (TableScheduler,), {"database": str(tmp_path / "entries.db")})
    scheduler = cls(app)
    assert set(scheduler.schedule) == {"due", "later", "off"}
    waits = [scheduler.tick() for _ in range(3)]
    assert names(app) == ["do.due"]
    assert waits[0] == 0.0
    assert 0 < waits[1] <= 5.0
    (message,) = sent(app)
    assert json.loads(message.headers)["celery_beat_task"] is True
    scheduler.close()
    assert table.execute("SELECT runs FROM entry ORDER BY name").fetchall() == [(1,), (0,), (0,)]
    again = cls(app)
    again.tick()
    assert names(app) == ["do.due"], "the last run was not kept"
    again.close()


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


@pytest.mark.parametrize("setting", [{"result_expires": None}, {"result_backend": "disabled://"}])
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
