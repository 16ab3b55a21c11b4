"""Retrying: by hand and by itself, in a worker and in place."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from core_stage import MakeApp, Stage, messages_of, read

from celeriac import Celeriac, states
from celeriac.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry
from celeriac.message import Verdict


def test_a_retry_is_the_same_message_with_one_retry_more(app: Celeriac, stage: Stage) -> None:
    @app.task(bind=True)
    def job(self: Any, x: int, k: int = 0) -> str:
        if self.request.retries < 2:
            raise self.retry(exc=KeyError("not yet"), countdown=30)
        return f"{x} {k} after {self.request.retries}"

    result = job.apply_async(
        (1,),
        {"k": 2},
        queue="celery",
        priority=6,
        headers={"tenant": "acme"},
        time_limit=50,
        expires=3600,
        shadow="alias",
    )
    (first,) = messages_of(app)
    before = time.time()
    settlement = stage.one()
    (second,) = messages_of(app)
    assert settlement.verdict is Verdict.DONE
    assert settlement.messages == (second,)
    assert (second.id, second.run, second.queue) == (first.id, first.run, first.queue)
    assert (second.priority, second.expires_at) == (6, first.expires_at)
    assert second.due_at == pytest.approx(before + 30, abs=5)
    headers = read(second).headers
    assert headers["retries"] == 1
    assert headers["parent_id"] == headers["root_id"] == first.id
    assert datetime.fromisoformat(headers["eta"]).timestamp() == pytest.approx(second.due_at)
    for name in ("tenant", "timelimit", "shadow", "expires", "argsrepr", "task", "ignore_result"):
        assert headers[name] == read(first).headers[name]
    assert result.state == states.RETRY
    assert isinstance(result.info, KeyError)
    assert "not yet" in (result.traceback or "")
    assert not result.ready()
    assert stage.run() == 2
    assert result.get(timeout=1) == "1 2 after 2"


def test_what_retry_is_given_changes_the_call(app: Celeriac, stage: Stage) -> None:
    seen: list[Any] = []

    @app.task(bind=True)
    def job(self: Any, x: int, k: int = 0) -> None:
        seen.append((x, k, self.request.retries, self.request.id, self.request.tenant))
        if not self.request.retries:
            self.retry(
                args=(10,), kwargs={"k": 20}, countdown=1, queue="other", priority=9, time_limit=7
            )

    callback = job.si(0)
    result = job.apply_async((1,), headers={"tenant": "a"}, priority=3, link=callback)
    (first,) = messages_of(app)
    stage.one()
    (second,) = messages_of(app)
    assert (second.queue, second.priority, second.run) == ("other", 9, first.run)
    assert read(second).headers["timelimit"] == [7, None]
    assert read(second).embed["callbacks"][0]["task"] == job.name
    assert read(second).headers["root_id"] == result.id
    other = Stage(app, ("other",))
    other.clock.ahead = 60
    other.one()
    assert seen == [(1, 0, 0, result.id, "a"), (10, 20, 1, result.id, "a")]


def test_a_retry_keeps_the_queue_it_came_from(app: Celeriac) -> None:
    @app.task(bind=True, queue="attribute")
    def job(self: Any, again: bool = True) -> None:
        self.retry(kwargs={"again": False}, countdown=1)

    job.apply_async(queue="chosen")
    Stage(app, ("chosen",)).one()
    assert [message.queue for message in messages_of(app)] == ["chosen"]


def test_when(app: Celeriac, stage: Stage) -> None:
    eta = datetime.now(UTC) + timedelta(hours=2)

    @app.task(bind=True, default_retry_delay=77)
    def job(self: Any, **how: Any) -> None:
        if how == {"naive": True}:
            how = {"eta": eta.replace(tzinfo=None)}
        elif how == {"aware": True}:
            how = {"eta": eta}
        self.retry(**how)

    now = time.time()
    expected = {
        job.delay().id: now + 77,
        job.delay(countdown=5).id: now + 5,
        job.delay(aware=True).id: eta.timestamp(),
        job.delay(naive=True).id: eta.timestamp(),
    }
    for _ in expected:
        stage.one()
    due = {message.id: message.due_at for message in messages_of(app)}
    assert due == {task_id: pytest.approx(when, abs=5) for task_id, when in expected.items()}


@pytest.mark.parametrize(
    ("options", "given", "tries"),
    [
        ({}, {}, 4),
        ({"max_retries": 1}, {}, 2),
        ({"max_retries": 0}, {}, 1),
        ({"max_retries": 5}, {"max_retries": 2}, 3),
    ],
)
def test_max_retries(
    app: Celeriac, stage: Stage, options: dict[str, Any], given: dict[str, Any], tries: int
) -> None:
    @app.task(bind=True, **options)
    def job(self: Any, x: int) -> None:
        self.retry(countdown=0, **given)

    @app.task(bind=True, **options)
    def with_cause(self: Any) -> None:
        try:
            raise KeyError("cause")
        except KeyError as exc:
            raise self.retry(exc=exc, countdown=0, **given) from exc

    result = job.delay(5)
    assert stage.run() == tries
    with pytest.raises(MaxRetriesExceededError, match=r"Can't retry .*args:.*5"):
        result.get(timeout=1)
    result = with_cause.delay()
    assert stage.run() == tries
    with pytest.raises(KeyError, match="cause"):
        result.get(timeout=1)


def test_without_a_limit(app: Celeriac, stage: Stage) -> None:
    @app.task(bind=True, max_retries=None)
    def job(self: Any) -> int:
        if self.request.retries < 50:
            self.retry(countdown=0)
        return int(self.request.retries)

    result = job.delay()
    assert stage.run() == 51
    assert result.get(timeout=1) == 50


def test_without_throwing(app: Celeriac, stage: Stage) -> None:
    @app.task(bind=True)
    def job(self: Any) -> str:
        if not self.request.retries:
            retry = self.retry(throw=False, countdown=1)
            assert isinstance(retry, Retry)
            assert retry.when == 1
        return f"try {self.request.retries}"

    result = job.delay()
    settlement = stage.one()
    assert settlement.records[0].state == "SUCCESS"
    assert len(messages_of(app)) == 1
    stage.run()
    assert result.get(timeout=1) == "try 0"  # a success stands


def test_asked_for_twice_it_is_sent_once(app: Celeriac, stage: Stage) -> None:
    """A task that catches Exception catches Retry, too."""

    @app.task(bind=True)
    def job(self: Any) -> None:
        try:
            self.retry(countdown=1)
        except Exception:
            self.retry(countdown=2)

    job.delay()
    stage.one()
    assert len(messages_of(app)) == 1


def test_called_directly_it_raises_what_went_wrong(app: Celeriac) -> None:
    @app.task(bind=True)
    def job(self: Any, how: str) -> None:
        try:
            if how != "calm":
                raise KeyError("cause")
        except KeyError:
            if how == "other":
                self.retry(exc=ValueError("other"))
            self.retry()
        self.retry()

    with pytest.raises(KeyError, match="cause"):
        job("same")
    with pytest.raises(ValueError, match="other") as caught:
        job("other")
    assert isinstance(caught.value.__context__, KeyError)
    with pytest.raises(Retry):
        job("calm")
    assert messages_of(app) == []


def test_protocol_1_counts_its_retries(make_app: MakeApp) -> None:
    app = make_app(task_protocol=1)
    stage = Stage(app)
    tries: list[int] = []

    @app.task(bind=True, max_retries=2)
    def job(self: Any, x: int) -> None:
        tries.append(self.request.retries)
        self.retry(countdown=0)

    result = job.delay(1)
    stage.run()
    assert tries == [0, 1, 2]
    assert result.state == "FAILURE"


# --- by itself ------------------------------------------------------------------------------------


class Flaky(Exception):
    pass


class VeryFlaky(Flaky):
    pass


def test_autoretry(app: Celeriac, stage: Stage) -> None:
    tries: list[int] = []

    @app.task(autoretry_for=(Flaky,), retry_kwargs={"max_retries": 2, "countdown": 4})
    def job(error: str | None) -> str:
        tries.append(1)
        if error:
            raise {"flaky": Flaky, "very": VeryFlaky, "key": KeyError}[error]("why")
        return "fine"

    result = job.delay("very")
    before = time.time()
    stage.one()
    (message,) = messages_of(app)
    assert message.due_at == pytest.approx(before + 4, abs=2)
    assert result.state == "RETRY"
    stage.run()
    assert len(tries) == 3
    with pytest.raises(VeryFlaky, match="why"):
        result.get(timeout=1)
    tries.clear()
    assert job.delay("key").id
    stage.run()
    assert len(tries) == 1


def test_errors_it_is_not_done_for(app: Celeriac, stage: Stage) -> None:
    runs: list[str] = []

    @app.task(autoretry_for=(Exception,), dont_autoretry_for=(VeryFlaky,), max_retries=1)
    def job(error: str) -> None:
        runs.append(error)
        raise {"very": VeryFlaky("x"), "ignore": Ignore(), "reject": Reject("x")}[error]

    for error in ("very", "ignore", "reject"):
        job.delay(error)
    stage.run()
    assert runs == ["very", "ignore", "reject"]


def test_a_base_exception_may_be_retried(app: Celeriac, stage: Stage) -> None:
    @app.task(autoretry_for=(SystemExit,), max_retries=1, default_retry_delay=0)
    def job() -> None:
        raise SystemExit(3)

    result = job.delay()
    assert stage.run() == 2
    assert result.state == "FAILURE"


def test_an_explicit_retry_within_autoretry_stays_as_it_is(app: Celeriac, stage: Stage) -> None:
    @app.task(bind=True, autoretry_for=(Exception,), retry_kwargs={"countdown": 500})
    def job(self: Any) -> None:
        self.retry(countdown=3)

    job.delay()
    before = time.time()
    stage.one()
    (message,) = messages_of(app)
    assert message.due_at == pytest.approx(before + 3, abs=2)


@pytest.mark.parametrize(
    ("backoff", "maximum", "expected"),
    [(True, 600, [1, 2, 4, 8]), (3, 600, [3, 6, 12, 24]), (10, 25, [10, 20, 25, 25])],
)
@pytest.mark.parametrize("jitter", [False, True])
def test_backoff(
    app: Celeriac,
    stage: Stage,
    backoff: Any,
    maximum: float,
    expected: list[float],
    jitter: bool,
) -> None:
    @app.task(
        autoretry_for=(Flaky,),
        max_retries=4,
        retry_backoff=backoff,
        retry_backoff_max=maximum,
        retry_jitter=jitter,
    )
    def job() -> None:
        raise Flaky

    job.delay()
    delays = []
    for _ in expected:
        before = time.time()
        stage.one()
        (message,) = messages_of(app)
        assert message.due_at is not None
        delays.append(message.due_at - before)
        stage.clock.jump_to(message.due_at)
    for delay, whole in zip(delays, expected, strict=True):
        least = whole / 2 if jitter else whole
        assert least - 0.01 <= delay <= whole + 1


def test_coroutines_retry_too(app: Celeriac, stage: Stage) -> None:
    @app.task(bind=True, autoretry_for=(Flaky,), default_retry_delay=0)
    async def job(self: Any) -> int:
        if self.request.retries == 0:
            raise Flaky
        if self.request.retries == 1:
            raise self.retry(countdown=0)
        return int(self.request.retries)

    result = job.delay()
    assert stage.run() == 3
    assert result.get(timeout=1) == 2


# --- in place -------------------------------------------------------------------------------------


def test_eager_retries_happen_at_once(app: Celeriac) -> None:
    seen: list[Any] = []

    @app.task(bind=True, max_retries=3)
    def job(self: Any, x: int, k: int = 0) -> str:
        seen.append((x, k, self.request.retries, self.request.id, self.request.is_eager))
        if self.request.retries < 2:
            self.retry(args=(x + 1,), countdown=3600)
        return "end"

    result = job.apply((1,), {"k": 5})
    assert result.get() == "end"
    assert seen == [(n + 1, 5, n, result.id, True) for n in range(3)]
    assert messages_of(app) == []


def test_eager_retries_end(app: Celeriac) -> None:
    tries: list[int] = []

    @app.task(bind=True, max_retries=1500)
    def job(self: Any) -> None:
        tries.append(1)
        self.retry(countdown=1)

    result = job.apply()
    assert len(tries) == 1501  # more than Python's stack is deep
    assert result.state == "FAILURE"
    with pytest.raises(MaxRetriesExceededError):
        result.get()
    with pytest.raises(MaxRetriesExceededError):
        job.apply(throw=True, retries=1500)


def test_eager_autoretry(app: Celeriac) -> None:
    tries: list[int] = []

    @app.task(autoretry_for=(Flaky,), retry_backoff=True, max_retries=2)
    def job() -> None:
        tries.append(1)
        raise Flaky("why")

    with pytest.raises(Flaky, match="why"):
        job.apply().get()
    assert len(tries) == 3


def test_retry_says_when() -> None:
    eta = datetime(2030, 1, 1, tzinfo=UTC)
    assert str(Retry("said", None)) == "said"
    assert str(Retry(exc=KeyError("x"), when=5)) == "Retry in 5s: KeyError('x')"
    assert Retry(when=eta).humanize().startswith("at 2030")
    assert Retry(when=eta).eta() == eta
    assert Retry(when=10).eta() > datetime.now(UTC)
