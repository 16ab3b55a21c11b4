"""The size of the file and of its log, what is forgotten when, and clocks that jump."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac.drivers.sqlite import admin, broker, bus, results
from celeriac.drivers.sqlite.broker import SqliteBroker
from celeriac.drivers.sqlite.bus import KEPT
from celeriac.drivers.sqlite.upkeep import SLICE
from celeriac.message import Arrival, Join, Owner, TaskRecord, Upkeep, Worker
from celeriac.testing import FakeClock
from celeriac.testing.samples import QUEUE, done, ids, message, messages, record

OWNER = Owner("w1", 1, 1)
FOREVER = Upkeep()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.db"


@pytest.fixture
def made(path: Path, clock: FakeClock) -> Iterator[SqliteBroker]:
    made = broker(f"sqlite:///{path}", {"clock": clock})
    made.open()
    made.register(Worker(lease="w1", ttl=10.0))
    yield made
    made.close()


def count(made: SqliteBroker, table: str) -> int:
    return int(made.kept.fetch(f"SELECT count(*) FROM {table}")[0][0])


# --- size


def test_the_file_shrinks_after_a_backlog(made: SqliteBroker, path: Path) -> None:
    backlog = 200_000 if os.environ.get("CELERIAC_FAULTS") == "full" else 50_000
    for first in range(0, backlog, 5000):
        made.publish([message(f"m{first + n}", body=b"x" * 1000) for n in range(5000)])
    while claimed := made.claim(OWNER, [QUEUE], 5000):
        made.settle([done(delivery) for delivery in claimed])
    full = path.stat().st_size
    assert full > backlog * 1000
    deadline = time.monotonic() + 60
    while path.stat().st_size > 12_000_000:
        assert time.monotonic() < deadline
        made.maintain(OWNER, FOREVER)
    (pages,) = made.kept.fetch("PRAGMA page_count")[0]
    assert pages * 4096 < full / 2
    assert made.kept.fetch("PRAGMA integrity_check") == [("ok",)]
    made.publish(messages("after"))
    assert ids(made.claim(OWNER, [QUEUE], 1)) == ["after"]


def test_the_log_stays_short(path: Path) -> None:
    made = broker(f"sqlite:///{path}?wal_autocheckpoint=200", {})
    made.open()
    longest = 0
    for number in range(600):
        made.publish([message(f"m{number}-{part}") for part in range(10)])
        longest = max(longest, made.kept.log.length())
    assert 200 * 4096 <= longest < 3 * 200 * 4096
    made.close()


def test_a_long_reader_does_not_stop_writers(path: Path) -> None:
    """The log cannot be emptied under it: it grows, and is shortened afterwards."""
    made = broker(f"sqlite:///{path}?wal_autocheckpoint=100", {})
    made.open()
    made.publish(messages("a"))
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM messages").fetchone() == (1,)
    for number in range(300):
        made.publish([message(f"m{number}-{part}") for part in range(5)])
    grown = made.kept.log.length()
    assert grown > 4 * 100 * 4096
    assert reader.execute("SELECT count(*) FROM messages").fetchone() == (1,)
    reader.execute("ROLLBACK")
    reader.close()
    for number in range(300, 900):
        made.publish([message(f"m{number}-{part}") for part in range(5)])
    assert made.kept.log.length() < grown
    made.close()


def test_a_number_is_never_used_again(made: SqliteBroker) -> None:
    """A tag that somebody remembers must not come to mean another message."""
    tags = set()
    for turn in range(5):
        made.publish(messages(f"a{turn}", f"b{turn}"))
        claimed = made.claim(OWNER, [QUEUE], 10)
        made.settle([done(delivery) for delivery in claimed])
        tags |= {delivery.tag for delivery in claimed}
    assert len(tags) == 10
    made.publish(messages("c"))
    [delivery] = made.claim(OWNER, [QUEUE], 1)
    made.settle([done(delivery)])
    admin(made).purge(OWNER, QUEUE)
    made.publish(messages("d"))
    assert made.claim(OWNER, [QUEUE], 1)[0].tag not in tags | {delivery.tag}


# --- what is forgotten


def test_more_expired_results_than_one_step_removes(
    made: SqliteBroker, path: Path, clock: FakeClock
) -> None:
    stored = results(f"sqlite:///{path}", {"clock": clock})
    several = 2 * SLICE + 10
    stored.put(
        [
            TaskRecord(
                id=f"r{number}",
                run="1",
                state="SUCCESS",
                ready=True,
                payload=b"{}",
                expires_at=clock() + 5,
            )
            for number in range(several)
        ]
    )
    stored.put([record("stays")])
    clock.advance(6)
    assert stored.get(["r1", "stays"]) == [None, record("stays")]
    made.maintain(OWNER, FOREVER)
    assert count(made, "results") == 1
    assert stored.purge() == 0


def test_expired_joins_take_their_parts_along(
    made: SqliteBroker, path: Path, clock: FakeClock
) -> None:
    stored = results(f"sqlite:///{path}", {"clock": clock})
    stored.open_joins([Join(id="j", size=2, expires_at=clock() + 5)])
    part = Arrival(join="j", index=0, id="a", state="SUCCESS", value=b"1")
    assert stored.arrive([part]) == [None]
    clock.advance(6)
    made.maintain(OWNER, FOREVER)
    assert count(made, "joins") == count(made, "arrivals") == 0


def test_owners_are_forgotten(made: SqliteBroker) -> None:
    for incarnation in range(5):
        made.publish(messages(f"m{incarnation}"))
        owner = Owner("w1", 1, incarnation)
        assert len(made.claim(owner, [QUEUE], 1)) == 1
        made.recover(owner, Owner("w1", 1, incarnation + 1), ())
    assert count(made, "owners") == 1
    made.unregister("w1")
    assert count(made, "owners") == 0


def test_an_owner_that_was_forgotten_may_come_back(made: SqliteBroker) -> None:
    """Its number is another one then; what it holds is still its own."""
    made.publish(messages("a", "b"))
    [first] = made.claim(OWNER, [QUEUE], 1)
    assert made.settle([done(first)])[0].value == "settled"
    made.unregister("w1")
    made.register(Worker(lease="w1", ttl=10.0))
    other = broker(f"{made.store}?timeout=4", {"clock": made.clock})
    [second] = other.claim(OWNER, [QUEUE], 1)
    assert made.settle([done(second)])[0].value == "settled"
    other.close()


def test_the_bus_is_bounded(path: Path) -> None:
    speaker, listener = bus(f"sqlite:///{path}", {}), bus(f"sqlite:///{path}", {})
    assert listener.listen(["t"], 0) == []
    made = broker(f"sqlite:///{path}", {})
    made.open()
    with made.kept.write() as connection:
        connection.executemany(
            "INSERT INTO events (topic, payload) VALUES ('t', ?)", [(b"",)] * (KEPT + 2000)
        )
    for _ in range(100):
        speaker.emit("t", b"x")
    assert count(made, "events") <= KEPT + 100
    assert len(listener.listen(["t"], 0)) <= KEPT
    made.close()


# --- clocks


def two_workers(made: SqliteBroker, clock: FakeClock) -> None:
    """w1 judges, w2 holds something; both have been there for a while."""
    made.register(Worker(lease="w2", ttl=10.0))
    made.publish(messages("a"))
    assert len(made.claim(Owner("w2", 1, 1), [QUEUE], 1)) == 1
    beat(made, clock, 12)


def beat(made: SqliteBroker, clock: FakeClock, seconds: int) -> None:
    for _ in range(seconds):
        clock.advance(1.0)
        assert made.heartbeat("w1").alive
        assert made.heartbeat("w2").alive
        assert made.maintain(OWNER, FOREVER) == []


@pytest.mark.parametrize("jump", [-86400.0, -30.0, 30.0, 86400.0])
def test_a_clock_that_jumps_kills_nobody(made: SqliteBroker, clock: FakeClock, jump: float) -> None:
    two_workers(made, clock)
    clock.start_at(clock() + jump)
    assert made.maintain(OWNER, FOREVER) == []  # before anybody has renewed
    assert made.heartbeat("w1").alive
    assert made.maintain(OWNER, FOREVER) == []  # the judge has, the other one not yet
    assert made.heartbeat("w2").alive
    beat(made, clock, 25)
    assert admin(made).queues()[0].in_flight == 1


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_who_dies_during_a_jump_is_found(made: SqliteBroker, clock: FakeClock, jump: float) -> None:
    two_workers(made, clock)
    clock.start_at(clock() + jump)
    for _ in range(13):
        clock.advance(1.0)
        made.heartbeat("w1")
        made.maintain(OWNER, FOREVER)
    [delivery] = made.claim(OWNER, [QUEUE], 1)
    assert (delivery.message.id, delivery.lost) == ("a", 1)
