"""What every pool does, and what each can and cannot do, in whole workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from live_worker import Stage

from celeriac import states
from celeriac.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celeriac.message import Message

PARALLEL = {"processes": 3, "threads": 3, "asyncio": 3, "solo": 1}


@pytest.fixture(scope="module", params=list(PARALLEL))
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A worker of each pool for all tests of this file."""
    name = request.param
    stage = Stage(tmp_path_factory.mktemp(name), task_soft_time_limit=None)
    stage.pool = name
    process = stage.ready("-P", name, "-c", "3")
    yield stage
    assert stage.stop(process) == 0
    for trouble in ("exit code", "could not", "cannot be told", "never retrieved"):
        assert trouble not in stage.log()
    stage.end()


def test_functions_and_coroutines(pool: Stage) -> None:
    assert pool.run("add", 2, 3) == 5
    assert pool.run("aadd", 2, 3) == 5
    for task in ("fail", "afail"):
        with pytest.raises(ValueError, match="oh"):
            pool.run(task, "oh")


@pytest.mark.parametrize("task", ["tell", "atell"])
def test_each_run_knows_its_own_request_and_context(pool: Stage, task: str) -> None:
    sent = {key: pool.send(task, key, 0.05) for key in "abcdef"}
    for key, result in sent.items():
        name = f"live_tasks.{task}"
        assert result.get(timeout=20) == [key, result.id, key, 0, name]


@pytest.mark.parametrize("task", ["nap", "anap"])
def test_tasks_run_at_the_same_time(pool: Stage, task: str) -> None:
    """As many as the concurrency says, and no more."""
    keys = [f"{task}{n}" for n in range(6)]
    for result in [pool.send(task, key, 0.2) for key in keys]:
        result.get(timeout=20)
    spans = [(pool.noted("start", key)[-1], pool.noted("end", key)[-1]) for key in keys]
    most = max(sum(one <= start < end for one, end in spans) for start, _ in spans)
    assert most == PARALLEL[pool.pool]


def test_a_coroutine_that_cancels_itself_has_failed(pool: Stage) -> None:
    result = pool.send("give_up")
    with pytest.raises(BaseException, match="by itself"):
        result.get(timeout=5)
    assert result.state == states.FAILURE
    pool.gone(result.id)


@pytest.mark.parametrize("task", ["told", "atold"])
def test_handlers_are_called(pool: Stage, task: str) -> None:
    before = len(pool.notes())
    assert pool.run(task, "well") == "well"
    with pytest.raises(ValueError, match="fail"):
        pool.run(task, "fail")
    said = [note[:-2] for note in pool.notes()[before:]]
    assert said == [
        ["before_start", ["well"]],
        ["on_success", "well"],
        ["after_return", "SUCCESS"],
        ["before_start", ["fail"]],
        ["on_failure", "ValueError('fail')"],
        ["after_return", "FAILURE"],
    ]


def test_signals_are_sent(pool: Stage) -> None:
    before = len(pool.notes())
    pool.run("watched", False)
    with pytest.raises(ValueError, match="watched"):
        pool.run("watched", True)
    said = [note[1] for note in pool.notes()[before:]]
    begin = ["task_received", "task_prerun"]
    assert said == [*begin, "task_success", "task_postrun", *begin, "task_failure", "task_postrun"]
    assert len(pool.notes("signal", "worker_process_init")) >= 1


def test_soft_limits(pool: Stage) -> None:
    """Given with the call. A pool that cannot keep them says so once, and runs the task."""
    if pool.pool == "threads":
        assert pool.run("tidy", 0.3, soft_time_limit=0.1) == "finished"
        pool.run("tidy", 0.2, soft_time_limit=0.1)
        assert pool.log().count("the soft time limit") == 1
        return
    if pool.pool == "asyncio":
        assert pool.run("tidy", 0.3, soft_time_limit=0.1) == "finished"
        assert pool.log().count("the soft time limit") == 1  # of what is no coroutine
    task = "asleep" if pool.pool == "asyncio" else "sleep"
    tidy = "atidy" if pool.pool == "asyncio" else "tidy"
    assert pool.run(tidy, 20, soft_time_limit=0.2) == "tidied"
    assert pool.run(tidy, 0, soft_time_limit=0.2) == "finished"
    began = time.monotonic()
    result = pool.send(task, 20, soft_time_limit=0.2)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=10)
    assert time.monotonic() - began < 2.0
    assert result.state == states.FAILURE
    pool.noted("on_failure", "SoftTimeLimitExceeded")
    assert pool.run("add", 1, 1) == 2


def test_hard_limits(pool: Stage) -> None:
    if pool.pool in ("threads", "solo"):
        assert pool.run("tidy", 0.3, time_limit=0.1) == "finished"
        assert pool.log().count("the hard time limit") == 1
        return
    task = "asleep" if pool.pool == "asyncio" else "sleep"
    began = time.monotonic()
    result = pool.send(task, 20, time_limit=0.3)
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=10)
    assert time.monotonic() - began < 2.0
    assert pool.run("add", 1, 1) == 2


def test_terminating_a_running_task(pool: Stage) -> None:
    """Where the pool can; elsewhere it goes on, and the log says so."""
    if pool.pool == "asyncio":
        beside = pool.send("nap", "no coroutine", 1.0)
        pool.noted("start", "no coroutine")
        beside.revoke(terminate=True)
        pool.until(lambda: "which is no coroutine" in pool.log(), "the refusal")
        assert beside.get(timeout=10)
    task = "anap" if pool.pool == "asyncio" else "nap"
    seconds = 30 if pool.pool in ("processes", "asyncio") else 1.0
    result = pool.send(task, "end me", seconds)
    pool.noted("start", "end me")
    result.revoke(terminate=True)
    if seconds == 1.0:
        result.get(timeout=10)
        pool.until(lambda: "Cannot terminate" in pool.log(), "the refusal")
        return
    pool.until(lambda: result.state == states.REVOKED, "it to be revoked", 5.0)
    pool.noted("signal", "task_revoked", task)
    assert not pool.notes("end", "end me")
    assert pool.run("add", 1, 1) == 2


def test_what_cannot_be_read_is_buried_and_the_rest_goes_on(pool: Stage) -> None:
    """Messages with their bytes, whatever is wrong with them."""
    broker = pool.app.make_broker()
    broker.open()
    good = b'[[1, 2], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
    name = b'"task": "live_tasks.add", "id": "%s"'
    bad = {
        "not-json": (b"{" + name % b"not-json" + b"}", b"[[1, 2"),
        "no-task": (b'{"id": "no-task"}', good),
        "no-body": (b"{" + name % b"no-body" + b"}", b""),
        "not-args": (b"{" + name % b"not-args" + b"}", b'["ab", {}, {}]'),
        "no-headers": (b"\xff\xfe", good),
        "bad-expires": (b"{" + name % b"bad-expires" + b', "expires": "tomorrow"}', good),
        "odd-expires": (b"{" + name % b"odd-expires" + b', "expires": {"a": 1}}', good),
        "odd-limits": (b"{" + name % b"odd-limits" + b', "timelimit": ["x", "y"]}', good),
        "flat-limits": (b"{" + name % b"flat-limits" + b', "timelimit": 7}', good),
        "odd-retries": (b"{" + name % b"odd-retries" + b', "retries": "many"}', good),
        "odd-links": (b"{" + name % b"odd-links" + b"}", b'[[1, 2], {}, {"callbacks": 7}]'),
        "odd-chain": (b"{" + name % b"odd-chain" + b"}", b'[[1, 2], {}, {"chain": "abc"}]'),
    }
    try:
        broker.publish(
            [
                Message(id=id, run=id, queue="celery", headers=headers, body=body)
                for id, (headers, body) in bad.items()
            ]
        )
    finally:
        broker.close()
    after = pool.send("add", 3, 4)
    assert after.get(timeout=10) == 7
    for id, (headers, body) in bad.items():
        found = pool.dead(id) if id not in ("odd-limits", "flat-limits") else None
        if found is not None:
            assert (found.message.headers, found.message.body) == (headers, body)
            assert found.reason
            assert pool.app.AsyncResult(id).state == states.FAILURE
    assert " ended with exit code" not in pool.log()
