"""From what came of a call to its settlement: records, what follows, verdicts; removal by hand."""

from __future__ import annotations

import time
from typing import Any

import pytest
from core_stage import Heard, MakeApp, Stage, messages_of, read

from celeriac import Celeriac, signals
from celeriac.concluding import Concluder
from celeriac.exceptions import ContentDisallowed, EncodeError, TaskRevokedError
from celeriac.message import Message, MessageState, Settled, Verdict
from celeriac.protocol.results import decode_meta
from celeriac.settling import Settling


def record_of(app: Celeriac, task_id: str) -> dict[str, Any]:
    backend = app.backend
    assert backend is not None
    (record,) = backend.get([task_id])
    assert record is not None
    return decode_meta(record.payload)


# --- success ----------------------------------------------------------------------------------


def test_a_result_is_stored(app: Celeriac, stage: Stage) -> None:
    result = app.task(name="job")(lambda x: {"x": x}).delay(5)
    settlement = stage.one()
    assert settlement.verdict is Verdict.DONE
    assert (settlement.messages, settlement.arrivals) == ((), ())
    (record,) = settlement.records
    assert (record.id, record.run, record.state, record.ready) == (
        result.id,
        result.id,
        "SUCCESS",
        True,
    )
    assert record.expires_at == pytest.approx(time.time() + 86400, abs=60)
    meta = record_of(app, result.id)
    assert meta["result"] == {"x": 5}
    assert (meta["traceback"], meta["children"]) == (None, [])
    assert meta["task_id"] == result.id


def test_extended_results(make_app: MakeApp) -> None:
    app = make_app(result_extended=True)
    stage = Stage(app)
    result = app.task(name="job")(lambda x, k: x).apply_async((5,), {"k": 1})
    stage.one()
    assert (result.name, result.args, result.kwargs) == ("job", [5], {"k": 1})
    assert (result.worker, result.retries, result.queue) == ("celery@stage", 0, "celery")


def test_ignored_results(app: Celeriac, stage: Stage) -> None:
    @app.task(ignore_result=True)
    def ignored(fail: bool = False) -> int:
        if fail:
            raise KeyError
        return 5

    @app.task(ignore_result=True, store_errors_even_if_ignored=True)
    def errors_kept() -> None:
        raise KeyError

    @app.task
    def stored() -> int:
        return 5

    cases = [
        (ignored.delay(), "PENDING"),
        (ignored.delay(fail=True), "PENDING"),
        (ignored.apply_async(ignore_result=False), "SUCCESS"),
        (stored.apply_async(ignore_result=True), "PENDING"),
        (errors_kept.delay(), "FAILURE"),
    ]
    stage.run()
    assert [app.AsyncResult(result.id).state for result, _ in cases] == [
        state for _, state in cases
    ]


def test_null_means_as_the_task_says(make_app: MakeApp) -> None:
    """Sent by name from an application that does not know the task."""
    sender = make_app()
    worker = make_app(broker=sender.broker_url)
    worker.task(name="ignored", ignore_result=True)(lambda: 1)
    worker.task(name="stored")(lambda: 1)
    ignored, stored = sender.send_task("ignored"), sender.send_task("stored")
    Stage(worker).run()
    assert (ignored.state, stored.state) == ("PENDING", "SUCCESS")


def test_a_value_that_cannot_be_written_fails_the_task(app: Celeriac, stage: Stage) -> None:
    result = app.task(name="job")(lambda: object()).delay()
    stage.one()
    assert result.state == "FAILURE"
    with pytest.raises(EncodeError, match="result"):
        result.get(timeout=1)


def test_without_a_backend(make_app: MakeApp) -> None:
    app = make_app(backend="disabled://")
    stage = Stage(app)
    app.task(name="job")(lambda: 5).delay()
    assert stage.one().verdict is Verdict.DONE
    assert messages_of(app) == []


# --- what follows -----------------------------------------------------------------------------


def test_callbacks_get_the_value(app: Celeriac, stage: Stage) -> None:
    seen: list[Any] = []

    @app.task(bind=True)
    def note(self: Any, *args: Any) -> None:
        seen.append((args, self.request.parent_id, self.request.root_id))

    job = app.task(name="job")(lambda: 5)
    strange = {**note.s("strange"), "options": {"not_an_option": 1}}
    result = job.apply_async(link=[note.s("extra"), note.si("fixed"), strange], root_id="root")
    settlement = stage.one()
    assert len(settlement.messages) == 3
    assert [child.id for child in result.children or ()] == [m.id for m in settlement.messages]
    stage.run()
    family = (result.id, "root")
    assert seen == [
        ((5, "extra"), *family),
        (("fixed",), *family),
        ((5, "strange"), *family),
    ]


def test_callbacks_carry_their_options(app: Celeriac, stage: Stage) -> None:
    note = app.task(name="note")(lambda value: None)
    app.task(name="job")(lambda: 5).apply_async(
        link=note.s().set(queue="q", priority=3, countdown=60, task_id="mine")
    )
    stage.one()
    (message,) = messages_of(app)
    assert (message.id, message.queue, message.priority) == ("mine", "q", 3)
    assert message.due_at is not None


def test_a_callback_that_cannot_be_sent_fails_the_task(
    app: Celeriac, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.task_create_missing_queues = False
    job = app.task(name="job")(lambda: 5)
    result = job.apply_async(link=job.si().set(queue="nowhere"))
    settlement = stage.one()
    assert settlement.messages == ()
    assert result.state == "FAILURE"
    assert "cannot be sent" in caplog.text


def test_the_next_step_of_a_chain(app: Celeriac, stage: Stage) -> None:
    """wire-format.md 1.3: the next step is the last of the list; it carries the rest."""
    add = app.task(name="add")(lambda x, y: x + y)
    steps = [add.s(100).set(task_id="third"), add.s(10).set(task_id="second")]
    add.apply_async((1, 2), task_id="first", chain=[dict(one) for one in steps])
    stage.one()
    (second,) = messages_of(app)
    assert read(second).args == [3, 10]
    assert [one["options"]["task_id"] for one in read(second).embed["chain"]] == ["third"]
    assert read(second).headers["parent_id"] == "first"
    assert read(second).headers["root_id"] == "first"
    stage.run()
    assert app.AsyncResult("third").get(timeout=1) == 113


def test_a_failure_ends_the_chain(app: Celeriac, stage: Stage) -> None:
    @app.task
    def job(*args: Any) -> None:
        raise KeyError("why")

    steps = [dict(job.s().set(task_id=name)) for name in ("third", "second")]
    result = job.apply_async(chain=[*steps, dict(job.s())])
    stage.one()
    assert messages_of(app) == []
    for one in (result, app.AsyncResult("second"), app.AsyncResult("third")):
        with pytest.raises(KeyError, match="why"):
            one.get(timeout=1)


# --- failure ----------------------------------------------------------------------------------


def test_a_failure_is_stored(app: Celeriac, stage: Stage) -> None:
    @app.task
    def job() -> None:
        raise KeyError("why", 5)

    result = job.delay()
    settlement = stage.one()
    assert settlement.verdict is Verdict.DONE
    assert settlement.records[0].state == "FAILURE"
    meta = record_of(app, result.id)
    assert meta["result"] == {
        "exc_type": "KeyError",
        "exc_message": ["why", 5],
        "exc_module": "builtins",
    }
    assert "in job" in meta["traceback"]


def test_an_exception_that_cannot_be_written_is_still_known(app: Celeriac, stage: Stage) -> None:
    @app.task
    def job() -> None:
        raise ValueError(object(), "\ud800")

    result = job.delay()
    stage.one()
    assert result.state == "FAILURE"
    assert "ValueError" in repr(result.result)


def test_errbacks_of_both_kinds(app: Celeriac, stage: Stage) -> None:
    """wire-format.md 1.3: several arguments: called here; one: sent with the id."""
    seen: list[Any] = []

    @app.task
    def job() -> None:
        raise KeyError("why")

    @app.task
    def whole(request: Any, exc: Any, traceback: Any) -> None:
        seen.append(("whole", request.id, type(exc), "in job" in traceback))

    @app.task
    def with_own(own: Any, failed_id: Any, more: Any = None) -> None:
        raise AssertionError("never run here")

    @app.task
    def by_id(failed_id: str) -> None:
        seen.append(("by_id", failed_id))

    @app.task(bind=True)
    def bound(task: Any, *args: Any) -> None:
        seen.append(("bound", args, task.request.parent_id))

    class Written(app.Task):  # type: ignore[misc,name-defined]
        def run(self, *args: Any) -> None:
            seen.append(("written", args))

    written = app.register_task(Written())

    @app.task
    def broken(request: Any, exc: Any, traceback: Any) -> None:
        raise RuntimeError("a broken errback")

    result = job.apply_async(
        link_error=[
            whole.s(),
            broken.s(),
            by_id.s(),
            by_id.si("fixed"),
            bound.s(),
            written.s(),
            app.signature("not.known.here"),
        ]
    )
    settlement = stage.one()
    assert seen == [("whole", result.id, KeyError, True)]
    assert [read(message).headers["task"] for message in settlement.messages] == [
        by_id.name,
        by_id.name,
        bound.name,
        written.name,
        "not.known.here",
    ]
    assert result.state == "FAILURE"
    for _ in range(4):
        stage.one()
    assert seen[1:] == [
        ("by_id", result.id),
        ("by_id", "fixed"),
        ("bound", (result.id,), result.id),
        ("written", (result.id,)),
    ]
    assert with_own.name


def test_errbacks_only_on_failure_and_callbacks_only_on_success(
    app: Celeriac, stage: Stage
) -> None:
    seen: list[str] = []

    @app.task(bind=True, max_retries=1)
    def job(self: Any, fail: bool) -> str:
        if not self.request.retries:
            self.retry(countdown=0)
        if fail:
            raise KeyError
        return "value"

    @app.task
    def note(what: str) -> None:
        seen.append(what)

    for fail in (False, True):
        job.apply_async((fail,), link=note.si("callback"), link_error=note.si("errback"))
    stage.run()
    assert seen == ["callback", "errback"]


# --- revoked, expired, removed ------------------------------------------------------------------


def test_expired(app: Celeriac, stage: Stage) -> None:
    seen: list[str] = []
    note = app.task(name="note")(lambda failed: seen.append(failed))

    @app.task
    def job() -> None:
        raise AssertionError("it must not run")

    result = job.apply_async(expires=-1, link_error=note.s())
    stage.run()
    assert result.state == "REVOKED"
    assert result.traceback is None
    with pytest.raises(TaskRevokedError, match="expired"):
        result.get(timeout=1)
    assert seen == [result.id]


def test_a_revoked_step_ends_its_chain(app: Celeriac) -> None:
    job = app.task(name="job")(lambda *args: None)
    result = job.apply_async(countdown=60, chain=[dict(job.s().set(task_id="second"))])
    result.revoke()
    assert app.AsyncResult("second").state == "REVOKED"


def test_settling_what_was_removed_by_hand(app: Celeriac) -> None:
    job = app.task(name="job")(lambda: None)
    good = job.delay()
    broken = Message(
        id="broken", run="r", queue="celery", headers=b"{}", body=b"\xff", content_type="x/y"
    )
    app.producer.publish([broken])
    with app.operating() as owner:
        found = app.producer.broker.cancel(owner, [good.id, "broken"], time.time() + 60)
        assert app.settle_removed(found, "deleted by hand") == 2
        assert app.settle_removed([]) == 0
    assert messages_of(app) == []
    with pytest.raises(TaskRevokedError, match="deleted by hand"):
        good.get(timeout=1)


def test_what_an_operator_takes_and_does_not_settle_goes_back(app: Celeriac) -> None:
    result = app.task(name="job")(lambda: None).delay()
    with app.operating() as owner:
        app.producer.broker.cancel(owner, [result.id], time.time() + 60)
        assert app.admin().queues()[0].in_flight == 1
    (peeked,) = app.admin().find([result.id])
    assert peeked.state is MessageState.WAITING


def test_a_stale_owner_changes_nothing(app: Celeriac, stage: Stage) -> None:
    result = app.task(name="job")(lambda: 5).delay()
    (delivery,) = stage.claim()
    stage.broker.unregister("stage")
    job = stage.executor.admit(delivery)
    settlement = stage.executor.run(job)  # type: ignore[arg-type]
    assert Settling(stage.broker, stage.results).settle([settlement]) == [Settled.LOST]
    assert result.state == "PENDING"
    assert len(messages_of(app)) == 1


def test_stores_of_their_own(make_app: MakeApp) -> None:
    """Broker and backend apart: what follows carries a key, so that repeating it is harmless; a
    retry carries none."""
    app = make_app(backend="memory://unit-apart")
    stage = Stage(app)

    @app.task(bind=True)
    def job(self: Any) -> int:
        if not self.request.retries:
            self.retry(countdown=0)
        return 5

    note = app.task(name="note")(lambda value: None)
    result = job.apply_async(link=note.s())
    (first,) = messages_of(app)
    stage.one()
    (again,) = messages_of(app)
    assert again.dedupe_key is None
    stage.one()
    (follower,) = messages_of(app)
    assert follower.dedupe_key == f"{first.run}/{follower.id}"
    assert result.get(timeout=1) == 5


def test_started(app: Celeriac, stage: Stage) -> None:
    app.task(name="job")(lambda: 5).delay()
    (delivery,) = stage.claim()
    request = stage.executor.reader.read(delivery)
    record = Concluder(app, "celery@here").started(delivery, request, 7)
    assert (record.state, record.ready) == ("STARTED", False)
    assert decode_meta(record.payload)["result"] == {"pid": 7, "hostname": "celery@here"}


def test_a_message_that_cannot_be_read_is_told(app: Celeriac, stage: Stage) -> None:
    told = Heard(signals.task_rejected)
    app.task(name="job")(lambda: 5).apply_async(serializer="yaml")
    settlement = stage.one()
    assert settlement.verdict is Verdict.BURY
    (one,) = told
    assert one["message"] is settlement.delivery.message
    assert isinstance(one["exc"], ContentDisallowed)


@pytest.mark.parametrize("why", ["time_limit", "lost"])
def test_a_failure_without_a_process_is_told_with_einfo(
    app: Celeriac, stage: Stage, why: str
) -> None:
    told = Heard(signals.task_failure)
    job = app.task(name="job", acks_late=False)(lambda: 5)
    job.delay()
    (delivery,) = stage.claim()
    if why == "time_limit":
        stage.executor.ended(delivery, why, 3.0)
    else:
        request = stage.executor.reader.read(delivery)
        stage.executor.lost(delivery, app.tasks["job"], request)
    (one,) = told
    assert one["sender"] is app.tasks["job"]
    assert one["einfo"].exception is one["exception"]
    assert type(one["exception"]).__name__ in one["einfo"].traceback
