"""Redis: the server killed, away for long, and everything between it and the workers broken."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.drivers.redis_stage import shared_server
from tests.faults.field import FULL, Field, WorkerProcess, scaled, wait_until
from tests.proxy import Proxy
from tests.servers import RedisServer

from celeriac import Celeriac, chain, states
from celeriac.exceptions import OperationalError

TASKS = 10_000
RESTARTS = 20
LEASE = 1.0
LONGEST = 0.020
PUBLISH_TIMEOUT = 3.0
ANSWER_TIMEOUT = 1.0
STALL = 60.0 if FULL else 7.0  # longer than an answer is waited for, and than the lease
CUTS_OF_CHAINS = 40
STEPS = 200
DURABLE = ("appendonly yes", "appendfsync always")


def urls(port: int, password: str = "") -> dict[str, str]:
    account = f":{password}@" if password else ""
    host = f"redis://{account}127.0.0.1:{port}"
    return {"url": f"{host}/0", "results": f"{host}/1"}


def field_on(server: RedisServer, path: Path) -> Field:
    return Field(path, "redis", **urls(server.port), BOMBED_LEASE=str(LEASE))


def load(field: Field, count: int, rng: random.Random) -> list[str]:
    return field.send_all("work", [(rng.uniform(0, LONGEST),) for _ in range(count)])


def check(field: Field, ids: list[str], workers: list[WorkerProcess]) -> int:
    """All ended well; how many runs too many there were."""
    wait_until(lambda: reached(field), 10, "the server to be reached again")
    field.drained(120)
    assert [worker.stop() for worker in workers] == [0] * len(workers)
    starts = field.ledger.read().of("start")
    done = field.ledger.of("done")
    assert [one for one in ids if not done[one]] == [], "lost"
    assert field.states(ids) == {states.SUCCESS: len(ids)}
    assert not field.dead()
    assert "Traceback" not in field.logged()
    print(f"{len(ids)} tasks, starts of each: {dict(Counter(starts.values()))}")
    return sum(starts.values()) - len(ids)


def reached(field: Field) -> bool:
    """A connection that was lost is built anew by the next call."""
    try:
        field.left()
    except OperationalError:
        return False
    return True


# --- the server


@pytest.mark.timeout(600)
def test_a_server_that_is_killed_under_load(tmp_path: Path, rng: random.Random) -> None:
    """What it had confirmed it has on its disk; nothing is lost, and nothing runs twice."""
    restarts = scaled(RESTARTS)
    sent = 0
    with RedisServer(*DURABLE) as server:
        assert isinstance(server, RedisServer)
        field = field_on(server, tmp_path)
        ids = load(field, 200, rng)
        with field.workers("-c 2", "-c 2") as workers:
            for _ in range(restarts):
                ids += load(field, 300, rng)
                before = len(field.ledger.read().lines)
                wait_until(
                    lambda before=before: len(field.ledger.read().lines) > before + 50,  # type: ignore[misc]
                    20,
                    "tasks to run",
                )
                time.sleep(rng.uniform(0, 0.2))
                server.kill()
                time.sleep(rng.uniform(0, 0.5))
                server.start()
                sent += 1
            repeated = check(field, ids, workers)
        field.close()
    print(f"{sent} restarts")
    assert repeated == 0


@pytest.mark.timeout(300)
def test_an_outage_longer_than_the_lease_repeats_nothing(
    tmp_path: Path, rng: random.Random
) -> None:
    """Long tasks that run meanwhile, short ones that end, and what waits: each runs once."""
    with RedisServer(*DURABLE) as server:
        assert isinstance(server, RedisServer)
        field = field_on(server, tmp_path)
        with field.workers("-c 2", "-c 2") as workers:
            long = field.send_all("work", [(6 * LEASE,), (0.5 * LEASE,)])
            for task_id in long:
                field.started(task_id)
            ids = long + load(field, 200, rng)
            wait_until(lambda: field.held() > 2, 20, "more to be claimed")
            server.kill()
            time.sleep(3 * LEASE)
            server.start()
            repeated = check(field, ids, workers)
        field.close()
    assert repeated == 0


def test_producers_are_told_within_a_bounded_time(tmp_path: Path) -> None:
    """Whatever is wrong with the server; the error names it, and never the password."""
    password = "open-sesame"
    with (
        RedisServer(f"requirepass {password}") as server,
        Proxy(server.port) as proxy,
    ):
        app = Celeriac(
            "shop",
            broker=urls(proxy.port, password)["url"],
            set_as_current=False,
            broker_publish_timeout=PUBLISH_TIMEOUT,
            broker_transport_options={"socket_timeout": ANSWER_TIMEOUT},
        )
        app.send_task("bombed.after", ("a",))
        proxy.stall()
        assert_told(app, proxy.port, password)
        proxy.resume()
        app.send_task("bombed.after", ("b",))
        proxy.cut()
        app.send_task("bombed.after", ("c",))  # a cut connection is built anew
        server.kill()
        assert_told(app, proxy.port, password)
        app.close()


def assert_told(app: Celeriac, port: int, password: str) -> None:
    began = time.monotonic()
    with pytest.raises(OperationalError) as caught:
        app.send_task("bombed.after", ("x",))
    # No try is begun later than that; one that is under way ends when no answer comes.
    assert time.monotonic() - began < PUBLISH_TIMEOUT + ANSWER_TIMEOUT
    said: BaseException | None = caught.value
    assert f"redis://127.0.0.1:{port}/0" in str(said)
    while said is not None:
        assert password not in repr(said) + str(said)
        said = said.__cause__ or said.__context__


# --- what lies between


@contextmanager
def between(path: Path, workers: int = 1) -> Iterator[tuple[Field, Proxy, list[WorkerProcess]]]:
    """Workers that reach the server through a proxy."""
    server = shared_server()
    server.call("FLUSHALL")
    field = field_on(server, path)
    try:
        with Proxy(server.port) as proxy:
            through = urls(proxy.port)
            env = {
                **field.env,
                "BOMBED_URL": through["url"],
                "CELERIAC_RESULT_BACKEND": through["results"],
            }
            with field.workers(*["-c 2"] * workers, env=env) as running:
                yield field, proxy, running
    finally:
        field.close()


def stall(proxy: Proxy) -> None:
    proxy.stall()
    time.sleep(STALL)
    proxy.resume()


def renewed() -> int:
    """How many leases were renewed a moment ago."""
    soon = f"{time.time() + LEASE / 2:.6f}"
    return int(shared_server().call("ZCOUNT", "celeriac:leases", soon, "+inf")[1:])


HARM: dict[str, tuple[int, Callable[[Proxy], object]]] = {
    "cut": (20, Proxy.cut),
    "stalled": (1, stall),
    "client told": (10, lambda proxy: proxy.half_close("client")),
    "server told": (3, lambda proxy: proxy.half_close("server")),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("harm", HARM)
def test_broken_connections(tmp_path: Path, rng: random.Random, harm: str) -> None:
    """Of two workers, all their connections; nothing is lost, and as an outage is nobody's death,
    nothing runs twice."""
    times, hurt = HARM[harm]
    times = times if FULL else max(1, times // 4)
    with between(tmp_path, 2) as (field, proxy, workers):
        ids = load(field, scaled(TASKS) if harm != "stalled" else 300, rng)
        for _ in range(times):
            before = len(field.ledger.read().lines)
            wait_until(
                lambda before=before: (  # type: ignore[misc]
                    len(field.ledger.read().lines) > before + 20 or not field.left()
                ),
                30,
                "tasks to run (again)",
            )
            if not field.left():
                ids += load(field, 300, rng)
            # An outage of one worker alone, while it is still building connections anew, would be
            # its death to the other.
            wait_until(lambda: renewed() == 2, 30, "both workers to be back")
            time.sleep(rng.uniform(0, 0.2))
            hurt(proxy)
        repeated = check(field, ids, workers)
    assert repeated == 0


@pytest.mark.timeout(600)
def test_chains_through_cut_connections(tmp_path: Path, rng: random.Random) -> None:
    """A step that stays with the process that ran the one before it is not lost, nor run twice,
    though the answer that told of it never came."""
    with between(tmp_path, 2) as (field, proxy, workers):
        ids: list[str] = []
        cuts = 0
        while cuts < scaled(CUTS_OF_CHAINS):
            waiting = [_send_chain(field, rng) for _ in range(2)]  # fewer than there are processes
            ids += [step for chained in waiting for step in chained]
            while field.left() and cuts < scaled(CUTS_OF_CHAINS):
                wait_until(lambda: renewed() == 2, 30, "both workers to be back")
                time.sleep(rng.uniform(0, 0.3))
                proxy.cut()
                cuts += 1
            wait_until(lambda: reached(field), 10, "the server to be reached again")
            field.drained(60)
        repeated = check(field, ids, workers)
    assert repeated == 0


def _send_chain(field: Field, rng: random.Random) -> list[str]:
    """The ids of its steps."""
    steps = [
        field.app.signature("bombed.work", (rng.uniform(0, 0.003),), immutable=True)
        for _ in range(STEPS)
    ]
    ids = [step.freeze().id for step in steps]
    chain(steps).apply_async()
    return ids


@pytest.mark.timeout(600)
def test_one_worker_is_cut_off(tmp_path: Path, rng: random.Random) -> None:
    """For longer than its lease: another one takes over what it holds, and what it brings when it
    is back is refused."""
    with (
        between(tmp_path) as (field, proxy, (cut_off,)),
        field.workers("-c 1 -n other@field") as (other,),
    ):
        started = False
        while not started:  # by the one that is to be cut off; the other may be busy meanwhile
            task_id = field.send("pid", 2.5 * LEASE)
            first = field.started(task_id)
            started = first.pid in cut_off.runners()
        proxy.stall()
        stalled = time.monotonic()
        second = field.started(task_id, 2, timeout=30)
        print(f"taken over after {second.at - stalled:.2f} s")
        assert second.at - stalled < LEASE + 5.0
        wait_until(lambda: field.states([task_id]) == {states.SUCCESS: 1}, 30, "its result")
        assert field.app.AsyncResult(task_id).get(timeout=5) == second.pid != first.pid
        proxy.resume()
        ids = load(field, 200, rng)
        wait_until(lambda: field.states(ids) == {states.SUCCESS: 200}, 30, "both to go on")
        # Its own outcome it has brought by then, and again if there was no answer.
        assert [one.stop() for one in (cut_off, other)] == [0, 0]
        assert field.app.AsyncResult(task_id).get(timeout=5) == second.pid
