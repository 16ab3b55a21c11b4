"""Tasks with ``acks_late=False``: never twice, and those who wait for them are told."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from tests.faults.field import Bomber, Field, scaled, wait_until

from celeriac import states
from celeriac.exceptions import WorkerLostError

TASKS = 3000
KILLS = 50


@pytest.mark.every_store
@pytest.mark.timeout(900)
def test_random_kills_repeat_nothing(field: Field, rng: random.Random) -> None:
    tasks, kills = scaled(TASKS), scaled(KILLS)
    calls = [(rng.choice([0.0, 0.002, 0.02, 0.3]),) for _ in range(tasks)]
    ids = field.send_all("once", calls)
    with field.workers("-c 3", "-c 3") as workers:
        bomber = Bomber(workers, field.held, rng.randrange(2**32))
        while bomber.count < kills and field.left():
            bomber.strike()
            bomber.pause(0.05, 0.3)

        def quiet() -> bool:
            for worker in workers:
                if not worker.alive():
                    worker.start()
            return not field.left()

        wait_until(quiet, 120, "the queue to drain")
        wait_until(lambda: all(worker.ready() for worker in workers), 20, "workers to be up")
        assert [worker.stop() for worker in workers] == [0, 0]
    ledger = field.ledger.read()
    starts, done = ledger.of("start"), ledger.of("done")
    found = {task_id: field.app.AsyncResult(task_id) for task_id in ids}
    failed = [task_id for task_id, result in found.items() if result.state == states.FAILURE]
    print(
        f"kills that hit: {dict(bomber.hits)}; {tasks} tasks, {len(failed)} lost with their process"
    )
    assert field.states(ids) == {states.SUCCESS: tasks - len(failed), states.FAILURE: len(failed)}
    assert Counter(starts.values()).keys() == {1}
    assert not field.dead()
    # What was begun and did not end has failed. (What ended just before the kill may have, too.)
    assert set(starts) - set(done) <= set(failed)
    for task_id in failed:
        with pytest.raises(WorkerLostError):
            found[task_id].get(timeout=5)
    for task_id in set(ids) - set(failed):
        assert starts[task_id] == done[task_id] == 1
