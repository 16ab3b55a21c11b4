"""Cancelling tasks, in whole workers: durable, and without a result backend."""

from __future__ import annotations

import time
from collections.abc import Callable

from live_worker import Stage

from celeriac import states

Make = Callable[..., Stage]


def test_waiting_tasks_are_revoked_at_once_and_stay_so(stage: Make) -> None:
    """Also when sent again, and over a restart of the worker."""
    one = stage()
    result = one.send("nap", "revoked", 0.0)
    result.revoke()
    assert one.app.AsyncResult(result.id).state == states.REVOKED  # with no worker there
    assert one.find(result.id) == []
    for _ in range(2):
        process = one.ready("-c", "1")
        one.send("nap", "revoked", 0.0, task_id=result.id)
        one.idle()
        assert one.stop(process) == 0
    assert one.notes("start", "revoked") == []
    assert one.app.AsyncResult(result.id).state == states.REVOKED


def test_revoked_while_no_worker_heard_of_it(stage: Make) -> None:
    """An id may be revoked before it is sent."""
    one = stage()
    one.app.revoke("future")
    one.ready("-c", "1")
    result = one.send("nap", "future", 0.0, task_id="future")
    assert result.get(timeout=10, propagate=False).args == ("revoked",)
    assert one.notes("start", "future") == []


def test_terminate_without_a_result_backend(stage: Make) -> None:
    one = stage(result_backend="disabled://")
    process = one.ready("-c", "2")
    result = one.send("nap", "long", 60.0)
    beside = one.send("nap", "beside", 1.0)
    one.noted("start", "long")
    one.noted("start", "beside")
    began = time.monotonic()
    one.app.revoke(result.id, terminate=True)
    one.gone(result.id)
    assert time.monotonic() - began < 2.0
    waiting = one.send("nap", "waiting", 0.0, countdown=600)
    one.app.revoke(waiting.id)
    one.gone(waiting.id)
    one.noted("end", "beside")
    one.gone(beside.id)
    assert len(one.notes("start", "beside")) == 1  # the neighbour was left alone
    assert one.stop(process) == 0


def test_terminating_with_a_signal_that_does_not_kill(stage: Make) -> None:
    """It is sent to the process, whose task may do with it what it likes."""
    one = stage()
    one.ready("-c", "1")
    result = one.send("nap", "long", 60.0)
    one.noted("start", "long")
    one.app.revoke(result.id, terminate=True, signal="USR1")  # the stacks are written to the log
    one.until(lambda: "live_tasks.py" in one.log(), "where it is")
    assert result.state == states.PENDING
    one.app.revoke(result.id, terminate=True, signal="KILL")
    one.until(lambda: result.state == states.REVOKED, "it to be killed")
