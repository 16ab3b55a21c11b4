"""Running a call: handlers, signals, their order and arguments, coroutines."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
import warnings
from typing import Any

import pytest
from core_stage import Heard, Stage

from celeriac import Celeriac, execution, signals, states
from celeriac.exceptions import (
    EncodeError,
    Ignore,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    WorkerShutdown,
    WorkerTerminate,
)
from celeriac.execution import ExceptionInfo, execute, execute_async
from celeriac.request import Request, current_request


class Journal(list[tuple[Any, ...]]):
    """What happened, in order."""

    def connect(self) -> None:
        for name in ("prerun", "postrun", "success", "failure", "retry"):
            getattr(signals, f"task_{name}").connect(self._noting(name), weak=False)

    def _noting(self, name: str) -> Any:
        def note(sender: Any, **named: Any) -> None:
            named.pop("signal")
            self.append((name, named))

        return note

    @property
    def names(self) -> list[str]:
        return [entry[0] for entry in self]


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def handled(app: Celeriac, journal: Journal) -> Any:
    """A base class whose handlers write into the journal."""

    class Handled(app.Task):  # type: ignore[misc,name-defined]
        abstract = True

        def before_start(self, *args: Any) -> None:
            journal.append(("before_start", *args))

        def on_success(self, *args: Any) -> None:
            journal.append(("on_success", *args))

        def on_failure(self, *args: Any) -> None:
            journal.append(("on_failure", *args))

        def on_retry(self, *args: Any) -> None:
            journal.append(("on_retry", *args))

        def after_return(self, *args: Any) -> None:
            journal.append(("after_return", *args))

    journal.connect()
    return Handled


# --- order and arguments ----------------------------------------------------------------------


def test_success(app: Celeriac, stage: Stage, handled: Any, journal: Journal) -> None:
    @app.task(base=handled)
    def job(x: int, k: int = 0) -> int:
        journal.append(("run",))
        return x + k

    result = job.delay(1, k=2)
    stage.one()
    assert journal.names == [
        "prerun",
        "before_start",
        "run",
        "on_success",
        "success",
        "after_return",
        "postrun",
    ]
    call = {"task_id": result.id, "task": job, "args": [1], "kwargs": {"k": 2}}
    assert journal[0][1] == call
    assert journal[1][1:] == (result.id, [1], {"k": 2})
    assert journal[3][1:] == (3, result.id, [1], {"k": 2})
    assert journal[4][1]["result"] == 3
    assert journal[4][1]["runtime"] >= 0
    assert journal[5][1:] == ("SUCCESS", 3, result.id, [1], {"k": 2}, None)
    assert journal[6][1] == {**call, "retval": 3, "state": "SUCCESS"}


def test_a_value_that_cannot_be_written_is_a_failure(
    app: Celeriac, stage: Stage, handled: Any, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """Before anybody is told of a success that nobody can read."""
    caplog.set_level("INFO")

    @app.task(base=handled)
    def job() -> object:
        return object()

    result = job.delay()
    stage.one()
    assert journal.names == [
        "prerun",
        "before_start",
        "on_failure",
        "failure",
        "after_return",
        "postrun",
    ]
    assert isinstance(journal[2][1], EncodeError)
    assert journal[-1][1]["state"] == "FAILURE"
    assert result.state == "FAILURE"
    assert f"job[{result.id}] raised unexpected: EncodeError" in caplog.text
    assert "succeeded" not in caplog.text


def test_failure(app: Celeriac, stage: Stage, handled: Any, journal: Journal) -> None:
    @app.task(base=handled)
    def job(x: int) -> None:
        raise KeyError("why")

    result = job.delay(1)
    stage.one()
    assert journal.names == [
        "prerun",
        "before_start",
        "on_failure",
        "failure",
        "after_return",
        "postrun",
    ]
    exc, *call, einfo = journal[2][1:]
    assert isinstance(exc, KeyError)
    assert call == [result.id, [1], {}]
    assert isinstance(einfo, ExceptionInfo)
    assert einfo.exception is exc
    told = journal[3][1]
    assert told["exception"] is exc
    assert (told["task_id"], told["args"], told["kwargs"]) == (result.id, [1], {})
    assert told["traceback"] is exc.__traceback__
    assert told["einfo"] is einfo
    assert journal[4][1:] == ("FAILURE", exc, result.id, [1], {}, einfo)
    assert (journal[5][1]["state"], journal[5][1]["retval"]) == ("FAILURE", exc)


def test_retry(app: Celeriac, stage: Stage, handled: Any, journal: Journal) -> None:
    cause = KeyError("cause")

    @app.task(base=handled, bind=True)
    def job(self: Any, with_cause: bool) -> None:
        self.retry(exc=cause if with_cause else None, countdown=1)

    result = job.delay(True)
    stage.one()
    assert journal.names == [
        "prerun",
        "before_start",
        "on_retry",
        "retry",
        "postrun",
    ]
    assert journal[2][1:5] == (cause, result.id, [True], {})
    assert journal[2][5].exception is cause
    assert isinstance(journal[3][1]["reason"], Retry)
    assert journal[3][1]["request"].id == result.id
    assert journal[3][1]["einfo"].exception is cause
    assert journal[4][1]["state"] == "RETRY"
    journal.clear()
    stage.run()
    job.delay(False)
    stage.one()
    assert isinstance(journal[-3][1], Retry)


@pytest.mark.parametrize("error", [Ignore(), Reject("x")])
def test_ignore_and_reject(
    app: Celeriac, stage: Stage, handled: Any, journal: Journal, error: Exception
) -> None:
    @app.task(base=handled)
    def job() -> None:
        raise error

    job.delay()
    stage.one()
    assert journal.names == ["prerun", "before_start", "postrun"]
    assert journal[-1][1]["state"] == ("IGNORED" if isinstance(error, Ignore) else "REJECTED")


def test_handlers_without_signals_and_signals_without_handlers(app: Celeriac, stage: Stage) -> None:
    seen: list[str] = []

    class Only(app.Task):  # type: ignore[misc,name-defined]
        abstract = True

        def on_success(self, *args: Any) -> None:
            seen.append("on_success")

    app.task(base=Only, name="handled")(lambda: None)
    app.task(name="plain")(lambda: None)
    app.send_task("handled")
    stage.run()
    success = Heard(signals.task_success)
    app.send_task("plain")
    stage.run()
    assert seen == ["on_success"]
    assert len(success) == 1


# --- errors in what surrounds the task --------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_an_error_in_a_handler_is_logged_and_hinders_nothing(
    app: Celeriac, stage: Stage, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    after: list[str] = []

    class Broken(app.Task):  # type: ignore[misc,name-defined]
        abstract = True

        def on_success(self, *args: Any) -> None:
            raise RuntimeError("broken handler")

        on_failure = on_success

        def after_return(self, status: str, *args: Any) -> None:
            after.append(status)
            raise RuntimeError("broken, too")

    @app.task(base=Broken)
    def job() -> str:
        if fails:
            raise KeyError("own")
        return "fine"

    told = Heard(signals.task_failure if fails else signals.task_success)
    post = Heard(signals.task_postrun)
    result = job.delay()
    with caplog.at_level(logging.ERROR):
        stage.one()
    expected = "FAILURE" if fails else "SUCCESS"
    assert result.state == expected
    assert after == [expected]
    assert (len(told), len(post)) == (1, 1)
    logged = [record.message for record in caplog.records if record.name == "celeriac.execution"]
    names = ["on_failure" if fails else "on_success", "after_return"]
    assert [text.split(" of ")[0] for text in logged] == names
    assert result.id in logged[0]


def test_an_error_in_a_receiver_is_logged(
    app: Celeriac, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**named: Any) -> None:
        raise RuntimeError("broken receiver")

    for one in (signals.task_prerun, signals.task_success, signals.task_postrun):
        one.connect(broken, weak=False)
    result = app.task(name="job")(lambda: 5).delay()
    with caplog.at_level(logging.ERROR):
        stage.one()
    assert result.get(timeout=1) == 5
    assert len([record for record in caplog.records if "broken" in record.message]) == 3


def test_an_error_before_the_start_fails_the_task(app: Celeriac, stage: Stage) -> None:
    class Strict(app.Task):  # type: ignore[misc,name-defined]
        abstract = True

        def before_start(self, *args: Any) -> None:
            raise PermissionError("not today")

    @app.task(base=Strict)
    def job() -> None:
        raise AssertionError("it must not run")

    result = job.delay()
    stage.one()
    with pytest.raises(PermissionError, match="not today"):
        result.get(timeout=1)


# --- what a task may raise ----------------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError()])
def test_base_exceptions_fail_the_task_and_not_the_worker(
    app: Celeriac, stage: Stage, error: BaseException
) -> None:
    @app.task
    def job() -> None:
        raise error

    result = job.delay()
    stage.one()
    assert result.state == "FAILURE"


@pytest.mark.parametrize("error", [WorkerShutdown(0), WorkerTerminate(1), KeyboardInterrupt()])
def test_what_stops_the_worker_comes_out(app: Celeriac, error: BaseException) -> None:
    @app.task
    def job() -> None:
        raise error

    app.finalize()
    with pytest.raises(type(error)):
        execute(job, Request(id="x", args=(), kwargs={}, called_directly=False))
    assert current_request() is None


def test_a_soft_limit_may_be_caught_or_fails(app: Celeriac, stage: Stage) -> None:
    @app.task
    def job(catch: bool) -> str:
        try:
            raise SoftTimeLimitExceeded
        except SoftTimeLimitExceeded:
            if catch:
                return "cleaned up"
            raise

    caught, not_caught = job.delay(True), job.delay(False)
    stage.run()
    assert caught.get(timeout=1) == "cleaned up"
    with pytest.raises(SoftTimeLimitExceeded):
        not_caught.get(timeout=1)


def test_the_traceback_begins_in_the_task(app: Celeriac, stage: Stage) -> None:
    def helper() -> None:
        raise KeyError("deep")

    @app.task
    def job() -> None:
        helper()

    result = job.delay()
    stage.one()
    lines = (result.traceback or "").splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith("in job")
    assert lines[-1] == "KeyError: 'deep'"

    @app.task(autoretry_for=(KeyError,), max_retries=0)
    def final() -> None:
        helper()

    class InContext(app.Task):  # type: ignore[misc,name-defined]
        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    again, inside = final.delay(), app.task(base=InContext, name="inside")(job.run).delay()
    stage.run()
    assert (again.traceback or "").splitlines()[1].endswith("in final")
    assert (inside.traceback or "").splitlines()[1].endswith("in __call__")  # the user's own
    info = ExceptionInfo(KeyError("x"))
    assert str(info) == info.traceback == "KeyError: 'x'\n"
    assert (info.type, info.tb, info.exc_info[0]) == (KeyError, None, KeyError)
    assert "KeyError" in repr(info)


# --- coroutines -------------------------------------------------------------------------------


def test_a_coroutine_is_a_task_like_any_other(
    app: Celeriac, stage: Stage, handled: Any, journal: Journal
) -> None:
    loops: list[Any] = []

    @app.task(bind=True, base=handled)
    async def job(self: Any, fail: bool = False) -> str:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        inside = await asyncio.create_task(helper())
        if fail:
            raise KeyError("why")
        return f"{self.request.id} {inside}"

    async def helper() -> Any:
        request = current_request()
        return request.id if request else None

    first, second = job.delay(), job.delay(fail=True)
    stage.run()
    assert first.get(timeout=1) == f"{first.id} {first.id}"
    with pytest.raises(KeyError):
        second.get(timeout=1)
    assert loops[0] is loops[1]  # clients that one task opened serve the next
    assert journal.names.count("prerun") == journal.names.count("postrun") == 2


def test_the_loop_is_closed_with_its_thread(app: Celeriac) -> None:
    job_loops: list[Any] = []

    async def job() -> None:
        job_loops.append(asyncio.get_running_loop())

    def work() -> None:
        execution.run_coroutine(job())
        execution.close_loop()
        execution.close_loop()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(5)
    assert job_loops[0].is_closed()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_has_a_loop_of_its_own() -> None:
    async def which() -> int:
        return id(asyncio.get_running_loop())

    parents = execution.run_coroutine(which())
    assert execution.run_coroutine(which()) == parents
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(into, b"same" if execution.run_coroutine(which()) == parents else b"own")
        finally:
            os._exit(0)
    os.close(into)
    try:
        assert os.read(out, 10) == b"own"
    finally:
        os.waitpid(pid, 0)
        os.close(out)


@pytest.mark.parametrize("catch", [False, True])
def test_a_soft_limit_ends_a_coroutine_as_itself(catch: bool) -> None:
    """The alarm goes off in the loop, most often outside of the coroutine that waits."""

    def alarm(signum: int, frame: Any) -> None:
        raise SoftTimeLimitExceeded

    async def job() -> str:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            if catch:
                return "cleaned up"
            raise
        return "slept"

    before = signal.signal(signal.SIGALRM, alarm)
    try:
        if catch:
            assert execution.run_coroutine(job()) == "cleaned up"
        else:
            with pytest.raises(SoftTimeLimitExceeded):
                execution.run_coroutine(job())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_in_an_event_loop(app: Celeriac, handled: Any, journal: Journal) -> None:
    @app.task(bind=True, base=handled)
    async def awaited(self: Any, x: int) -> Any:
        await asyncio.sleep(0)
        return x, self.request.id, threading.current_thread() is threading.main_thread()

    @app.task(bind=True, base=handled)
    def threaded(self: Any, x: int) -> Any:
        return x, self.request.id, threading.current_thread() is threading.main_thread()

    @app.task
    async def failing() -> None:
        raise KeyError("why")

    app.finalize()

    def request(task_id: str, *args: Any) -> Request:
        return Request(id=task_id, args=args, kwargs={}, called_directly=False)

    async def main() -> list[Any]:
        return await asyncio.gather(
            execute_async(awaited, request("a", 1)),
            execute_async(awaited, request("b", 2)),
            execute_async(threaded, request("c", 3)),
            execute_async(failing, request("d")),
        )

    *fine, failed = asyncio.run(main())
    assert [one.value for one in fine] == [(1, "a", True), (2, "b", True), (3, "c", False)]
    assert (failed.state, type(failed.exc)) == (states.FAILURE, KeyError)
    assert journal.names.count("after_return") == 3
    assert journal.names.count("postrun") == 4


def test_cancelling_an_asynchronous_run_is_not_an_outcome(app: Celeriac) -> None:
    @app.task
    async def job() -> None:
        await asyncio.sleep(60)

    app.finalize()

    async def main() -> None:
        request = Request(id="x", args=(), kwargs={}, called_directly=False)
        running = asyncio.create_task(execute_async(job, request))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())


def test_direct_execution_measures_and_restores(app: Celeriac) -> None:
    job = app.task(name="job")(lambda: current_request())
    app.finalize()
    request = Request(id="x", args=(), kwargs={}, called_directly=False)
    outcome = execute(job, request)
    assert (outcome.state, outcome.value) == ("SUCCESS", request)
    assert outcome.runtime >= 0
    assert current_request() is None
