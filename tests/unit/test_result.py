"""Results: reading, waiting, acting, sets of them."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from core_stage import MakeApp, Stage

from celeriac import Celeriac, exceptions
from celeriac.exceptions import OperationalError, TaskRevokedError
from celeriac.result import (
    AsyncResult,
    EagerResult,
    ResultSet,
    allow_join_result,
    result_from_tuple,
)

Store = Callable[..., AsyncResult[Any]]


@pytest.fixture
def store(app: Celeriac) -> Store:
    """``store(id, value, state="SUCCESS")``: as a worker would."""

    def store(task_id: str, value: Any = None, state: str = "SUCCESS") -> AsyncResult[Any]:
        backend = app.backend
        assert backend is not None
        backend.put([app.records.write(task_id, task_id, state, value)])
        return app.AsyncResult(task_id)

    return store


# --- reading ----------------------------------------------------------------------------------


def test_an_unknown_id_is_pending(app: Celeriac) -> None:
    result = app.AsyncResult("unknown")
    assert (result.state, result.status, result.result, result.info) == (
        "PENDING",
        "PENDING",
        None,
        None,
    )
    assert (result.ready(), result.successful(), result.failed()) == (False, False, False)
    assert (result.exists(), result.traceback, result.date_done) == (False, None, None)
    assert (result.children, result.name, result.args, result.kwargs) == (None,) * 4
    assert (result.worker, result.retries, result.queue) == (None,) * 3
    assert result.maybe_throw() is None


def test_an_id_must_be(app: Celeriac) -> None:
    with pytest.raises(ValueError, match="not None"):
        app.AsyncResult(None)  # type: ignore[arg-type]
    assert app.AsyncResult("x").backend is app.backend


def test_a_success(app: Celeriac, store: Store) -> None:
    result = store("a", [1, {"x": None}])
    assert result.state == "SUCCESS"
    assert result.result == result.info == result.get(timeout=1) == [1, {"x": None}]
    assert (result.ready(), result.successful(), result.failed()) == (True, True, False)
    assert result.exists()
    done = result.date_done
    assert done is not None
    assert abs((datetime.now(UTC) - done).total_seconds()) < 60
    assert result.wait(timeout=1) == result.get()
    assert result.maybe_throw() == result.maybe_reraise() == [1, {"x": None}]


def test_a_failure(app: Celeriac, store: Store) -> None:
    result = store("a", KeyError("why"), "FAILURE")
    assert (result.ready(), result.successful(), result.failed()) == (True, False, True)
    assert isinstance(result.info, KeyError)
    with pytest.raises(KeyError, match="why"):
        result.get(timeout=1)
    with pytest.raises(KeyError):
        result.maybe_throw()
    returned = result.get(timeout=1, propagate=False)
    assert isinstance(returned, KeyError)
    assert returned.args == ("why",)
    assert isinstance(result.maybe_throw(propagate=False), KeyError)


def test_exceptions_of_ones_own_and_unknown_ones(app: Celeriac, store: Store) -> None:
    class Hidden(Exception):
        pass

    with pytest.raises(OperationalError, match="down"):
        store("known", OperationalError("down"), "FAILURE").get(timeout=1)
    with pytest.raises(Exception, match="hidden") as caught:
        store("unknown", Hidden("hidden"), "FAILURE").get(timeout=1)
    assert type(caught.value).__name__ == "Hidden"


def test_revoked(app: Celeriac, store: Store) -> None:
    result = store("a", TaskRevokedError("expired"), "REVOKED")
    assert (result.ready(), result.successful(), result.failed()) == (True, False, False)
    with pytest.raises(TaskRevokedError, match="expired"):
        result.get(timeout=1)


def test_an_ended_task_is_asked_for_once(app: Celeriac, store: Store) -> None:
    result = store("a", 5)
    assert result.get(timeout=1) == 5
    store("a", 6, "SUCCESS")
    app.producer.results.delete(["a"])  # type: ignore[union-attr]
    assert (result.state, result.get(timeout=1)) == ("SUCCESS", 5)
    assert app.AsyncResult("a").state == "PENDING"


def test_forgetting(app: Celeriac, store: Store) -> None:
    result = store("a", 5)
    assert result.get(timeout=1) == 5
    result.forget()
    assert result.state == "PENDING"


# --- waiting ----------------------------------------------------------------------------------


def test_waiting_for_one_that_comes(app: Celeriac, store: Store) -> None:
    thread = threading.Timer(0.05, store, ("a", 5))
    thread.start()
    begun = time.monotonic()
    assert app.AsyncResult("a").get(timeout=20) == 5
    assert time.monotonic() - begun < 10
    thread.join()


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_time_out(app: Celeriac, store: Store, timeout: float) -> None:
    store("a", 1, "PROGRESS")
    result = app.AsyncResult("a")
    with pytest.raises(exceptions.TimeoutError, match=r"a did not end within .*PROGRESS"):
        result.get(timeout=timeout)
    with pytest.raises(TimeoutError):
        result.get(timeout=timeout)
    with pytest.raises(result.TimeoutError):
        result.get(timeout=timeout)


def test_callbacks_of_waiting(app: Celeriac, store: Store) -> None:
    seen: list[Any] = []
    store("a", 5)
    app.AsyncResult("a").get(
        callback=lambda task_id, value: seen.append((task_id, value)),
        on_message=lambda meta: seen.append(meta["status"]),
    )
    assert seen == ["SUCCESS", ("a", 5)]
    times: list[float] = []
    with pytest.raises(TimeoutError):
        app.AsyncResult("b").get(
            timeout=0.2, interval=0.02, on_interval=lambda: times.append(time.monotonic())
        )
    assert 2 <= len(times) <= 11


def test_an_ignored_result_is_none(app: Celeriac) -> None:
    job = app.task(name="job", ignore_result=True)(lambda: 5)
    result = job.delay()
    assert result.get(timeout=1) is None
    assert asyncio.run(result.aget(timeout=1)) is None
    assert ResultSet([result]).join(timeout=1) == [None]
    assert list(ResultSet([result]).iterate(timeout=1)) == [(result, None)]


# --- within a task ----------------------------------------------------------------------------


def test_waiting_within_a_task_is_refused(app: Celeriac, stage: Stage, store: Store) -> None:
    seen: dict[str, Any] = {}
    store("a", 5)

    @app.task
    def job() -> None:
        result = app.AsyncResult("a")
        for name, wait in {
            "get": result.get,
            "join": ResultSet([result]).join,
            "await": lambda: asyncio.run(result.aget()),
        }.items():
            with pytest.raises(RuntimeError, match="within a task"):
                wait()
            with allow_join_result():
                seen[name] = wait()
        seen["told"] = result.get(disable_sync_subtasks=False)
        seen["set"] = ResultSet([result]).join(disable_sync_subtasks=False)

    done = job.delay()
    stage.one()
    done.get(timeout=1)
    assert seen == {"get": 5, "join": [5], "await": 5, "told": 5, "set": [5]}


def test_a_task_called_as_a_function_may_wait(app: Celeriac, store: Store) -> None:
    store("a", 5)

    @app.task
    def job() -> int:
        return int(app.AsyncResult("a").get(timeout=1))

    assert job() == 5


# --- coroutines -------------------------------------------------------------------------------


def test_awaiting(app: Celeriac, store: Store) -> None:
    async def main() -> Any:
        asyncio.get_running_loop().call_later(0.05, store, "later", "then")
        store("now", "there")
        failed = store("failed", KeyError("why"), "FAILURE")
        with pytest.raises(KeyError, match="why"):
            await failed
        assert isinstance(await failed.aget(propagate=False), KeyError)
        first: AsyncResult[str] = app.AsyncResult("now")
        return await first, await first, await app.AsyncResult("later")

    assert asyncio.run(main()) == ("there", "there", "then")


def test_awaiting_with_a_time_out(app: Celeriac, store: Store) -> None:
    async def main() -> None:
        result = app.AsyncResult("never")
        with pytest.raises(exceptions.TimeoutError, match="never"):
            await result.aget(timeout=0.02)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(result, timeout=0.02)
        store("never", 5)
        assert await result == 5

    asyncio.run(main())


def test_awaiting_without_a_backend(make_app: MakeApp) -> None:
    app = make_app(backend="disabled://")

    async def main() -> None:
        with pytest.raises(NotImplementedError, match="result_backend"):
            await app.AsyncResult("a")

    asyncio.run(main())


# --- what it is -------------------------------------------------------------------------------


def test_identity(app: Celeriac) -> None:
    parent = app.AsyncResult("parent")
    result: AsyncResult[Any] = AsyncResult("id", app=app, task_name="job", parent=parent)
    assert (result.id, result.task_id, str(result)) == ("id", "id", "id")
    assert repr(result) == "<AsyncResult: id>"
    assert result == app.AsyncResult("id")
    assert result == "id"
    assert result != parent
    assert result != 5
    assert len({result, app.AsyncResult("id")}) == 1
    assert result.as_list() == ["id", "parent"]
    assert result.as_tuple() == (("id", (("parent", None), None)), None)
    again = result_from_tuple(result.as_tuple(), app)
    assert (again, again.parent) == (result, parent)
    assert result_from_tuple(result) is result
    assert result_from_tuple(["id", None]).id == "id"
    copied = pickle.loads(pickle.dumps(result))
    assert (copied, copied.name, copied.app) == (result, "job", app)
    assert AsyncResult("x").app is app  # the current one


# --- sets -------------------------------------------------------------------------------------


def test_a_set_of_results(app: Celeriac, store: Store) -> None:
    results = [store("a", 1), store("b", 2), app.AsyncResult("c")]
    together = app.ResultSet(results)
    assert (len(together), together[1], list(together)) == (3, results[1], results)
    assert together.children == together.results == results
    assert (together.ready(), together.waiting()) == (False, True)
    assert (together.successful(), together.failed(), together.completed_count()) == (
        False,
        False,
        2,
    )
    store("c", 3)
    assert together.ready()
    assert together.successful()
    assert together.join(timeout=1) == together.get(timeout=1) == [1, 2, 3]
    assert together.join_native(timeout=1) == [1, 2, 3]
    together.maybe_throw()
    seen: list[Any] = []
    assert together.join(timeout=1, callback=lambda i, value: seen.append((i, value))) == []
    assert seen == [("a", 1), ("b", 2), ("c", 3)]
    assert repr(together) == "<ResultSet: [a, b, c]>"


def test_a_set_with_a_failure(app: Celeriac, store: Store) -> None:
    together = ResultSet([store("a", 1), store("b", KeyError("why"), "FAILURE")])
    assert (together.ready(), together.successful(), together.failed()) == (True, False, True)
    assert together.completed_count() == 1
    with pytest.raises(KeyError, match="why"):
        together.join(timeout=1)
    with pytest.raises(KeyError):
        together.maybe_throw()
    first, second = together.join(timeout=1, propagate=False)
    assert (first, type(second)) == (1, KeyError)


def test_changing_a_set(app: Celeriac) -> None:
    a, b = app.AsyncResult("a"), app.AsyncResult("b")
    together = ResultSet([a])
    together.add(a)
    together.update([a, b])
    assert together.results == [a, b]
    together.remove("a")
    together.discard("a")
    with pytest.raises(KeyError):
        together.remove(a)
    assert together.results == [b]
    together.clear()
    assert (len(together), together.ready(), together.join(timeout=1)) == (0, True, [])
    assert together.app is app


def test_results_as_they_come(app: Celeriac, store: Store) -> None:
    eager: EagerResult[int] = EagerResult("e", 9, "SUCCESS")
    together = ResultSet([app.AsyncResult("slow"), eager, store("quick", 1)], app=app)
    thread = threading.Timer(0.05, store, ("slow", 2))
    thread.start()
    came = [(result.id, value) for result, value in together.iterate(timeout=20)]
    thread.join()
    assert came == [("e", 9), ("quick", 1), ("slow", 2)]


def test_a_set_times_out(app: Celeriac, store: Store) -> None:
    together = ResultSet([store("a", 1), app.AsyncResult("never")])
    with pytest.raises(TimeoutError, match="1 of the tasks"):
        together.join(timeout=0.05)


def test_acting_on_a_set(app: Celeriac) -> None:
    job = app.task(name="job")(lambda: None)
    together = ResultSet([job.delay(), job.delay()])
    together.revoke()
    assert [result.state for result in together] == ["REVOKED", "REVOKED"]
    together.forget()
    assert [result.state for result in together] == ["PENDING", "PENDING"]
