"""Messages that wait for their time, while everything is killed."""

from __future__ import annotations

import random
import statistics
import time

import pytest
from tests.faults.field import Field, Ledger, scaled

from celeriac import states

DUE = 300
SURVIVORS = 1000
LATE = 0.5


@pytest.mark.every_store
def test_due_messages_start_on_time(field: Field, rng: random.Random) -> None:
    """On an idle worker."""
    due: dict[str, float] = {}
    with field.workers("-c 2") as (worker,):
        for _ in range(scaled(DUE)):
            countdown = rng.uniform(0.2, 3.0)
            # The countdown begins somewhere in this call: the time before it is the earliest.
            now = time.monotonic()
            due[field.send("work", 0.0, countdown=countdown)] = now + countdown
        field.drained()
        assert worker.stop() == 0
    late = [field.ledger.lines_of(task_id)[0].at - at for task_id, at in due.items()]
    print(f"due messages started after {statistics.median(late):.3f} s, at most {max(late):.3f} s")
    assert min(late) >= -0.001
    assert max(late) < LATE
    assert statistics.median(late) < 0.1


@pytest.mark.every_store
@pytest.mark.timeout(300)
def test_delayed_messages_and_retries_survive_kills_of_everything(
    field: Field, rng: random.Random
) -> None:
    """None starts before its time, none is lost, and all that are due with nobody there to run
    them are run once a worker is back."""
    count = scaled(SURVIVORS)
    due: dict[str, float] = {}
    for _ in range(count):
        countdown = rng.uniform(0.5, 4.0)
        now = time.monotonic()
        due[field.send("work", 0.0, countdown=countdown)] = now + countdown
    stubborn = field.send_all("stubborn", [(rng.uniform(0.3, 1.5),) for _ in range(count // 5)])
    kills = 0
    until = time.monotonic() + 4.0
    while time.monotonic() < until:
        with field.workers("-c 2", "-c 2") as workers:
            time.sleep(rng.uniform(0.1, 0.8))
            for worker in workers:
                worker.kill_tree()
            kills += 1
    with field.workers("-c 2") as (worker,):
        field.drained()
        assert worker.stop() == 0
    ledger = field.ledger.read()
    starts, done = ledger.of("start"), ledger.of("done")
    print(f"{kills} times all was killed; {count} delayed tasks, {len(stubborn)} with two retries")
    assert field.states([*due, *stubborn]) == {states.SUCCESS: count + len(stubborn)}
    assert all(done[task_id] >= 1 for task_id in [*due, *stubborn])
    early = [t for t, at in due.items() if min(_starts(ledger, t)) < at - 0.001]
    assert not early
    assert all(starts[task_id] >= 3 for task_id in stubborn)
    for task_id in stubborn:
        _assert_retries_were_due(ledger, task_id)
    assert not field.dead()


def _starts(ledger: Ledger, task_id: str) -> list[float]:
    return [line.at for line in ledger.lines if line.id == task_id and line.word == "start"]


def _assert_retries_were_due(ledger: Ledger, task_id: str) -> None:
    """Each start after the first either repeats one that was killed, or was due."""
    dues = [
        float(line.word.removeprefix("due="))
        for line in ledger.lines
        if line.id == task_id and line.word.startswith("due=")
    ]
    assert len(dues) >= 2
    last = max(_starts(ledger, task_id))
    assert last >= max(dues) - 0.05
