"""The SQLite driver in several processes: starting at once, forking, waking each other."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from celeriac.drivers.sqlite import admin, broker, results
from celeriac.drivers.sqlite.broker import SqliteBroker
from celeriac.drivers.sqlite.results import SqliteResultBackend
from celeriac.drivers.sqlite.schema import MIGRATIONS
from celeriac.message import MessageState, Owner, Worker
from celeriac.testing.samples import QUEUE, ids, message, messages, record

OWNER = Owner("w1", 1, 1)
PATIENCE = 30.0
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


@contextmanager
def opened(url: str) -> Iterator[SqliteBroker]:
    made = broker(url, {})
    made.open()
    made.register(Worker(lease="w1", ttl=600.0))
    yield made
    made.close()


@contextmanager
def in_child(action: Callable[[], None]) -> Iterator[int]:
    """Run it in a forked child; at the end the child must have ended well."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    yield pid
    assert os.waitpid(pid, 0)[1] == 0


def waiting(made: SqliteBroker) -> set[str]:
    return set(ids(admin(made).peek(None, MessageState.WAITING, limit=10_000)))


# --- starting


def start_and_publish(url: str, barrier: Any, name: str) -> None:
    barrier.wait(PATIENCE)
    with opened(url) as made:
        made.publish(messages(name))


def test_eight_processes_make_one_database(url: str) -> None:
    barrier = SPAWN.Barrier(8)
    names = [f"m{number}" for number in range(8)]
    processes = [
        SPAWN.Process(target=start_and_publish, args=(url, barrier, name)) for name in names
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0] * 8
    with opened(url) as made:
        assert waiting(made) == set(names)
        assert made.kept.fetch("PRAGMA user_version") == [(len(MIGRATIONS),)]
        assert made.kept.fetch("PRAGMA auto_vacuum") == [(2,)]
        assert made.kept.fetch("PRAGMA integrity_check") == [("ok",)]


# --- forking


def test_a_child_uses_what_was_opened_before(url: str) -> None:
    with opened(url) as made:
        stored = results(url, {})
        stored.open()
        made.publish(messages("before"))

        def child() -> None:
            made.publish(messages("in-child"))
            stored.put([record("in-child")])

        with in_child(child):
            made.publish(messages("in-parent"))
        assert waiting(made) == {"before", "in-child", "in-parent"}
        assert stored.get(["in-child"]) == [record("in-child")]
        stored.close()


def test_no_connection_crosses_a_fork(url: str) -> None:
    """SQLite's locks are the process's: a child that believes to hold its parent's loses what it
    writes when others tidy the log away."""
    with opened(url) as made:
        made.publish(messages("a"))
        before = made.kept.connection
        assert before is not None

        def child() -> None:
            assert made.kept.connection is None
            with pytest.raises(sqlite3.ProgrammingError, match="closed"):
                before.execute("SELECT 1")

        with in_child(child):
            assert made.kept.connection is None
        made.publish(messages("b"))
        assert waiting(made) == {"a", "b"}


def test_a_child_outlives_its_parents_connection(url: str, tmp_path: Path) -> None:
    """A daemon's way: the parent goes, others come and go, the child's messages stay."""
    go_on, told = os.pipe()
    back, answer = os.pipe()
    parent = broker(url, {})
    parent.open()
    parent.publish(messages("before"))

    def child() -> None:
        parent.publish(messages("first"))
        os.write(answer, b"1")
        assert os.read(go_on, 1) == b"!"
        parent.publish(messages("second"))

    with in_child(child):
        assert os.read(back, 1) == b"1"
        parent.close()
        for _ in range(3):  # each of them is the last one to leave, as far as it can know
            with opened(url):
                pass
        os.write(told, b"!")
    for descriptor in (go_on, told, back, answer):
        os.close(descriptor)
    with opened(url) as made:
        assert waiting(made) == {"before", "first", "second"}
        assert made.kept.fetch("PRAGMA integrity_check") == [("ok",)]


def test_a_fork_while_other_threads_publish_and_wait(url: str) -> None:
    with opened(url) as made:
        stop = threading.Event()
        published: list[str] = []

        def publish() -> None:
            while not stop.is_set():
                name = f"m{len(published)}"
                made.publish([message(name, queue="other")])
                published.append(name)

        claims: list[Any] = []
        threads = [
            threading.Thread(target=publish),
            threading.Thread(target=lambda: claims.extend(made.claim(OWNER, [QUEUE], 1, wait=20))),
        ]
        for thread in threads:
            thread.start()
        for number in range(5):
            with in_child(lambda number=number: made.publish([message(f"c{number}", queue="c")])):
                pass
        stop.set()
        made.publish(messages("last"))
        for thread in threads:
            thread.join(PATIENCE)
        assert ids(claims) == ["last"]
        assert waiting(made) == {*published, *(f"c{number}" for number in range(5))}


def test_a_new_log_file_is_watched(url: str, tmp_path: Path) -> None:
    """The file is deleted when its last user leaves, as here before a fork."""
    with opened(url) as made:
        claims: list[Any] = []
        waiter = threading.Thread(
            target=lambda: claims.extend(made.claim(OWNER, [QUEUE], 1, wait=PATIENCE))
        )
        waiter.start()
        for _ in range(3):
            with in_child(lambda: None):
                pass
        started = time.monotonic()
        other = broker(f"{url}?timeout=4", {})
        other.publish(messages("a"))
        waiter.join(PATIENCE)
        assert ids(claims) == ["a"]
        assert time.monotonic() - started < PATIENCE / 2
        other.close()


def test_backends_of_a_child_wait_on_their_own(url: str) -> None:
    stored = results(url, {})
    stored.open()
    waiter = threading.Thread(target=lambda: stored.wait(["never"], 2.0))
    waiter.start()

    def child(stored: SqliteResultBackend = stored) -> None:
        stored.put([record("a")])
        assert ids(stored.wait(["a"], 1.0)) == ["a"]
        assert stored.wait(["never"], 0.05) == []

    with in_child(child):
        pass
    stored.wake()
    waiter.join(PATIENCE)
    stored.close()
