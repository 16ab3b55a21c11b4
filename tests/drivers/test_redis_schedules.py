"""The schedule store of ``redis://`` where the suite does not look: what it costs, and its keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import structs
from tests.drivers.redis_stage import Wire, shared_server
from tests.servers import RedisServer

from celeriac import Celeriac
from celeriac.beat import SharedScheduler
from celeriac.drivers.redis import schedules
from celeriac.drivers.redis.schedules import RedisScheduleStore
from celeriac.exceptions import OperationalError
from celeriac.message import ScheduleRecord
from celeriac.testing import FakeClock

RECORD = ScheduleRecord(name="e", payload=b"{}", source="user", anchor=1.0)


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire(shared_server().url)
    wire("FLUSHALL")
    yield wire
    wire.close()


def opened(**options: Any) -> RedisScheduleStore:
    store = schedules(shared_server().url, options)
    store.open()
    return store


def calls(wire: Wire) -> dict[str, int]:
    """How often each command was carried out since CONFIG RESETSTAT, within scripts too."""
    found = {}
    for line in wire("INFO", "commandstats").decode().splitlines():
        if line.startswith("cmdstat_"):
            name, _, said = line.removeprefix("cmdstat_").partition(":")
            found[name] = int(said.split(",")[0].removeprefix("calls="))
    return {k: n for k, n in found.items() if not k.startswith(("info", "config"))}


def test_while_nothing_changes_a_look_is_one_command(wire: Wire) -> None:
    store = opened()
    for prepare in ([], [RECORD]):
        store.save(prepare)
        token = store.load().token
        wire("CONFIG", "RESETSTAT")
        for _ in range(10):
            assert store.load(token).token == token
        assert calls(wire) == {"get": 10}
    store.close()


@pytest.mark.parametrize("prefix", ["", "shop:", "{shop}:"])
def test_its_keys_stand_beside_the_others_and_go_with_the_last_entry(
    wire: Wire, prefix: str
) -> None:
    store = opened(global_keyprefix=prefix)
    assert all(store.save([RECORD, structs.replace(RECORD, name="f")]))
    found = {key.decode() for key in wire("KEYS", "*")}
    assert found == {f"{prefix}celeriac:schedules{rest}" for rest in ("", "_at", "_versions")}
    assert store.remove(["e", "f"]) == 2
    assert wire("KEYS", "*") == []
    store.close()


def test_a_server_that_was_emptied_is_not_taken_for_the_old_one(wire: Wire) -> None:
    store = opened()
    (old,) = store.save([RECORD])
    token = store.load().token
    wire("FLUSHALL")
    changes = store.load(token)
    assert (changes.whole, changes.records) == (True, ())
    assert store.save([structs.replace(RECORD, version=old)]) == [0]
    (new,) = store.save([RECORD])
    assert new > old
    assert store.load(token).whole
    store.close()


def test_a_server_that_came_back_without_its_last_writes(wire: Wire) -> None:
    """The schedulers that saw them go on from what the server has."""
    server = shared_server()
    clock = FakeClock(1_700_000_000.0)
    app = Celeriac("lost", broker=server.url, backend=server.url, set_as_current=False)
    app.conf.beat_schedule = {"e": {"task": "t", "schedule": 10.0}}
    scheduler = SharedScheduler(app, clock=clock, elapsed=clock)
    scheduler._stepped_back = 0.0
    keys = wire("KEYS", "celeriac:schedules*")
    kept = [(key, wire("DUMP", key)) for key in keys]
    clock.advance(10)
    scheduler.tick()
    for key, value in kept:
        wire("RESTORE", key, 0, value, "REPLACE")
    store = opened()
    other = structs.replace(RECORD, payload=b'{"app":"another"}')
    assert all(store.save([other])), "another scheduler has saved since"
    for _ in range(4):
        clock.advance(10)
        scheduler.tick()
        scheduler.tick()
    assert wire("LLEN", "celery") == 5
    (found,) = (one for one in store.load().records if one.name == "lost:e")
    assert found.last_nominal == 1_700_000_050.0
    store.close()
    scheduler.close()
    app.close()


def test_a_server_that_comes_back_empty() -> None:
    """The schedulers write the code's entries again, and go on."""
    with RedisServer() as server:
        assert isinstance(server, RedisServer)
        clock = FakeClock(1_700_000_000.0)
        app = Celeriac("empty", broker=server.url, backend=server.url, set_as_current=False)
        app.conf.beat_schedule = {"e": {"task": "t", "schedule": 10.0}}
        scheduler = SharedScheduler(app, clock=clock, elapsed=clock)
        scheduler._stepped_back = 0.0
        server.kill()
        with pytest.raises(OperationalError):
            scheduler.tick()
        server.start()
        clock.advance(3)
        scheduler.tick()
        clock.advance(10)
        scheduler.tick()
        assert server.call("LLEN", "celery") == b":1\r\n"
        scheduler.close()
        app.close()


def test_ten_thousand_at_once(wire: Wire) -> None:
    store = opened()
    many = [structs.replace(RECORD, name=f"e{n}", payload=b"x" * 300) for n in range(10_000)]
    versions = store.save(many)
    assert len(set(versions)) == 10_000
    assert {one.version for one in store.load().records} == set(versions)
    assert store.remove([one.name for one in many]) == 10_000
    store.close()
