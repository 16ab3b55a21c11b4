"""Kill everything at random moments, count afterwards: nothing lost, little repeated."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from tests.faults.field import Bomber, Field, scaled, wait_until

from celeriac import states

TASKS = 50_000
KILLS = 200
SEATS = 4


def durations(count: int, rng: random.Random) -> list[tuple[float]]:
    """Random 0-20 ms, 1 in 500 a whole second."""
    return [(1.0,) if rng.randrange(500) == 0 else (rng.uniform(0, 0.020),) for _ in range(count)]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_random_kills_of_pools_with_many_tasks_in_a_process(
    field: Field, rng: random.Random, pool: str
) -> None:
    """Of a killed process, no more runs again than what it ran, and what had just ended."""
    tasks, kills = scaled(TASKS // 5), scaled(KILLS // 5)
    ids = field.send_all("awork" if pool == "asyncio" else "work", durations(tasks, rng))
    options = f"-P {pool} -c {SEATS}"
    with field.workers(options, options) as running:
        bomber = Bomber(running, field.held, rng.randrange(2**32))
        while bomber.count < kills and field.left():
            bomber.strike()
            bomber.pause(0.1, 0.4)
        wait_until(lambda: _restarted(running) and not field.left(), 300, "the queue to drain")
        wait_until(lambda: all(one.ready() for one in running), 30, "workers to be up")
        assert [one.stop() for one in running] == [0, 0]
    repeats = field.ledger.read().repeats(bomber.killed)
    print(f"{pool}: kills that hit: {dict(bomber.hits)}")
    print(f"repeats per killed process: {dict(sorted(Counter(n for n, _ in repeats).items()))}")
    assert field.states(ids) == {states.SUCCESS: tasks}
    assert not field.dead()
    assert all(times <= SEATS + just for times, just in repeats), repeats


@pytest.mark.every_store
@pytest.mark.timeout(1800)
def test_random_kills_lose_nothing(tmp_path: Path, store: str, rng: random.Random) -> None:
    """Runner, agent, supervisor and whole tree, in equal parts, of two workers on one store."""
    tasks, kills = scaled(TASKS), scaled(KILLS)
    field = Field(tmp_path, store)
    ids = field.send_all("work", durations(tasks, rng))
    with field.workers("-c 2", "-c 2") as running:
        wait_until(lambda: field.held() > 0, 30, "the first claim")
        bomber = Bomber(running, field.held, rng.randrange(2**32))
        while bomber.count < kills and field.left():
            bomber.strike()
            bomber.pause()
        wait_until(lambda: _restarted(running) and not field.left(), 300, "the queue to drain")
        wait_until(lambda: all(len(w.children()) > 2 for w in running), 30, "workers to be up")
        assert [worker.stop() for worker in running] == [0, 0]
    ledger = field.ledger.read()
    done = ledger.of("done")
    lost = [task_id for task_id in ids if not done[task_id]]
    stored, dead = field.states(ids), field.dead()
    repeats = ledger.repeats(bomber.killed)
    over = [(times, just) for times, just in repeats if times > 1 + just]
    print(f"{tasks} tasks, kills that hit: {dict(bomber.hits)}")
    print(f"lost {len(lost)}, dead-lettered {len(dead)}, states {dict(stored)}")
    print(
        f"repeats per killed runner: {dict(sorted(Counter(times for times, _ in repeats).items()))}"
    )
    field.close()
    assert not lost
    assert not dead
    assert stored == {states.SUCCESS: tasks}
    assert bomber.count >= kills, "the queue was empty before all kills were made"
    assert not over, f"(repeats, finished in the last 10 ms): {over}"


def _restarted(running: list) -> bool:
    for worker in running:
        if not worker.alive():
            worker.start()
    return True
