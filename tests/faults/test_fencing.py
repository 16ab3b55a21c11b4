"""Processes that are stopped for longer than their lease, and go on afterwards."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter

import pytest
from tests.faults.field import Field, WorkerProcess, scaled, send_signal, wait_until

from celeriac import states

ROUNDS = 20
OUTAGES = 10
STOPS = 20
LEASE = 1.0
UNSETTLED = 10  # tasks that take no time and had ended within the last 10 ms


def fenced(field: Field) -> int:
    return field.logged().count("belong to another process")


def stored(field: Field, task_id: str) -> bytes:
    assert field.app.backend is not None
    (record,) = field.app.backend.get([task_id])
    assert record is not None
    return record.payload


@pytest.mark.every_store
@pytest.mark.timeout(600)
def test_a_stopped_worker_is_fenced(field: Field, rng: random.Random) -> None:
    """Its late settlement changes nothing: not the result, and what follows is not sent twice.
    Stopped are, in turn, the runner with its agent, and the whole worker."""
    rounds = scaled(ROUNDS)
    with field.workers("-c 1", "-c 1") as workers:
        after = [one_round(field, workers, rng, str(number)) for number in range(rounds)]
        assert all(worker.stop() == 0 for worker in workers)
    print(f"{rounds} rounds, taken over after {', '.join(f'{t:.2f}' for t in after)} s")
    assert max(after) < LEASE + 5.0
    assert not field.dead()
    assert not field.left()


def one_round(field: Field, workers: list[WorkerProcess], rng: random.Random, key: str) -> float:
    """How long it took until the other worker had taken the task over."""
    warned = fenced(field)
    link = field.app.signature("bombed.after", (key,), immutable=True)
    task_id = field.send("pid", 0.3, link=link)
    first = field.started(task_id)
    (worker,) = (one for one in workers if first.pid in one.runners())
    pids = worker.tree() if int(key) % 2 else worker.tree()[1:]
    time.sleep(rng.uniform(0.0, 0.2))
    stopped = time.monotonic()
    send_signal(pids, signal.SIGSTOP)
    second = field.started(task_id, 2)
    assert second.pid not in pids
    wait_until(lambda: field.states([task_id]) == {states.SUCCESS: 1}, 10, "its result")
    wait_until(lambda: field.ledger.lines_of(key, "after") != [], 10, "what follows")
    before = stored(field, task_id)
    send_signal(pids, signal.SIGCONT)
    wait_until(lambda: fenced(field) == warned + 1, 10, "the late settlement to be refused")
    assert len(field.ledger.lines_of(task_id, "done")) == 2
    again = field.send_all("work", [(0.1,)] * 8)
    wait_until(lambda: field.states(again) == {states.SUCCESS: 8}, 20, "both to go on")
    assert first.pid in {field.ledger.lines_of(one)[0].pid for one in again}
    assert stored(field, task_id) == before
    assert len(field.ledger.lines_of(key, "after")) == 1
    return second.at - stopped


@pytest.mark.timeout(600)
def test_an_outage_of_everything_repeats_nothing(field: Field, rng: random.Random) -> None:
    """All processes of both workers stand still for two leases, as on a suspended machine."""
    outages = scaled(OUTAGES)
    ids: list[str] = []
    with field.workers("-c 2", "-c 2") as workers:
        for _ in range(outages):
            calls = [(rng.choice([0.01, 0.05, 0.3, 0.8]),) for _ in range(30)]
            ids += field.send_all("work", calls)
            time.sleep(rng.uniform(0.1, 0.8))
            assert field.held()
            pids = [pid for worker in workers for pid in worker.tree()]
            rng.shuffle(pids)
            send_signal(pids, signal.SIGSTOP)
            time.sleep(2 * LEASE)
            rng.shuffle(pids)
            for pid in pids:
                send_signal([pid], signal.SIGCONT)
                time.sleep(rng.uniform(0, 0.02))
        field.drained(120)
        assert all(worker.stop() == 0 for worker in workers)
    starts = field.ledger.read().of("start")
    print(f"{outages} outages, {len(ids)} tasks, starts of each: {Counter(starts.values())}")
    assert field.states(ids) == {states.SUCCESS: len(ids)}
    assert starts == Counter(ids)


def test_a_stopped_runner_keeps_its_message_while_its_agent_lives(field: Field) -> None:
    """It cannot be told from a task that holds the interpreter: the lease goes on."""
    with field.workers("-c 1", "-c 1") as workers:
        task_id = field.send("work", 0.1)
        runner = field.started(task_id).pid
        send_signal([runner], signal.SIGSTOP)
        time.sleep(2.5 * LEASE)
        send_signal([runner], signal.SIGCONT)
        field.drained()
        assert [worker.stop() for worker in workers] == [0, 0]
    assert field.states([task_id]) == {states.SUCCESS: 1}
    assert len(field.ledger.lines_of(task_id)) == 1


@pytest.mark.timeout(600)
def test_workers_that_are_stopped_at_random_moments(field: Field, rng: random.Random) -> None:
    """Also in the middle of a transaction, when nobody else can get at the file either. Only what
    a stopped worker was running may run again, and what it had not settled yet."""
    stops, seats = scaled(STOPS), 2
    ids: list[str] = []
    with field.workers(f"-c {seats}", f"-c {seats}") as workers:
        for _ in range(stops):
            calls = [(rng.choice([0.0, 0.002, 0.01, 0.2]),) for _ in range(150)]
            ids += field.send_all("work", calls)
            time.sleep(rng.uniform(0.05, 0.3))
            pids = rng.choice(workers).tree()
            send_signal(pids, signal.SIGSTOP)
            time.sleep(rng.uniform(0.5, 2.5) * LEASE)
            send_signal(pids, signal.SIGCONT)
        field.drained(120)
        assert [worker.stop() for worker in workers] == [0, 0]
    starts = field.ledger.read().of("start")
    repeated = sum(count - 1 for count in starts.values())
    print(f"{stops} stops, {len(ids)} tasks, {repeated} repeated, {fenced(field)} refused")
    assert field.states(ids) == {states.SUCCESS: len(ids)}
    assert not field.dead()
    assert repeated <= stops * seats * (1 + UNSETTLED)
