"""How long leases hold, and how soon the work of the dead is taken over."""

from __future__ import annotations

import random
import signal
import time

import pytest
from tests.faults.field import Field, scaled, send_signal

from celeriac import states

LEASE = 1.0
RUNNERS = 40
TREES = 10


def test_tasks_that_never_let_go_of_the_interpreter_run_once(field: Field) -> None:
    """Whatever they do in C for three leases, the agent keeps the lease; another worker waits."""
    with field.workers("-c 2", "-c 2") as workers:
        ids = [field.send(task, 3 * LEASE) for task in ("grip", "backtrack")]
        field.drained()
        assert [worker.stop() for worker in workers] == [0, 0]
    for task_id in ids:
        (start,) = field.ledger.lines_of(task_id, "start")
        (done,) = field.ledger.lines_of(task_id, "done")
        assert done.at - start.at > 2 * LEASE
    assert field.states(ids) == {states.SUCCESS: 2}
    assert "given up" not in field.logged()


@pytest.mark.every_store
@pytest.mark.timeout(300)
def test_the_messages_of_a_dead_runner_run_again_within_a_second(
    field: Field, rng: random.Random
) -> None:
    seconds: list[float] = []
    with field.workers("-c 2") as (worker,):
        for _ in range(scaled(RUNNERS)):
            task_id = field.send("work", 1.0)
            first = field.started(task_id)
            time.sleep(rng.uniform(0, 0.1))
            killed = time.monotonic()
            send_signal([first.pid], signal.SIGKILL)
            seconds.append(field.started(task_id, 2).at - killed)
            field.app.revoke(task_id, terminate=True)
        field.drained()
        assert worker.stop() == 0
    print(f"a dead runner's message ran again after {_shown(seconds)} s")
    assert max(seconds) < 1.0


@pytest.mark.every_store
@pytest.mark.timeout(300)
def test_the_messages_of_a_dead_worker_run_again_within_its_lease_and_5_s(field: Field) -> None:
    seconds: list[float] = []
    with field.workers("-c 1", "-c 1") as workers:
        for _ in range(scaled(TREES)):
            task_id = field.send("work", 1.0)
            first = field.started(task_id)
            (worker,) = (one for one in workers if first.pid in one.runners())
            killed = time.monotonic()
            worker.kill_tree()
            seconds.append(field.started(task_id, 2).at - killed)
            field.drained()
            worker.start()
        assert field.dead() == []
    print(f"a dead worker's message ran again after {_shown(seconds)} s")
    assert max(seconds) < LEASE + 5.0


def _shown(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"{ordered[len(ordered) // 2]:.2f} (at most {ordered[-1]:.2f}, {len(ordered)} times)"
