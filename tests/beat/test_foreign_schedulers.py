"""Schedulers as other packages write them over Celery's base classes: one with its entries in a
database that others change meanwhile, and one that takes a lock and has a loop of its own."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from celeriac import Celeriac, current_app, signals
from celeriac.beat import ScheduleEntry, Scheduler, Service
from celeriac.message import MessageState
from celeriac.schedules import BaseSchedule, crontab, schedstate, schedule


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celeriac]:
    app = Celeriac(
        "foreign", broker=f"sqlite:///{tmp_path}/q.db", timezone="Europe/Berlin", result_expires=60
    )
    yield app
    app.close()


def sent(app: Celeriac) -> Counter[str]:
    """How often each task waits."""
    found = app.admin().peek(None, MessageState.WAITING, 1000)
    return Counter(json.loads(one.message.headers)["task"] for one in found)


def run_until(service: Service, condition: Callable[[], bool]) -> None:
    """Let it run in a thread of its own until then."""
    thread = threading.Thread(target=service.start)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        service.stop()
        thread.join(10)
    assert not thread.is_alive()


# --- entries in a database ------------------------------------------------------------------------


class Table:
    """Rows of name, seconds between runs, whether it is enabled and when it ran last, for any
    thread."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.execute(
            "CREATE TABLE entry (name UNIQUE, every REAL, enabled INT, last REAL, runs INT)"
        )
        self.changes = 0

    def set(self, name: str, every: float, enabled: bool = True) -> None:
        last = time.time() - 0.5
        self.connection.execute(
            "REPLACE INTO entry VALUES (?, ?, ?, ?, 0)", (name, every, enabled, last)
        )
        self.changes += 1

    def rows(self, what: str = "*") -> dict[str, Any]:
        return {row[0]: row for row in self.connection.execute(f"SELECT {what} FROM entry")}


class RowEntry(ScheduleEntry):
    """Made of a row, without the base class's ``__init__``."""

    def __init__(self, row: Any, app: Any = None) -> None:
        self.app = app or current_app._get_current_object()
        self.row = row
        self.name, every, self.enabled, last, self.total_run_count = row
        self.task, self.args, self.kwargs = f"do.{self.name}", [], {}
        self.options = {"headers": {"periodic_task_name": self.name}}
        self.schedule = schedule(every, app=self.app)
        self.last_run_at = datetime.fromtimestamp(last, UTC)

    def is_due(self) -> schedstate:
        if not self.enabled:
            return schedstate(False, 5.0)
        return self.schedule.is_due(self.last_run_at.astimezone(self.app.timezone))

    def __next__(self) -> RowEntry:
        name, every, enabled, _, runs = self.row
        return self.__class__((name, every, enabled, self._default_now().timestamp(), runs + 1))


class TableScheduler(Scheduler):
    """``schedule`` is read anew when the table has changed, while the base class ticks."""

    Entry = RowEntry
    table: Table

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._dirty: dict[str, RowEntry] = {}
        self._read: dict[str, RowEntry] = {}
        self._seen = -1
        self._heap_invalidated = False
        self.defaults: list[str] = []
        Scheduler.__init__(self, *args, **kwargs)
        self.max_interval = kwargs.get("max_interval") or 5

    def setup_schedule(self) -> None:
        self.install_default_entries(self.schedule)
        self.update_from_dict(self.app.conf.beat_schedule)

    def update_from_dict(self, mapping: Any) -> None:
        self.defaults += mapping

    def schedules_equal(self, *args: Any, **kwargs: Any) -> bool:
        if self._heap_invalidated:
            self._heap_invalidated = False
            return False
        return super().schedules_equal(*args, **kwargs)

    def reserve(self, entry: Any) -> Any:
        following = next(entry)
        self._dirty[following.name] = following
        return following

    def sync(self) -> None:
        while self._dirty:
            name, entry = self._dirty.popitem()
            self.table.connection.execute(
                "UPDATE entry SET last = ?, runs = ? WHERE name = ?",
                (entry.last_run_at.timestamp(), entry.total_run_count, name),
            )

    @property
    def schedule(self) -> dict[str, Any]:
        if self._seen != self.table.changes:
            self._heap_invalidated, self._seen = self._seen >= 0, self.table.changes
            self.sync()
            self._read = {name: RowEntry(row, self.app) for name, row in self.table.rows().items()}
            if self._heap_invalidated:
                self._heap = []
        return self._read


def test_a_database_that_others_change(app: Celeriac, tmp_path: Path) -> None:
    app.conf.beat_schedule = {"of the code": {"task": "t", "schedule": 60}}
    table = Table(tmp_path / "entries.db")
    table.set("often", 0.2)
    table.set("later", 3600)
    table.set("off", 0.2, enabled=False)
    cls = type("Here", (TableScheduler,), {"table": table})
    service = Service(app, max_interval=0.1, scheduler_cls=cls)
    run_until(service, lambda: sent(app)["do.often"] >= 3)
    assert set(sent(app)) == {"do.often"}
    assert service.scheduler.defaults == ["celery.backend_cleanup", "of the code"]
    kept = table.rows("name, runs")
    assert kept["often"][1] == sent(app)["do.often"], "the last runs were not written back"
    (first, *_) = app.admin().peek(None, MessageState.WAITING, 1)
    headers = json.loads(first.message.headers)
    assert headers["periodic_task_name"] == "often"
    assert headers["celery_beat_task"] is True

    service = Service(app, max_interval=0.1, scheduler_cls=cls)
    changes: Iterator[Callable[[], None]] = iter(
        [
            lambda: table.set("off", 0.2),
            lambda: table.connection.execute("DELETE FROM entry WHERE name = 'often'"),
        ]
    )
    seen: list[int] = []

    def condition() -> bool:
        if not seen:
            seen.append(sent(app)["do.often"])
            for change in changes:
                change()
        return sent(app)["do.off"] >= 2

    run_until(service, condition)
    assert set(table.rows()) == {"later", "off"}


# --- a lock and a loop of its own -----------------------------------------------------------------


class Locked(Scheduler):
    """Takes its lock when it hears that beat begins, and looks at all entries in every tick."""

    log: list[str] = []

    def __init__(self, app: Any, lazy: bool = False, **kwargs: Any) -> None:
        self.locked = False
        super().__init__(app, lazy=lazy, **kwargs)

    def maybe_due(self, entry: Any, **kwargs: Any) -> float:
        due, wait = entry.is_due()
        if due:
            self.apply_async(entry, **kwargs)
        return float(wait)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        assert self.locked, "it ticks before it was told that beat begins"
        waits = [self.maybe_due(one, producer=self.producer) for one in self.schedule.values()]
        return min([*waits, self.max_interval])

    def close(self) -> None:
        self.locked = False
        super().close()

    @property
    def info(self) -> str:
        return " . lock -> held"


def test_a_lock_and_a_loop_of_its_own(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    app.conf.beat_schedule = {"a": {"task": "do.a", "schedule": 0.1}}

    def lock(sender: Any, **_: Any) -> None:
        sender.scheduler.locked = True

    signals.beat_init.connect(lock)
    try:
        service = Service(app, scheduler_cls=Locked)
        run_until(service, lambda: sent(app)["do.a"] >= 3)
    finally:
        signals.beat_init.disconnect(lock)
    assert service.scheduler.schedule["a"].total_run_count == sent(app)["do.a"]
    assert not service.scheduler.locked
    assert "failed" not in caplog.text


# --- schedules of such packages -------------------------------------------------------------------


class InZone(crontab):
    """Sets its zone before the base class begins."""

    def __init__(self, minute: Any = "*", hour: Any = "*", tz: Any = UTC, app: Any = None) -> None:
        self.tz = tz
        super().__init__(minute, hour, nowfun=lambda: datetime.now(self.tz), app=app)


class At(BaseSchedule):
    """Once, at a time."""

    def __init__(self, when: datetime, nowfun: Any = None, app: Any = None) -> None:
        self.when = when
        super().__init__(nowfun=nowfun, app=app)

    def remaining_estimate(self, last_run_at: datetime | None) -> timedelta:
        return self.when - self.now()

    def is_due(self, last_run_at: datetime) -> schedstate:
        left = self.remaining_estimate(None).total_seconds()
        return schedstate(left <= 0, left if left > 0 else 1e6)


def test_their_schedules(app: Celeriac) -> None:
    tokyo = ZoneInfo("Asia/Tokyo")
    nine = InZone(0, 9, tokyo, app)
    assert nine.tz == tokyo
    assert nine.next(after=datetime(2026, 1, 1, tzinfo=tokyo))[0].hour == 9
    now = datetime.now(UTC)
    assert nine.is_due(now - timedelta(days=2)).is_due
    assert not nine.is_due(now).is_due
    app.conf.beat_schedule = {
        "nine": {"task": "do.nine", "schedule": nine},
        "once": {"task": "do.once", "schedule": At(now - timedelta(seconds=1), app=app)},
        "not yet": {"task": "do.later", "schedule": At(now + timedelta(hours=1), app=app)},
    }
    scheduler = Scheduler(app)
    scheduler.schedule["nine"].last_run_at = now - timedelta(days=2)
    while scheduler.tick() == 0:
        pass
    assert sent(app) == {"do.nine": 1, "do.once": 1}
    scheduler.close()
