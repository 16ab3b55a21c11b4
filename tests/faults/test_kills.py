"""Kill everything at random moments, count afterwards: nothing lost, little repeated."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from celeriac import Celeriac, states
from celeriac.message import MessageState
from tests.faults.field import Bomber, Ledger, environment, scaled, wait_until, workers

TASKS = 50_000
KILLS = 200


def durations(count: int, seed: int) -> list[tuple[float]]:
    """Random 0-20 ms, 1 in 500 a whole second."""
    rng = random.Random(seed)
    return [(1.0,) if rng.randrange(500) == 0 else (rng.uniform(0, 0.020),) for _ in range(count)]


@pytest.mark.timeout(1800)
def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    """Runner, agent, supervisor and whole tree, in equal parts, of two workers on one database."""
    url = f"sqlite:///{tmp_path}/queue.db"
    app = Celeriac("bombed", broker=url)
    tasks, kills = scaled(TASKS), scaled(KILLS)
    seed = random.randrange(2**32)
    print(f"\nseed {seed}: {tasks} tasks, {kills} kills")
    admin = app.admin()

    def held() -> int:
        return sum(info.in_flight for info in admin.queues())

    def left() -> int:
        return sum(info.waiting + info.delayed + info.in_flight for info in admin.queues())

    calls = durations(tasks, seed)
    ids = [
        result.id
        for start in range(0, tasks, 1000)
        for result in app.send_many(
            app.signature("bombed.work", c) for c in calls[start : start + 1000]
        )
    ]
    env = environment(tmp_path, url)
    with workers(2, env, "-c", "3", log=tmp_path / "log") as running:
        wait_until(lambda: held() > 0, 30, "the first claim")
        bomber = Bomber(running, held, seed)
        while bomber.count < kills and left():
            bomber.strike()
            bomber.pause()
        wait_until(lambda: _restarted(running) and not left(), 300, "the queue to drain")
        wait_until(lambda: all(len(w.children()) > 3 for w in running), 30, "workers to be up")
        for worker in running:
            assert worker.stop() == 0
    ledger = Ledger(tmp_path / "ledger").read()
    done = ledger.of("done")
    lost = [task_id for task_id in ids if not done[task_id]]
    records = app.backend.get(ids) if app.backend is not None else []
    stored = Counter(record.state if record is not None else None for record in records)
    dead = admin.peek(None, MessageState.DEAD)
    repeats = ledger.repeats(bomber.killed)
    over = [(times, just) for times, just in repeats if times > 1 + just]
    print(f"kills that hit: {dict(bomber.hits)}")
    print(f"lost {len(lost)}, dead-lettered {len(dead)}, states {dict(stored)}")
    print(
        f"repeats per killed runner: {dict(sorted(Counter(times for times, _ in repeats).items()))}"
    )
    app.close()
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
