"""Limits in whole workers: of time, of rate, and the shares of queues."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
from live_worker import Stage

from celeriac import states
from celeriac.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

Make = Callable[..., Stage]

RATE = 20.0  # live_tasks.limited


def test_the_settings_limit_every_task(stage: Make) -> None:
    one = stage(task_time_limit=1.0, task_soft_time_limit=0.3)
    one.ready("-c", "2")
    soft, hard = one.send("sleep", 60), one.send("nap", "hard", 60, soft_time_limit=30)
    longer = one.send("nap", "longer", 1.3, time_limit=30, soft_time_limit=30)
    with pytest.raises(SoftTimeLimitExceeded):
        soft.get(timeout=10)
    with pytest.raises(TimeLimitExceeded):
        hard.get(timeout=10)
    assert longer.get(timeout=10)
    assert len(one.notes("start", "hard")) == 1
    assert hard.state == states.FAILURE


def test_a_soft_limit_that_rings_while_the_result_is_written(stage: Make) -> None:
    """It has failed, once, and its process goes on."""
    one = stage(task_soft_time_limit=0.3)
    one.ready("-c", "1")
    before = one.run("nap", "before", 0.0)
    result = one.send("heavy", 20.0)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=10)
    assert one.run("nap", "after", 0.0) == before
    one.gone(result.id)


@pytest.mark.parametrize(
    ("pool", "limit"),
    [("threads", "soft_time_limit"), ("threads", "time_limit"), ("solo", "time_limit")],
)
def test_limits_that_a_pool_cannot_enforce_are_refused(stage: Make, pool: str, limit: str) -> None:
    """Of a task, of the settings, and of the command line."""
    one = stage()
    one.env["LIVE_LIMIT"] = limit
    option = "--" + limit.replace("_", "-")
    refused = [
        one.start("-P", pool, app="live_limited:app", log="task"),
        one.start("-P", pool, option, "5", log="option"),
    ]
    one.env["LIVE_CONF"] = f'{{"task_{limit}": 5}}'
    refused.append(one.start("-P", pool, log="setting"))
    assert [process.wait(20) for process in refused] == [1, 1, 1]
    assert "live_tasks" not in one.log("option")
    assert "limited_by_itself" in one.log("task")
    for log in ("task", "option", "setting"):
        assert pool in one.log(log)
        assert "--pool=processes" in one.log(log)
        assert "Traceback" not in one.log(log)


def test_rate_limits_hold_for_all_processes_of_a_worker(stage: Make) -> None:
    """Never more starts in any span than the rate allows; and nearly as many as it allows."""
    one = stage()
    one.ready("-c", "2")
    count = 28
    results = one.app.send_many(one.sig("limited", str(n)) for n in range(count))
    for result in results:
        result.get(timeout=30)
    notes = one.notes("limited")
    times = sorted(note[-1] for note in notes)
    assert len({note[-2] for note in notes}) == 2
    assert sorted(note[1] for note in notes) == sorted(map(str, range(count)))
    slack = 0.025  # between the permission and the note
    for first in range(count):
        for last in range(first + 1, count):
            allowed = (times[last] - times[first] + slack) * RATE + 1
            assert last - first + 1 <= allowed + 1e-6, (first, last)
    took = times[-1] - times[0]
    print(f"\n{count} starts at {RATE:g}/s in {took:.2f} s")
    assert took < (count - 1) / RATE * 1.5


def test_queues_are_served_by_their_weights(stage: Make) -> None:
    """From b three times as often as from a: the share among the first, while both have some."""
    one = stage()
    count = 160
    for queue in ("a", "b"):
        calls = [one.sig("nap", f"{queue}{n}", 0.006, queue=queue) for n in range(count)]
        one.app.send_many(calls)
    process = one.ready("-c", "1", "-Q", "a=1,b=3")
    one.until(lambda: len(one.notes("start")) > count, "half of them")
    assert one.stop(process) == 0
    first = [note[1][0] for note in one.notes("start")][:count]
    share = first.count("b") / count
    deviation = math.sqrt(0.75 * 0.25 / count)
    print(f"\nb had {share:.2f} of {count} starts")
    assert abs(share - 0.75) < 4 * deviation


def test_queues_without_weights_are_served_in_order(stage: Make) -> None:
    one = stage()
    for queue in ("a", "b"):
        one.app.send_many(one.sig("nap", f"{queue}{n}", 0.006, queue=queue) for n in range(20))
    one.ready("-c", "1", "-Q", "b,a")
    one.idle()
    assert [note[1][0] for note in one.notes("start")] == ["b"] * 20 + ["a"] * 20


def test_a_rate_limited_task_does_not_hold_up_others(stage: Make) -> None:
    one = stage()
    one.ready("-c", "1")
    one.app.send_many(one.sig("limited", str(n)) for n in range(30))
    began = time.monotonic()
    assert one.run("add", 1, 1) == 2
    assert time.monotonic() - began < 0.7
