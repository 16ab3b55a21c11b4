"""URLs and options of the SQLite driver, and what happens when a database is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from celeriac.drivers.sqlite import admin, broker, results, schema
from celeriac.drivers.sqlite.broker import SqliteBroker
from celeriac.drivers.sqlite.connection import Database
from celeriac.drivers.sqlite.options import read_options
from celeriac.drivers.sqlite.sharing import database
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.message import MessageState
from celeriac.testing.samples import ids, messages, record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.db"


def waiting(made: SqliteBroker) -> list[str]:
    return ids(admin(made).peek(None, MessageState.WAITING, limit=100_000))


# --- URLs and options


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///jobs.db", "{here}/jobs.db"),
        ("sqlite:///a/../jobs.db", "{here}/jobs.db"),
        ("sqlite:////var/jobs.db", "/var/jobs.db"),
        ("sqlite:////var/my%20jobs.db", "/var/my jobs.db"),
        ("SQLite:///jobs.db?synchronous=full", "{here}/jobs.db"),
    ],
)
def test_urls(url: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = path.format(here=tmp_path)
    assert read_options(url, {}).path == expected
    assert broker(url, {}).store == results(url, {}).store == f"sqlite:///{expected}"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://jobs.db", "sqlite:jobs.db"])
def test_urls_that_name_no_file(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="sqlite:///relative/path"):
        read_options(url, {})


def test_memory_is_another_driver() -> None:
    with pytest.raises(ImproperlyConfigured, match="memory://"):
        read_options("sqlite:///:memory:", {})


def test_options_of_url_and_mapping() -> None:
    options = read_options(
        "sqlite:////x.db?synchronous=full&timeout=0.5", {"timeout": 9, "dedupe_window": "60"}
    )
    assert (options.synchronous, options.timeout, options.dedupe_window) == ("FULL", 0.5, 60.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"synchronus": "FULL"}, "Did you mean synchronous.*Known: clock, dedupe_window"),
        ({"visibility_timeout": 3600}, "no option 'visibility_timeout'"),
        ({"synchronous": "SOMETIMES"}, "OFF, NORMAL, FULL, EXTRA"),
        ({"timeout": -1}, "at least 0"),
        ({"timeout": "soon"}, "timeout='soon'"),
        ({"clock": 5}, "gives epoch seconds"),
    ],
)
def test_wrong_options(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=said):
        read_options("sqlite:////x.db", given)


def test_durability_says_what_was_chosen(path: Path) -> None:
    normal = broker(f"sqlite:///{path}", {}).capabilities.durability
    full = broker(f"sqlite:///{path}?synchronous=FULL", {}).capabilities.durability
    assert "synchronous=NORMAL" in normal
    assert "power loss may undo" in normal
    assert "synchronous=FULL" in full
    assert "may undo" not in full


def test_synchronous_reaches_sqlite(path: Path) -> None:
    made = broker(f"sqlite:///{path}?synchronous=FULL", {})
    made.open()
    assert made.kept.fetch("PRAGMA synchronous") == [(2,)]
    assert made.kept.fetch("PRAGMA journal_mode") == [("wal",)]
    assert made.kept.fetch("PRAGMA auto_vacuum") == [(2,)]
    made.close()


def test_old_sqlite(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
    with pytest.raises(OperationalError, match=r"SQLite 3\.34\.1; Celeriac needs 3\.35\.0"):
        broker(f"sqlite:///{path}", {}).open()


# --- starting


def test_the_database_is_shared_by_its_users(path: Path) -> None:
    url = f"sqlite:///{path}"
    made, stored = broker(url, {}), results(url, {"dedupe_window": 5})
    assert made._database is stored._database
    made.open()
    stored.open()
    made.close()
    made.close()
    assert stored._database.connection is not None
    stored.put([record("a")])
    stored.close()
    assert stored._database.connection is None
    assert not Path(f"{path}-wal").exists()


def test_used_without_open_and_after_close(path: Path) -> None:
    made = broker(f"sqlite:///{path}", {})
    assert made.publish(messages("a")) == 1
    made.close()
    made.open()
    assert waiting(made) == ["a"]
    made.close()


def test_migrations_are_applied_in_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = broker(f"sqlite:///{path}", {})
    first.open()
    first.publish(messages("a"))
    first.close()
    second = ("CREATE TABLE colours (name TEXT)",)
    third = ("INSERT INTO colours VALUES ('red')",)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, second, third))
    later = broker(f"sqlite:///{path}", {})
    later.open()
    assert later.kept.fetch("SELECT name FROM colours") == [("red",)]
    assert later.kept.fetch("PRAGMA user_version") == [(len(schema.MIGRATIONS),)]
    assert waiting(later) == ["a"]
    later.close()


def test_a_migration_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = broker(f"sqlite:///{path}", {})
    first.open()
    first.close()
    broken = ("CREATE TABLE colours (name TEXT)", "INSERT INTO nowhere VALUES (1)")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
        with pytest.raises(OperationalError, match="no such table"):
            broker(f"sqlite:///{path}", {}).open()
    again = broker(f"sqlite:///{path}", {})
    again.open()
    assert again.kept.fetch("SELECT name FROM sqlite_master WHERE name = 'colours'") == []
    again.close()


def test_one_database_per_options(path: Path) -> None:
    def made(**options: Any) -> Database:
        return database(read_options(f"sqlite:///{path}", options))

    assert made() is made(clock=lambda: 0.0, dedupe_window=3)
    assert made() is not made(synchronous="FULL")
