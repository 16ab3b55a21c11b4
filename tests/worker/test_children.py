"""When the processes of a worker are replaced, and when the worker itself ends."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable

import psutil
import pytest
from live_worker import Stage

from celeriac import states
from celeriac.exceptions import WorkerLostError
from celeriac.message import MessageState

Make = Callable[..., Stage]


@pytest.mark.parametrize("pool", ["processes", "threads", "asyncio"])
def test_max_tasks_per_child(stage: Make, pool: str) -> None:
    one = stage()
    process = one.ready("-c", "1", "-P", pool, "--max-tasks-per-child", "3")
    results = one.app.send_many(one.sig("nap", str(n), 0.0) for n in range(12))
    pids = [result.get(timeout=20) for result in results]
    assert Counter(Counter(pids).values()) == {3: 4}
    assert one.stop(process) == 0
    assert "lost" not in one.log()


def test_max_memory_per_child(stage: Make) -> None:
    one = stage()
    process = one.ready("-c", "1", "--max-memory-per-child", "150000")
    small = [one.run("grow", 1) for _ in range(2)]
    assert small[0] == small[1]
    big = one.run("grow", 200)  # it is run to its end
    assert big == small[0]
    one.until(lambda: one.run("grow", 1) != big, "another process")
    assert "more than 150000" in one.log()
    assert one.stop(process) == 0


@pytest.mark.parametrize("pool", ["processes", "threads", "asyncio", "solo"])
def test_sigterm_finishes_what_runs_and_leaves_the_rest(stage: Make, pool: str) -> None:
    one = stage()
    process = one.ready("-c", "2", "-P", pool)
    first = one.send("nap", "first", 0.6)
    one.noted("start", "first")
    rest = [one.send("nap", str(n), 5.0) for n in range(4)] if pool == "solo" else []
    began = time.monotonic()
    assert one.stop(process) == 0
    assert time.monotonic() - began < 3.0
    assert first.get(timeout=1) > 0
    for result in rest:
        assert [found.state for found in one.find(result.id)] == [MessageState.WAITING]
    assert not any(queue.in_flight for queue in one.app.admin().queues())
    assert not one.app.admin().workers()


@pytest.mark.parametrize("pool", ["processes", "threads", "asyncio", "solo"])
def test_after_the_grace_period_what_runs_goes_back(stage: Make, pool: str) -> None:
    one = stage()
    process = one.ready("-c", "2", "-P", pool, "--grace", "0.3")
    result = one.send("nap", "long", 60.0)
    one.noted("start", "long")
    began = time.monotonic()
    assert one.stop(process) == 0
    assert 0.2 < time.monotonic() - began < 3.0
    (found,) = one.find(result.id)
    assert (found.state, found.lost) == (MessageState.WAITING, 0)


def test_grace_until_done(stage: Make) -> None:
    one = stage()
    process = one.ready("-c", "1", "--grace", "done")
    result = one.send("nap", "long", 1.0)
    one.noted("start", "long")
    assert one.stop(process) == 0
    assert result.get(timeout=1) > 0


def test_at_most_once(stage: Make) -> None:
    """What dies while it runs has failed; what had not started runs."""
    one = stage()
    process = one.ready("-c", "1")
    result = one.send("once", "a", 60.0)
    waiting = one.send("once", "b", 0.0)
    pid = one.noted("start", "a")[-2]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        result.get(timeout=5)
    assert waiting.get(timeout=5) != pid
    assert len(one.notes("start", "a")) == 1
    assert one.app.AsyncResult(result.id).state == states.FAILURE
    assert one.stop(process) == 0


def test_at_most_once_when_the_whole_worker_dies(stage: Make) -> None:
    one = stage(worker_lease=0.6, worker_heartbeat_interval=0.2)
    process = one.ready("-c", "1")
    result = one.send("once", "a", 60.0)
    one.noted("start", "a")
    children = psutil.Process(process.pid).children()
    process.kill()
    process.wait(5)
    psutil.wait_procs(children, 5)
    one.ready("-c", "1")
    with pytest.raises(WorkerLostError):
        result.get(timeout=20)
    assert len(one.notes("start", "a")) == 1


def test_poison_is_a_dead_letter_after_max_deliveries(stage: Make) -> None:
    one = stage(task_max_deliveries=2)
    process = one.ready("-c", "1")
    result = one.send("die")
    assert "2 processes died" in one.dead(result.id).reason
    with pytest.raises(WorkerLostError):
        result.get(timeout=5)
    assert one.run("add", 1, 1) == 2
    assert one.log().count("was killed by SIGKILL") == 2
    assert one.stop(process) == 0
