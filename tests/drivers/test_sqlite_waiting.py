"""Waiting in the SQLite driver: for messages and results, of this process and of others."""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from celeriac.drivers.sqlite import broker, results, watch
from celeriac.drivers.sqlite.broker import SqliteBroker
from celeriac.drivers.sqlite.watch_sources import VersionSource
from celeriac.message import Owner, Worker
from celeriac.testing.samples import QUEUE, done, ids, message, messages, record

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


class Echo:
    """A process that answers each message with its result."""

    def __init__(self, url: str, count: int) -> None:
        self.process = SPAWN.Process(target=answer_all, args=(url, count))
        self.process.start()

    def join(self) -> None:
        self.process.join(PATIENCE)
        assert self.process.exitcode == 0


def answer_all(url: str, count: int) -> None:
    made = broker(url, {})
    made.register(Worker(lease="w2", ttl=600.0))
    owner = Owner("w2", 1, 1)
    for _ in range(count):
        [delivery] = made.claim(owner, [QUEUE], 1, wait=PATIENCE)
        made.settle([done(delivery, records=(record(delivery.message.id),))])
    made.close()


@pytest.fixture(params=["system", "versions"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of waiting; in this process only, the other one has what the system offers."""
    if request.param == "versions":
        monkeypatch.setattr(watch, "file_source", lambda: None)
    return str(request.param)


def test_waking_across_processes(url: str, source: str) -> None:
    """Not timed strictly: the slow look behind it all comes every second."""
    stored = results(url, {})
    with opened(url) as made:
        stored.open()
        echo = Echo(url, 31)
        made.publish(messages("first"))
        assert ids(stored.wait(["first"], PATIENCE)) == ["first"]
        took = []
        for number in range(30):
            started = time.monotonic()
            made.publish([message(f"m{number}")])
            assert ids(stored.wait([f"m{number}"], PATIENCE)) == [f"m{number}"]
            took.append(time.monotonic() - started)
        echo.join()
        assert statistics.median(took) < 0.1
        assert isinstance(made.kept.watch._source, VersionSource) == (source == "versions")
        stored.close()


def test_waking_within_a_process(url: str, source: str) -> None:
    with opened(url) as made:
        stored = results(url, {})
        found: list[Any] = []
        waiter = threading.Thread(target=lambda: found.extend(stored.wait(["a"], PATIENCE)))
        waiter.start()
        stored.put([record("b")])
        stored.put([record("a")])
        waiter.join(PATIENCE)
        assert ids(found) == ["a"]
        assert made.kept is stored._database
        stored.close()


def test_many_threads_wait_for_results(url: str) -> None:
    """One of them looks for all; each gets its own."""
    stored = results(url, {})
    stored.open()
    found: dict[str, list[str]] = {}

    def wait(name: str) -> None:
        found[name] = ids(stored.wait([name, "never"], PATIENCE))

    names = [f"m{number}" for number in range(40)]
    threads = [threading.Thread(target=wait, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    other = results(f"{url}?timeout=4", {})
    for first in range(0, 40, 8):
        other.put([record(name) for name in names[first : first + 8]])
    for thread in threads:
        thread.join(PATIENCE)
    assert found == {name: [name] for name in names}
    other.close()
    stored.close()


def test_the_one_who_looks_may_leave_first(url: str) -> None:
    stored = results(url, {})
    stored.open()
    found: list[Any] = []
    first = threading.Thread(target=lambda: stored.wait(["never"], 0.2))
    first.start()
    second = threading.Thread(target=lambda: found.extend(stored.wait(["a"], PATIENCE)))
    second.start()
    first.join(PATIENCE)
    results(f"{url}?timeout=4", {}).put([record("a")])
    second.join(PATIENCE)
    assert ids(found) == ["a"]
    stored.close()


@pytest.mark.parametrize("how", ["close", "wake"])
def test_close_and_wake_end_every_wait(url: str, how: str) -> None:
    made, stored = broker(url, {}), results(url, {})
    made.open()
    stored.open()
    made.register(Worker(lease="w1", ttl=600.0))
    answers: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(made.claim(OWNER, [QUEUE], 1, wait=PATIENCE))
        ),
        *(
            threading.Thread(target=lambda: answers.append(stored.wait(["a"], PATIENCE)))
            for _ in range(3)
        ),
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):  # it ends those that wait, once they do
        getattr(made, how)()
        getattr(stored, how)()
        time.sleep(0.01)
        assert time.monotonic() - started < PATIENCE / 2
    assert answers == [[]] * 4
    made.close()
    stored.close()


def test_a_due_message_wakes_its_waiter(url: str) -> None:
    with opened(url) as made:
        due_at = time.time() + 0.3
        made.publish([message("a", due_at=due_at)])
        [delivery] = made.claim(OWNER, [QUEUE], 1, wait=PATIENCE)
        late = time.time() - due_at
        assert delivery.message.id == "a"
        assert 0.0 <= late < 0.5


def test_other_peoples_commits_do_not_keep_a_waiter_busy(url: str) -> None:
    """A stream of commits that are nothing for it costs a waiter little."""
    with opened(url) as made:
        stop = threading.Event()

        def waits() -> None:
            made.claim(OWNER, [QUEUE], 1, wait=1.0)
            stop.set()

        looks = 0
        look = made.kept.run

        def counted(read: Any) -> Any:
            nonlocal looks
            looks += 1
            return look(read)

        made.kept.run = counted  # type: ignore[method-assign]
        waiter = threading.Thread(target=waits)
        waiter.start()
        other = broker(f"{url}?timeout=4", {})
        commits = 0
        while not stop.is_set():
            other.publish([message(f"m{commits}", queue="other")])
            commits += 1
            time.sleep(0.001)
        waiter.join(PATIENCE)
        assert commits > 100
        assert looks < 200
        other.close()
