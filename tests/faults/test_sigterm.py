"""Workers that are told to end while they are busy."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest
from tests.faults.field import HERE, Field, scaled, wait_until

from celeriac import states
from celeriac.message import MessageState

STOPS = 60
COLD = 20
GRACE = 5.0


@pytest.mark.alone
@pytest.mark.timeout(900)
@pytest.mark.parametrize("pool", ["processes", "threads", "asyncio"])
def test_sigterm_under_load(field: Field, rng: random.Random, pool: str) -> None:
    """At random moments, two workers in turn: each ends with status 0 within its grace period,
    holding nothing; all is run, and nothing twice."""
    stops = scaled(STOPS if pool == "processes" else STOPS // 3)
    task = "awork" if pool == "asyncio" else "work"
    ids: list[str] = []
    options = f"-P {pool} -c 2 --grace {GRACE}"
    seconds: list[float] = []
    with field.workers(options, options) as workers:
        for number in range(stops):
            if field.left() < 100:
                calls = [(rng.choice([0.0, 0.005, 0.02, 0.2]),) for _ in range(100)]
                ids += field.send_all(task, calls)
            time.sleep(rng.uniform(0.0, 0.3))
            worker = workers[number % 2]
            began = time.monotonic()
            worker.term()
            assert worker.ended(GRACE + 5.0) == 0
            seconds.append(time.monotonic() - began)
            assert worker.pid not in {info.pid for info in field.admin.workers()}
            worker.start()
            wait_until(worker.ready, 20, "the next one")
        field.drained(60)
        assert [worker.stop() for worker in workers] == [0, 0]
    starts = field.ledger.read().of("start")
    longest = max(seconds)
    print(f"{pool}: {stops} stops, {len(ids)} tasks, the longest stop {longest:.2f} s")
    print(f"starts of each: {dict(Counter(starts.values()))}")
    assert field.states(ids) == {states.SUCCESS: len(ids)}
    assert starts == Counter(ids)
    assert longest < GRACE
    assert not field.held()


@pytest.mark.timeout(300)
def test_the_second_sigterm_ends_at_once(field: Field, rng: random.Random) -> None:
    """What ran goes back to its queue, not counted as lost."""
    times = scaled(COLD)
    seconds: list[float] = []
    for _ in range(times):
        ids = [field.send("work", 60.0) for _ in range(2)]
        with field.workers("-c 2") as (worker,):
            for task_id in ids:
                field.started(task_id)
            worker.term()
            time.sleep(rng.uniform(0.6, 1.0))  # sooner, it is taken for the same order
            began = time.monotonic()
            worker.term()
            assert worker.ended(10.0) == 0
            seconds.append(time.monotonic() - began)
        found = field.admin.find(ids)
        assert [one.state for one in found] == [MessageState.WAITING] * 2
        assert [one.lost for one in found] == [0, 0]
        field.app.revoke(ids)
    print(f"{times} cold stops, the longest {max(seconds):.2f} s")
    assert max(seconds) < 3.0


def test_a_worker_as_process_1(field: Field) -> None:
    """As in a container: it obeys SIGTERM, and buries the orphans of its tasks."""
    unshare = shutil.which("unshare")
    command = [str(unshare), "--pid", "--fork", "--mount-proc"]
    if unshare is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no process namespace can be made here: unshare is missing or not permitted")
    worker = [sys.executable, "-m", "celeriac", "-A", "bombed:app", "worker", "-c", "2"]
    with field.log.open("ab") as log:
        outer = subprocess.Popen(
            [*command, *worker], env=field.env, cwd=HERE, stdin=subprocess.DEVNULL, stderr=log
        )
    first: list[psutil.Process] = []
    try:
        litter = field.send("litter")
        wait_until(lambda: field.states([litter]) == {states.SUCCESS: 1}, 30, "the task to be run")
        first = psutil.Process(outer.pid).children()
        assert len(first) == 1
        (one,) = first
        assert _pid_inside(one.pid) == 1
        ours = {child.pid for child in one.children(recursive=True)}
        wait_until(lambda: len(one.children(recursive=True)) == 3, 10, "the orphan to be buried")
        long = field.send("work", 0.5)
        field.started(long)
        one.send_signal(signal.SIGTERM)
        assert outer.wait(20) == 0
        assert field.states([long]) == {states.SUCCESS: 1}
        assert not any(psutil.pid_exists(pid) for pid in ours)
    finally:
        for process in first or psutil.Process(outer.pid).children():
            if process.is_running():
                process.kill()
        outer.wait(10)


def _pid_inside(pid: int) -> int:
    """The number that the process has in its own namespace (Linux)."""
    with open(f"/proc/{pid}/status") as status:
        (line,) = (line for line in status if line.startswith("NSpid:"))
    assert os.getpid() != pid
    return int(line.split()[-1])
