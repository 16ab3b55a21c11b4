"""What can be wrong with a database file, and what the driver says and keeps then."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac.drivers.sqlite import admin, broker, results, schema
from celeriac.drivers.sqlite.broker import SqliteBroker
from celeriac.drivers.sqlite.connection import Database
from celeriac.drivers.sqlite.options import read_options
from celeriac.drivers.sqlite.sharing import database
from celeriac.exceptions import CorruptStore, ImproperlyConfigured, OperationalError
from celeriac.message import MessageState, Owner, Settlement, Worker
from celeriac.testing.samples import QUEUE, done, ids, message, messages, record

OWNER = Owner("w1", 1, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.db"


@pytest.fixture
def opened(path: Path) -> Iterator[SqliteBroker]:
    made = broker(f"sqlite:///{path}", {})
    made.open()
    made.register(Worker(lease="w1", ttl=60.0))
    yield made
    made.close()


def waiting(made: SqliteBroker) -> list[str]:
    return ids(admin(made).peek(None, MessageState.WAITING, limit=100_000))


def refused(path: Path, **options: Any) -> str:
    """What opening the file raises."""
    with pytest.raises(OperationalError) as caught:
        broker(f"sqlite:///{path}", options).open()
    assert f"sqlite:///{path}" in str(caught.value)
    return str(caught.value)


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


# --- files that cannot be used


def test_no_directory(tmp_path: Path) -> None:
    said = refused(tmp_path / "missing" / "test.db")
    assert f"The directory {tmp_path}/missing does not exist: create it" in said


def test_a_directory(tmp_path: Path) -> None:
    assert "It is a directory" in refused(tmp_path)


def test_not_a_database(path: Path) -> None:
    path.write_bytes(b"id;name;amount\n" * 500)
    with pytest.raises(CorruptStore, match="is not an SQLite database"):
        broker(f"sqlite:///{path}", {}).open()
    assert path.read_bytes().startswith(b"id;name")


def test_somebody_elses_database(path: Path) -> None:
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE auth_user (id INTEGER PRIMARY KEY)")
    theirs.close()
    with pytest.raises(CorruptStore, match=r"another program \(it holds auth_user\)"):
        broker(f"sqlite:///{path}", {}).open()
    after = sqlite3.connect(path)
    assert after.execute("SELECT name FROM sqlite_master").fetchall() == [("auth_user",)]
    assert after.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    after.close()


def test_somebody_elses_empty_database(path: Path) -> None:
    theirs = sqlite3.connect(path)
    theirs.execute("PRAGMA application_id = 77")
    theirs.close()
    with pytest.raises(CorruptStore, match="another program"):
        broker(f"sqlite:///{path}", {}).open()


def test_a_newer_schema(opened: SqliteBroker, path: Path) -> None:
    opened.close()
    later = sqlite3.connect(path, isolation_level=None)
    later.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    later.close()
    assert "newer Celeriac" in refused(path)


def test_truncated(opened: SqliteBroker, path: Path) -> None:
    for _ in range(20):
        opened.publish([message(f"m{number}") for number in range(100)])
    opened.close()
    whole = path.stat().st_size
    os.truncate(path, whole // 3)
    with pytest.raises(CorruptStore, match=r"damaged.*\.recover"):
        again = broker(f"sqlite:///{path}", {})
        again.open()
        again.register(Worker(lease="w2", ttl=60.0))
        again.claim(Owner("w2", 1, 1), [QUEUE], 10_000)


def test_damaged_pages(opened: SqliteBroker, path: Path) -> None:
    opened.publish([message(f"m{number}") for number in range(2000)])
    opened.close()
    with path.open("r+b") as file:
        for page in range(4, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xa5" * 64)
    again = broker(f"sqlite:///{path}", {})
    with pytest.raises(CorruptStore, match="damaged"):
        again.open()
        admin(again).peek(None, MessageState.WAITING)
        again.register(Worker(lease="w2", ttl=60.0))
        again.claim(Owner("w2", 1, 1), [QUEUE], 1000)
    again._database.close_connection()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_no_permission(opened: SqliteBroker, path: Path) -> None:
    opened.close()
    path.chmod(0o444)
    assert "cannot be" in refused(path)


# --- rows that something else has written into


def test_mangled_rows_are_handed_out(opened: SqliteBroker, path: Path) -> None:
    """A row that cannot be understood must not stop its queue: it goes to a worker, who buries
    it."""
    opened.publish(messages("a", "b", "c", "d"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("UPDATE messages SET headers = 'text', body = 7 WHERE id = 'a'")
    other.execute("UPDATE messages SET run = CAST(x'ff61' AS TEXT) WHERE id = 'b'")
    other.execute("UPDATE messages SET queue = 999 WHERE id = 'c'")
    other.close()
    claimed = opened.claim(OWNER, [QUEUE], 10)
    assert ids(claimed) == ["a", "b", "c", "d"]
    assert [claimed[0].message.headers, claimed[0].message.body] == [b"text", b"7"]
    assert claimed[1].message.run == "\\xffa"
    opened.settle([done(delivery) for delivery in claimed])
    assert admin(opened).queues() == []


def test_a_place_without_a_message(opened: SqliteBroker, path: Path) -> None:
    opened.publish(messages("a", "b"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("DELETE FROM messages WHERE id = 'a'")
    other.close()
    assert ids(opened.claim(OWNER, [QUEUE], 10)) == ["b"]


# --- a file that goes away


def test_deleted_while_open(opened: SqliteBroker, path: Path) -> None:
    """What is published after somebody deleted the file must not go into the deleted one."""
    opened.publish(messages("a"))
    for name in path.parent.iterdir():
        name.unlink()
    opened._database._looked_at = 0.0  # the time to look again has come
    opened.publish(messages("b"))
    other = sqlite3.connect(path)
    assert other.execute("SELECT id FROM messages").fetchall() == [("b",)]
    other.close()


# --- a file that is locked


def test_locked(opened: SqliteBroker, path: Path) -> None:
    impatient = broker(f"sqlite:///{path}?timeout=0.05", {})
    impatient.open()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match=r"locked by another process for 0\.05 s"):
        impatient.publish(messages("a"))
    assert waiting(impatient) == []  # reading goes on
    holder.execute("ROLLBACK")
    holder.close()
    assert impatient.publish(messages("a")) == 1
    impatient.close()


def test_a_busy_writer_does_not_block_readers_of_the_process(path: Path) -> None:
    made = broker(f"sqlite:///{path}?timeout=30", {})
    made.open()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    writer = threading.Thread(target=made.publish, args=(messages("a"),))
    writer.start()
    assert waiting(made) == []
    assert writer.is_alive()
    holder.execute("ROLLBACK")
    writer.join(30)
    assert waiting(made) == ["a"]
    holder.close()
    made.close()


def test_an_interrupted_transaction_is_rolled_back(opened: SqliteBroker) -> None:
    class Alarm(BaseException):
        pass

    with pytest.raises(Alarm), opened.kept.write() as connection:
        connection.execute("DELETE FROM leases")
        raise Alarm
    assert opened.heartbeat("w1").alive


# --- a full disk

FILL = """
import resource, signal, sys
from celeriac.drivers.sqlite import broker
from celeriac.exceptions import OperationalError
from celeriac.message import Owner, Settlement, Worker
from celeriac.testing.samples import QUEUE, message

made = broker(sys.argv[1], {})
made.open()
made.register(Worker(lease="w1", ttl=3600.0))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
stored = 0
try:
    while True:
        stored += made.publish([message(f"{stored + n}", body=b"x" * 5000) for n in range(20)])
except OperationalError as error:
    print(stored)
    print(error)
owner = Owner("w1", 1, 1)
if not limit:
    done = 0
    while claimed := made.claim(owner, [QUEUE], 10):
        made.settle([Settlement(delivery=delivery) for delivery in claimed])
        done += len(claimed)
    print(done)
"""


def fill(url: str, limit: int) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", FILL, url, str(limit)], capture_output=True, text=True, timeout=100
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_no_more_room_for_the_file(path: Path) -> None:
    """As the system says it with a limit on file sizes: nothing that was accepted is lost."""
    limit = 3_000_000
    stored, said, *_ = fill(f"sqlite:///{path}", limit)
    assert f"sqlite:///{path}" in said
    made = broker(f"sqlite:///{path}", {})
    made.open()
    assert len(waiting(made)) == int(stored) > 100
    made.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this system mounts nothing for us")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_drains(small_disk: Path) -> None:
    """Full: a clear error, nothing half done, everything that was accepted can be claimed and
    settled without freeing anything by hand."""
    stored, said, drained = fill(f"sqlite:///{small_disk}/test.db", 0)
    assert "No space is left" in said
    assert int(stored) == int(drained) > 100


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
    assert later.kept.fetch("PRAGMA user_version") == [(3,)]
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
        assert "no such table" in refused(path)
    again = broker(f"sqlite:///{path}", {})
    again.open()
    assert again.kept.fetch("SELECT name FROM sqlite_master WHERE name = 'colours'") == []
    again.close()


def test_no_limit_is_left_behind() -> None:
    """These tests must not have bounded this process."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert signal.getsignal(signal.SIGXFSZ) is not None


def test_one_database_per_options(path: Path) -> None:
    def made(**options: Any) -> Database:
        return database(read_options(f"sqlite:///{path}", options))

    assert made() is made(clock=lambda: 0.0, dedupe_window=3)
    assert made() is not made(synchronous="FULL")


def test_settlement_of_an_unknown_owner(opened: SqliteBroker) -> None:
    opened.publish(messages("a"))
    [delivery] = opened.claim(OWNER, [QUEUE], 1)
    import msgspec

    strange = msgspec.structs.replace(delivery, owner=Owner("w9", 1, 1))
    [answer] = opened.settle([Settlement(delivery=strange)])
    assert answer.value == "lost"
