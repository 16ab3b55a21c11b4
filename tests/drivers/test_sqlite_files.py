"""What can be wrong with a database file, and what the driver says and keeps then."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from celeriac.drivers.sqlite import admin, broker, schema
from celeriac.drivers.sqlite.broker import SqliteBroker
from celeriac.exceptions import CorruptStore, OperationalError
from celeriac.message import MessageState, Owner, Settlement, Worker
from celeriac.testing.samples import QUEUE, done, ids, message, messages

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


def read_all(path: Path) -> None:
    """Use all of the file, as a worker does."""
    made = broker(f"sqlite:///{path}", {})
    made.open()
    try:
        admin(made).peek(None, MessageState.WAITING)
        made.register(Worker(lease="w2", ttl=60.0))
        made.claim(Owner("w2", 1, 1), [QUEUE], 10_000)
    finally:
        made.close()


def refused(path: Path, **options: Any) -> str:
    """What opening the file raises."""
    with pytest.raises(OperationalError) as caught:
        broker(f"sqlite:///{path}", options).open()
    assert f"sqlite:///{path}" in str(caught.value)
    return str(caught.value)


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
        read_all(path)


def test_damaged_pages(opened: SqliteBroker, path: Path) -> None:
    opened.publish([message(f"m{number}") for number in range(2000)])
    opened.close()
    with path.open("r+b") as file:
        for page in range(4, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xa5" * 64)
    with pytest.raises(CorruptStore, match="damaged"):
        read_all(path)


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

    def interrupted() -> None:
        with opened.kept.write() as connection:
            connection.execute("DELETE FROM leases")
            raise Alarm

    with pytest.raises(Alarm):
        interrupted()
    assert opened.heartbeat("w1").alive


def test_settlement_of_an_unknown_owner(opened: SqliteBroker) -> None:
    opened.publish(messages("a"))
    [delivery] = opened.claim(OWNER, [QUEUE], 1)
    strange = msgspec.structs.replace(delivery, owner=Owner("w9", 1, 1))
    [answer] = opened.settle([Settlement(delivery=strange)])
    assert answer.value == "lost"
