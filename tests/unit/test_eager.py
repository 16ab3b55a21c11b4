"""Running in place: apply(), task_always_eager, EagerResult."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest
from core_stage import Heard, MakeApp, messages_of

from celeriac import Celeriac, signals
from celeriac.exceptions import Ignore, Reject, TaskRevokedError
from celeriac.result import EagerResult, ResultSet


@pytest.fixture
def eager(make_app: MakeApp) -> Celeriac:
    return make_app(task_always_eager=True)


def test_apply_runs_here_and_sends_nothing(app: Celeriac) -> None:
    @app.task(bind=True)
    def job(self: Any, x: int, k: int = 0) -> Any:
        request = self.request
        return x + k, request.id, request.is_eager, request.called_directly, request.args

    result = job.apply((1,), {"k": 2}, task_id="mine")
    assert isinstance(result, EagerResult)
    assert result.get() == (3, "mine", True, False, (1,))
    assert result.id == "mine"
    assert result.name == job.name
    assert (result.state, result.ready(), result.successful()) == ("SUCCESS", True, True)
    assert job.apply(args=[1], kwargs={"k": 5}).result[0] == 6
    assert messages_of(app) == []


def test_options_show_in_the_request(app: Celeriac) -> None:
    @app.task(bind=True)
    def job(self: Any) -> Any:
        return self.request

    request = job.apply(
        headers={"tenant": "acme"},
        priority=5,
        queue="q",
        shadow="alias",
        time_limit=10,
        group_id="g",
        group_index=1,
        root_id="r",
        parent_id="p",
    ).result
    assert request.tenant == "acme"
    assert request.headers == {"tenant": "acme"}
    assert request.delivery_info["priority"] == 5
    assert (request.shadow, request.timelimit) == ("alias", (10, None))
    assert (request.group, request.group_index) == ("g", 1)
    assert (request.root_id, request.parent_id) == ("r", "p")
    assert request.hostname == app.node_name


def test_a_failure_is_kept_or_raised(app: Celeriac) -> None:
    @app.task
    def job() -> None:
        raise KeyError("why")

    result = job.apply()
    assert (result.state, result.failed(), result.ready()) == ("FAILURE", True, True)
    assert isinstance(result.result, KeyError)
    assert "in job" in (result.traceback or "")
    with pytest.raises(KeyError, match="why"):
        result.get()
    assert isinstance(result.get(propagate=False), KeyError)
    with pytest.raises(KeyError):
        job.apply(throw=True)
    app.conf.task_eager_propagates = True
    with pytest.raises(KeyError):
        job.apply()
    assert job.apply(throw=False).failed()


@pytest.mark.parametrize(("error", "state"), [(Ignore(), "IGNORED"), (Reject("no"), "REJECTED")])
def test_ignored_and_rejected(app: Celeriac, error: Exception, state: str) -> None:
    @app.task
    def job() -> None:
        raise error

    result = job.apply()
    assert result.state == state
    assert result.get() is None


def test_what_is_no_exception_is_the_callers(app: Celeriac) -> None:
    """pytest.skip() in a task that a test runs in place skips the test."""

    @app.task
    def job() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        job.apply()


def test_always_eager(eager: Celeriac) -> None:
    @eager.task
    def add(x: int, y: int) -> int:
        return x + y

    @eager.task
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x

    assert add.delay(1, 2).get() == 3
    assert add.apply_async((1, 2), countdown=100, queue="q", task_id="mine").id == "mine"
    assert [result.get() for result in add.delay_many([(1, 2), (3, 4)])] == [3, 7]
    assert [result.get() for result in eager.send_many([add.s(1, 2), add.s(3, 4)])] == [3, 7]
    assert add.s(1).delay(2).get() == 3
    assert later.delay(5).get() == 5
    with pytest.raises(TypeError):
        add.delay(1)  # type: ignore[call-arg]
    objects = object()
    assert eager.task(name="same")(lambda x: x).delay(objects).get() is objects
    assert messages_of(eager) == []


def test_always_eager_in_a_coroutine(eager: Celeriac) -> None:
    @eager.task
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x

    @eager.task
    def plain(x: int) -> int:
        return x

    async def main() -> list[Any]:
        first = await later.adelay(1)
        second = await plain.aapply_async((2,), link=plain.s())
        third = await plain.s(3).adelay()
        return [await first, await second, await third, later.delay(4).get()]

    assert asyncio.run(main()) == [1, 2, 3, 4]
    assert messages_of(eager) == []


def test_sending_by_name_is_never_eager(eager: Celeriac) -> None:
    eager.send_task("elsewhere")
    assert len(messages_of(eager)) == 1


def test_callbacks_and_errbacks_run_in_place(app: Celeriac) -> None:
    seen: list[Any] = []

    @app.task
    def job(fail: bool) -> str:
        if fail:
            raise KeyError("why")
        return "value"

    @app.task(bind=True)
    def note(self: Any, value: Any, more: Any = None) -> None:
        seen.append((value, more, self.request.parent_id, self.request.root_id))

    @app.task
    def whole(request: Any, exc: Any, traceback: Any) -> None:
        seen.append((request.id, type(exc), "KeyError" in traceback))

    @app.task
    def broken(failed_id: str) -> None:
        raise RuntimeError("a broken errback")

    job.apply((False,), task_id="a", link=note.s("extra"), link_error=note.s())
    job.apply((False,), task_id="b", link=[note.s(), note.si("fixed")])
    assert seen == [
        ("value", "extra", "a", "a"),
        ("value", None, "b", "b"),
        ("fixed", None, "b", "b"),
    ]
    seen.clear()
    job.apply((True,), task_id="c", link=note.s(), link_error=[note.s(), whole.s(), broken.s()])
    assert seen == [("c", None, "c", "c"), ("c", KeyError, True)]


def test_handlers_and_signals(app: Celeriac) -> None:
    prerun, postrun = Heard(signals.task_prerun), Heard(signals.task_postrun)
    failed: list[Any] = []

    class Handled(app.Task):  # type: ignore[misc,name-defined]
        abstract = True

        def on_failure(self, exc: Any, *args: Any) -> None:
            failed.append(exc)

    @app.task(base=Handled)
    def job() -> None:
        raise KeyError

    job.apply(task_id="x")
    assert [one["task_id"] for one in (*prerun, *postrun)] == ["x", "x"]
    assert len(failed) == 1


def test_nested_tasks_have_a_parent(eager: Celeriac) -> None:
    @eager.task(bind=True)
    def inner(self: Any) -> Any:
        return self.request.parent_id, self.request.root_id

    @eager.task(bind=True)
    def outer(self: Any) -> Any:
        return inner.delay().get()

    assert outer.apply(task_id="o").get() == ("o", "o")


def test_results_may_be_waited_for_inside(eager: Celeriac) -> None:
    job = eager.task(name="job")(lambda: 5)

    @eager.task
    def waiting() -> int:
        return int(ResultSet([job.delay(), job.delay()]).join()[0])

    assert waiting.delay().get() == 5


@pytest.mark.parametrize("stored", [False, True])
def test_storing_results(make_app: MakeApp, stored: bool) -> None:
    app = make_app(task_always_eager=True, task_store_eager_result=stored)

    @app.task(bind=True)
    def job(self: Any, fail: bool = False) -> int:
        self.update_state(state="PROGRESS", meta=1)
        if fail:
            raise KeyError("why")
        return 5

    @app.task
    def ignored() -> None:
        raise Ignore

    done, failed, none = job.delay(), job.delay(fail=True), ignored.delay()
    states = [app.AsyncResult(one.id).state for one in (done, failed, none)]
    assert states == (["SUCCESS", "FAILURE", "PENDING"] if stored else ["PENDING"] * 3)
    if stored:
        assert app.AsyncResult(done.id).get(timeout=1) == 5
        with pytest.raises(KeyError):
            job.apply((), {"fail": True}, task_id="thrown", throw=True)
        assert app.AsyncResult("thrown").state == "FAILURE"


def test_eager_result() -> None:
    result: EagerResult[int] = EagerResult("id", 5, "SUCCESS", name="job")
    assert (result.id, result.get(timeout=1), result.wait(), result.name) == ("id", 5, 5, "job")
    assert asyncio.run(result.aget()) == 5
    assert result.forget() is None
    assert result.supports_native_join is False
    copied = pickle.loads(pickle.dumps(result))
    assert isinstance(copied, EagerResult)
    assert (copied.id, copied.get(), copied.state) == ("id", 5, "SUCCESS")
    result.revoke()
    assert result.state == "REVOKED"
    revoked: EagerResult[Any] = EagerResult("id", TaskRevokedError("revoked"), "REVOKED")
    with pytest.raises(TaskRevokedError):
        revoked.get()
    text: EagerResult[Any] = EagerResult("id", "only text", "FAILURE")
    with pytest.raises(Exception, match="only text"):
        text.get()


def test_what_takes_the_place_of_a_call_gives_its_value(app: Celeriac) -> None:
    """Raised, as Celery's users write it, or returned."""
    other = app.task(name="other")(lambda x: x + 1)

    @app.task(bind=True)
    def returning(self: Any) -> Any:
        return self.replace(other.s(1))

    @app.task(bind=True)
    def raising(self: Any) -> Any:
        raise self.replace(other.s(2))

    assert returning.apply().get() == 2
    assert raising.apply().get() == 3
    assert raising.apply().state == "SUCCESS"
