"""Tasks: options, argument checks, direct calls, the request, states of one's own."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from core_stage import MakeApp, Stage, messages_of, read

from celeriac import Celeriac, Task, signals
from celeriac.exceptions import EncodeError, Ignore, Reject
from celeriac.message import Message, Verdict
from celeriac.request import Request, current_request
from celeriac.result import AsyncResult
from celeriac.task import argument_check

Sent = Callable[[], list[Message]]

# --- options --------------------------------------------------------------------------------------


def test_defaults_are_celerys(app: Celeriac) -> None:
    @app.task
    def job() -> None: ...

    app.finalize()
    assert job.max_retries == 3
    assert job.default_retry_delay == 180
    assert (job.retry_backoff, job.retry_backoff_max, job.retry_jitter) == (False, 600, True)
    assert job.ignore_result is False
    assert job.track_started is False
    assert job.typing is True
    assert job.trail is True
    assert job.throws == ()
    assert job.time_limit is None
    assert job.rate_limit is None
    assert job.acks_late is None


def test_options_left_open_come_from_the_settings(make_app: MakeApp) -> None:
    app = make_app(
        task_ignore_result=True,
        task_track_started=True,
        task_acks_late=False,
        task_default_rate_limit="5/m",
        task_store_errors_even_if_ignored=True,
    )
    open_, own = app.task(lambda: None, name="a"), app.task(lambda: None, name="b")  # type: ignore[call-overload]
    own.ignore_result = False
    own.rate_limit = "1/s"
    app.finalize()
    assert open_.ignore_result is True
    assert open_.track_started is True
    assert open_.acks_late is False
    assert open_.rate_limit == "5/m"
    assert open_.store_errors_even_if_ignored is True
    assert own.ignore_result is False
    assert own.rate_limit == "1/s"


def test_strict_typing_of_the_application_and_typing_of_the_task(make_app: MakeApp) -> None:
    lax = make_app(strict_typing=False)

    @lax.task
    def unchecked(x: int) -> None: ...

    @lax.task(typing=True)
    def checked(x: int) -> None: ...

    unchecked.delay()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        checked.delay()  # type: ignore[call-arg]

    @make_app().task(typing=False)
    def loose(x: int) -> None: ...

    loose.delay(1, 2, 3)  # type: ignore[call-arg]


def test_options_changed_later_hold_for_calls_from_then_on(app: Celeriac, sent: Sent) -> None:
    @app.task
    def job() -> None: ...

    job.delay()
    job.queue = "other"
    job.delay()
    job.queue = None
    job.delay()
    assert [message.queue for message in sent()] == ["celery", "other", "celery"]


# --- arguments ------------------------------------------------------------------------------------


def everything(a, b=2, /, c=3, *rest, d, e=5, **more):  # type: ignore[no-untyped-def]
    return a, b, c, rest, d, e, more


def nothing() -> None: ...


def positional_only(a, b, /) -> None: ...  # type: ignore[no-untyped-def]


def keyword_only(*, a, b=1) -> None: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (everything, (1,), {"d": 4}),
        (everything, (1, 2, 3, 4, 5), {"d": 4, "z": 1, "e": 2}),
        (everything, (1,), {"c": 2, "d": 4}),
        (everything, (1,), {"d": 4, "a": "goes into more"}),
        (nothing, (), {}),
        (positional_only, (1, 2), {}),
        (keyword_only, (), {"a": 1}),
    ],
)
def test_arguments_that_fit(function: Any, args: Any, kwargs: Any) -> None:
    assert argument_check(function, skip_first=False)(*args, **kwargs) is None


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "message"),
    [
        (everything, (), {"d": 1}, r"everything\(\) missing 1 required positional argument: 'a'"),
        (everything, (1,), {}, "missing 1 required keyword-only argument: 'd'"),
        (everything, (1, 2, 3), {"c": 4, "d": 1}, "multiple values for argument 'c'"),
        (nothing, (1,), {}, "takes 0 positional arguments but 1 was given"),
        (nothing, (), {"x": 1}, "unexpected keyword argument 'x'"),
        (positional_only, (1,), {"b": 2}, "positional-only"),
        (keyword_only, (1,), {}, "takes 0 positional arguments"),
        (keyword_only, (), {"b": 1}, "'a'"),
    ],
)
def test_arguments_that_do_not_fit(function: Any, args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        argument_check(function, skip_first=False)(*args, **kwargs)


def test_the_check_of_odd_functions() -> None:
    assert argument_check(lambda x: x, skip_first=False)(1) is None
    named_as_keyword = lambda x: x  # noqa: E731
    named_as_keyword.__name__ = "class"
    assert argument_check(named_as_keyword, skip_first=False)(1) is None
    first_only = argument_check(lambda self, /, x: x, skip_first=True)
    assert first_only(x=1) is None
    assert argument_check(dict.fromkeys, skip_first=False)([1], 2) is None
    assert argument_check(type, skip_first=False)(1, 2, 3, 4) is None  # it does not tell


def test_wrong_arguments_are_refused_where_the_task_is_sent(app: Celeriac, sent: Sent) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(bind=True)
    def bound(self: Any, x: int) -> int:
        return x

    for wrong in (
        lambda: add.delay(1),  # type: ignore[call-arg]
        lambda: add.delay(1, 2, 3),  # type: ignore[call-arg]
        lambda: add.apply_async((1,), {"z": 2}),
        lambda: add.apply_async(kwargs={"x": 1}),
        lambda: add.delay_many([(1, 2), (3,)]),
        lambda: add.s(1).delay(),
        lambda: app.send_many([add.s(1, 2), add.s(1)]),
        lambda: bound.delay(),  # type: ignore[call-arg]
        lambda: bound.delay(1, 2),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError):
            wrong()
    assert sent() == []
    bound.delay(1)
    assert read(sent()[0]).args == [1]


@pytest.mark.parametrize("args", ["ab", b"ab", {"x": 1}, {1, 2}, 5])
def test_args_that_are_no_list_are_refused(app: Celeriac, args: Any) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    with pytest.raises(TypeError, match="list or tuple"):
        add.apply_async(args)
    with pytest.raises(TypeError, match="list or tuple"):
        app.send_task(add.name, args)
    with pytest.raises(TypeError):
        app.send_task(add.name, kwargs=[("x", 1)])  # type: ignore[arg-type]


def test_args_may_be_any_sequence_or_iterator(app: Celeriac, sent: Sent) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    add.apply_async([1, 2])
    add.apply_async(iter((1, 2)))
    add.apply_async(args=range(1, 3))
    assert [read(message).args for message in sent()] == [[1, 2]] * 3


def test_what_cannot_be_written_is_refused_and_named(app: Celeriac, sent: Sent) -> None:
    @app.task
    def job(x: Any, y: Any = None) -> None: ...

    with pytest.raises(EncodeError, match="args"):
        job.delay(object())
    with pytest.raises(EncodeError, match="kwargs"):
        job.delay(1, y=object())
    with pytest.raises(TypeError):
        job.delay(object())
    assert sent() == []


# --- calling ----------------------------------------------------------------------------------


def test_delay_returns_the_result_of_the_message(app: Celeriac, sent: Sent) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    result = add.delay(1, y=2)
    (message,) = sent()
    assert isinstance(result, AsyncResult)
    assert result.id == message.id == message.run
    assert result.name == add.name
    assert result.state == "PENDING"
    assert read(message).args == [1]
    assert read(message).kwargs == {"y": 2}


def test_a_task_may_be_called_as_a_function(app: Celeriac) -> None:
    seen: list[Request] = []

    @app.task(bind=True)
    def job(self: Any, x: int) -> int:
        seen.append(self.request)
        assert current_request() is self.request
        return x

    assert job(5) == 5
    assert seen[0].called_directly is True
    assert seen[0].id is None
    assert seen[0].args == (5,)
    assert current_request() is None


def test_pickling_a_task_is_by_name(app: Celeriac) -> None:
    job = app.task(name="by.name")(lambda: None)
    assert pickle.loads(pickle.dumps(job)) is job


# --- an overridden __call__ -------------------------------------------------------------------


def test_an_overridden_call_sees_and_keeps_the_request(app: Celeriac, stage: Stage) -> None:
    """The pattern of every web framework: the task runs in an application context."""
    entered: list[str] = []

    class InContext(app.Task):  # type: ignore[misc,name-defined]
        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            entered.append(self.request.id)
            return super().__call__(*args, **kwargs)

    @app.task(base=InContext, bind=True)
    def job(self: Any, again: bool = True) -> Any:
        inner = self(again=False) if again else None
        return [self.request.called_directly, self.request.id, inner]

    result = job.delay()
    stage.one()
    assert result.get(timeout=1) == [False, result.id, [True, None, None]]
    assert entered == [result.id, result.id]
    assert job(again=False) == [True, None, None]


def test_an_overridden_call_may_use_run(app: Celeriac, stage: Stage) -> None:
    class InContext(app.Task):  # type: ignore[misc,name-defined]
        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return ["context", self.run(*args, **kwargs)]

    @app.task(base=InContext)
    def job() -> str:
        return "done"

    result = job.delay()
    stage.one()
    assert result.get(timeout=1) == ["context", "done"]
    # A direct call of another task from there is direct, too.


def test_a_direct_call_within_a_task_is_direct(app: Celeriac, stage: Stage) -> None:
    @app.task(bind=True)
    def job(self: Any, again: bool = True) -> Any:
        inner = self(again=False) if again else None
        return [self.request.called_directly, inner]

    result = job.delay()
    stage.one()
    assert result.get(timeout=1) == [False, [True, None]]


# --- the request ------------------------------------------------------------------------------


def test_the_request_in_a_worker(app: Celeriac, stage: Stage) -> None:
    seen: list[Any] = []

    @app.task(bind=True, name="job")
    def job(self: Any, *args: Any, **kwargs: Any) -> None:
        seen.append(self.request)

    result = job.apply_async(
        (1, 2),
        {"k": 3},
        headers={"tenant": "acme", "sentry-trace": "00"},
        priority=4,
        shadow="alias",
        time_limit=30,
        soft_time_limit=20,
        root_id="root",
        parent_id="parent",
        reply_to="me",
        expires=60,
        link=job.si(),
    )
    stage.one()
    (request,) = seen
    assert request.id == request.correlation_id == result.id
    assert (request.task, request.args, request.kwargs) == ("job", [1, 2], {"k": 3})
    assert (request.retries, request.called_directly, request.is_eager) == (0, False, False)
    assert request.tenant == "acme"
    # The caller's own alone, so that they can be passed on to another task.
    assert request.headers == {"tenant": "acme", "sentry-trace": "00"}
    assert request.get("tenant") == "acme"
    assert request.get("nothing", 5) == 5
    assert request.shadow == "alias"
    assert (request.timelimit, request.time_limit, request.soft_time_limit) == ([30, 20], 30, 20)
    assert (request.root_id, request.parent_id) == ("root", "parent")
    assert request.group is request.taskset is None
    assert request.hostname == "celery@stage"
    assert request.delivery_info["routing_key"] == "celery"
    assert request.delivery_info["priority"] == 4
    assert request.delivery_info["redelivered"] is False
    assert request.properties["reply_to"] == "me"
    assert request.callbacks[0]["task"] == "job"
    assert request.origin.startswith("gen")
    assert request.expires is not None
    assert "retries=0" in repr(request)
    with pytest.raises(AttributeError):
        _ = request.nothing


def test_headers_cannot_put_things_into_a_request(app: Celeriac, stage: Stage) -> None:
    """Whatever the wire says, the worker's own notes are its own."""
    seen: list[Any] = []

    @app.task(bind=True)
    def job(self: Any) -> None:
        seen.append((self.request.children, self.request.headers.get("_followups")))

    strange = {
        "_followups": ["x"],
        "_children": ["x"],
        "_headers": {"x": 1},
        "_outer": "x",
        "_task": "x",
        "_delivery_info": "x",
        "_entering": True,
        "correlation_id": "mine",
        "children": "mine",
    }
    result = job.apply_async(headers=strange)
    stage.one()
    assert result.state == "SUCCESS"
    assert seen == [([], None)]
    assert job.apply(headers={"correlation_id": "mine"}).successful()


def test_the_request_outside_is_empty(app: Celeriac) -> None:
    job = app.task(lambda: None, name="job")  # type: ignore[call-overload]
    assert job.request.id is None
    assert job.request.retries == 0
    assert job.request.called_directly is True
    job.push_request(id="pushed", retries=2, called_directly=False)
    assert (job.request.id, job.request.retries) == ("pushed", 2)
    job.pop_request()
    assert job.request.id is None


def test_request_is_a_small_mapping_like_object() -> None:
    request = Request({"id": "1"}, retries=2)
    request.update({"extra": 5}, more=6)
    assert (request.id, request.retries, request.extra, request.more) == ("1", 2, 5, 6)  # type: ignore[attr-defined]
    request.clear()
    assert request.id is None
    assert request.delivery_info == {}
    request.delivery_info = {"priority": 1}
    request.children = None
    assert request.children == []
    request.headers = {"own": 1, "task": "x"}
    assert request.custom_headers() == {"own": 1}


# --- state ------------------------------------------------------------------------------------


def test_states_of_ones_own(app: Celeriac, stage: Stage) -> None:
    seen: list[Any] = []

    @app.task(bind=True)
    def job(self: Any) -> str:
        self.update_state(state="PROGRESS", meta={"done": 3})
        mine = self.AsyncResult(self.request.id)
        seen.append((mine.state, mine.info, mine.ready()))
        self.update_state(task_id="another", state="PROGRESS", meta=1)
        return "end"

    result = job.delay()
    stage.one()
    assert seen == [("PROGRESS", {"done": 3}, False)]
    assert (result.state, result.get(timeout=1)) == ("SUCCESS", "end")
    assert app.AsyncResult("another").state == "PROGRESS"


def test_a_failure_written_by_hand_and_ignore(app: Celeriac, stage: Stage) -> None:
    @app.task(bind=True)
    def job(self: Any) -> None:
        self.update_state(state="FAILURE", meta={"why": "by hand"})
        raise Ignore

    result = job.delay()
    stage.one()
    assert result.state == "FAILURE"
    with pytest.raises(Exception, match="by hand"):
        result.get(timeout=1)


def test_update_state_without_a_backend_does_nothing(make_app: MakeApp) -> None:
    app = make_app(backend="disabled://")
    stage = Stage(app)

    @app.task(bind=True)
    def job(self: Any) -> None:
        self.update_state(state="PROGRESS")

    job.delay()
    assert stage.one().verdict is Verdict.DONE


def test_ignore_leaves_the_state(app: Celeriac, stage: Stage) -> None:
    @app.task(bind=True)
    def job(self: Any) -> None:
        raise Ignore

    result = job.delay()
    assert stage.one().verdict is Verdict.DONE
    assert result.state == "PENDING"


def test_reject_buries_and_requeue_defers(app: Celeriac, stage: Stage) -> None:
    runs: list[int] = []

    @app.task
    def job(requeue: bool) -> None:
        runs.append(1)
        raise Reject("not now", requeue=requeue and len(runs) == 1)

    result = job.delay(False)
    settlement = stage.one()
    assert settlement.verdict is Verdict.BURY
    assert "not now" in settlement.reason
    assert result.state == "FAILURE"
    runs.clear()
    job.delay(True)
    settlement = stage.one()
    assert settlement.verdict is Verdict.DEFER
    assert settlement.records == ()
    assert stage.run() == 1


def test_track_started(make_app: MakeApp) -> None:
    app = make_app(task_track_started=True)
    stage = Stage(app)
    seen: list[Any] = []

    @app.task(bind=True)
    def job(self: Any) -> None:
        seen.append(
            (self.AsyncResult(self.request.id).state, self.AsyncResult(self.request.id).info)
        )

    job.delay()
    stage.one()
    ((state, info),) = seen
    assert state == "STARTED"
    assert info["hostname"] == "celery@stage"
    assert isinstance(info["pid"], int)


# --- children ---------------------------------------------------------------------------------


def test_tasks_sent_by_a_task_are_its_children(app: Celeriac, stage: Stage) -> None:
    @app.task
    def child() -> None: ...

    @app.task
    def plain() -> None:
        child.delay()

    @app.task(bind=True)
    def parent(self: Any) -> list[str]:
        first = child.delay()
        child.apply_async(add_to_parent=False)
        plain()  # called directly: what it sends is still this task's
        return [first.id, *(one.id for one in self.request.children)]

    @app.task(trail=False)
    def without() -> None:
        child.delay()

    result, other = parent.delay(), without.delay()
    stage.run()
    first, *children = result.get(timeout=1)
    assert len(children) == 2
    assert children[0] == first
    assert [one.id for one in result.children or ()] == children
    assert other.children == []
    (message,) = [m for m in messages_of(app) if m.id == first] or [None]
    assert message is None  # it was run and is gone


def test_ids_of_the_family(app: Celeriac, stage: Stage) -> None:
    seen: dict[str, Any] = {}

    @app.task(bind=True)
    def note(self: Any, name: str) -> None:
        seen[name] = (self.request.id, self.request.parent_id, self.request.root_id)

    @app.task(bind=True)
    def middle(self: Any) -> None:
        note("direct")
        note.delay("grandchild")
        seen["middle"] = (self.request.id, self.request.parent_id, self.request.root_id)

    @app.task(bind=True)
    def top(self: Any) -> None:
        middle.delay()
        note.delay_many([("bulk",)])

    result = top.delay()
    stage.run()
    middle_id = seen["middle"][0]
    assert seen["middle"][1:] == (result.id, result.id)
    assert seen["grandchild"][1:] == (middle_id, result.id)
    assert seen["bulk"][1:] == (result.id, result.id)
    assert seen["direct"] == (None, None, None)


@pytest.mark.parametrize(("inherit", "expected"), [(True, 7), (False, 0)])
def test_priority_is_inherited_if_so_set(make_app: MakeApp, inherit: bool, expected: int) -> None:
    app = make_app(task_inherit_parent_priority=inherit)
    stage = Stage(app)
    priorities: list[int] = []

    @app.task(bind=True)
    def child(self: Any, *args: Any) -> None:
        priorities.append(self.request.delivery_info["priority"])

    @app.task
    def parent() -> None:
        child.delay()
        child.apply_async(countdown=0)

    parent.apply_async(priority=7, link=child.s())
    stage.run()
    assert priorities == [expected] * 3


def test_signals_around_a_run_reach_by_sender(app: Celeriac, stage: Stage, heard: Any) -> None:
    job = app.task(name="job")(lambda: 1)
    other = app.task(name="other")(lambda: 1)
    only = heard(signals.task_prerun, sender=job)
    other.delay()
    job.delay()
    stage.run()
    assert [one["task"] for one in only] == [job]
    assert issubclass(type(job), Task)
