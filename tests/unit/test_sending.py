"""From a call to its message: headers and fields for each option, routing, signals, bulk."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from core_stage import Heard, MakeApp, messages_of, read

from celeriac import Celeriac, signals
from celeriac.exceptions import QueueNotFound
from celeriac.message import Message
from celeriac.result import AsyncResult

Sent = Callable[[], list[Message]]

# wire-format.md 1.1: the headers of every message of protocol 2, as the default call has them.
USUAL = {
    "lang": "py",
    "shadow": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": [None, None],
    "parent_id": None,
    "kwargsrepr": "{}",
    "origin": f"gen{os.getpid()}@{socket.gethostname()}",
    "ignore_result": False,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}


@pytest.fixture
def job(app: Celeriac) -> Any:
    @app.task(name="job")
    def job(*args: Any, **kwargs: Any) -> None: ...

    return job


@pytest.fixture(params=["planned", "looked at"])
def send(request: pytest.FixtureRequest, app: Celeriac, job: Any) -> Callable[..., Message]:
    """``send(**options)``: the message. Messages that differ only in their arguments are written
    from a plan; with a receiver of before_task_publish each is looked at. Both must be the same."""
    if request.param == "looked at":
        Heard(signals.before_task_publish)

    def send(**options: Any) -> Message:
        job.apply_async((1, "two"), **options)
        return messages_of(app)[-1]

    return send


def headers_of(message: Message) -> dict[str, Any]:
    headers: dict[str, Any] = json.loads(message.headers)
    return headers


def epoch(text: str) -> float:
    moment = datetime.fromisoformat(text)
    assert moment.utcoffset() == timedelta(0)
    return moment.timestamp()


def test_the_headers_of_a_plain_call(send: Callable[..., Message]) -> None:
    message = send()
    own = {"task": "job", "id": message.id, "root_id": message.id, "argsrepr": "(1, 'two')"}
    assert headers_of(message) == {**USUAL, **own}
    assert list(headers_of(message))[:4] == ["lang", "task", "id", "shadow"]
    assert json.loads(message.body) == [
        [1, "two"],
        {},
        {"callbacks": None, "errbacks": None, "chain": None, "chord": None},
    ]
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    assert message.run == message.id
    assert (message.queue, message.exchange, message.routing_key) == ("celery", "", "celery")
    assert (message.priority, message.delivery_mode, message.due_at) == (0, 2, None)
    assert (message.expires_at, message.join, message.dedupe_key) == (None, None, None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"shadow": "alias"}, {"shadow": "alias"}),
        ({"group_id": "g", "group_index": 3}, {"group": "g", "group_index": 3}),
        ({"time_limit": 30, "soft_time_limit": 20.5}, {"timelimit": [30, 20.5]}),
        ({"root_id": "r", "parent_id": "p"}, {"root_id": "r", "parent_id": "p"}),
        ({"argsrepr": "(***)", "kwargsrepr": "{*}"}, {"argsrepr": "(***)", "kwargsrepr": "{*}"}),
        ({"ignore_result": True}, {"ignore_result": True}),
        ({"ignore_result": False}, {"ignore_result": False}),
        ({"retries": 2}, {"retries": 2}),
        ({"origin": "me"}, {"origin": "me"}),
        ({"replaced_task_nesting": 1}, {"replaced_task_nesting": 1}),
        ({"headers": {"tenant": "acme", "n": 1}}, {"tenant": "acme", "n": 1}),
        (
            {"stamped_headers": ["by"], "by": ["me"]},
            {"stamped_headers": ["by"], "stamps": {"by": ["me"]}},
        ),
        (
            {"stamped_headers": ["by"], "stamps": {"by": "me"}},
            {"stamped_headers": ["by"], "stamps": {"by": "me"}},
        ),
        ({"shadow": None, "priority": None, "queue": None}, {}),
    ],
)
def test_options_that_are_headers(
    send: Callable[..., Message], options: dict[str, Any], expected: dict[str, Any]
) -> None:
    message = send(**options)
    headers = headers_of(message)
    root = {"root_id": headers["id"], "argsrepr": "(1, 'two')"}
    assert headers == {**USUAL, "task": "job", "id": message.id, **root, **expected}


def test_the_id(send: Callable[..., Message]) -> None:
    message = send(task_id="mine")
    assert message.id == headers_of(message)["id"] == headers_of(message)["root_id"] == "mine"
    assert message.run != "mine"  # the same id may be sent again; each sending has its own run
    assert send(task_id="mine").run != message.run
    given = uuid.uuid4()
    assert send(task_id=given).id == str(given)


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({"countdown": 60}, 60),
        ({"countdown": 0.5}, 0.5),
        ({"countdown": 0}, 0),
        ({"countdown": -5}, -5),
        ({"countdown": 10, "eta": datetime(2001, 1, 1, tzinfo=UTC)}, 10),
        ({"eta": lambda: datetime.now(UTC) + timedelta(seconds=90)}, 90),
        ({"eta": lambda: datetime.now(timezone(timedelta(hours=5))) + timedelta(hours=1)}, 3600),
        ({"eta": lambda: (datetime.now(UTC) + timedelta(hours=1)).isoformat()}, 3600),
        ({"eta": lambda: datetime.now(UTC).replace(tzinfo=None)}, 0),
    ],
)
def test_countdown_and_eta(
    send: Callable[..., Message], options: dict[str, Any], seconds: float
) -> None:
    before = time.time()
    message = send(**{k: v() if callable(v) else v for k, v in options.items()})
    after = time.time()
    assert message.due_at is not None
    assert before + seconds - 0.001 <= message.due_at <= after + seconds + 0.001
    assert epoch(headers_of(message)["eta"]) == pytest.approx(message.due_at, abs=1e-5)


@pytest.mark.parametrize(
    ("expires", "seconds"),
    [
        (60, 60),
        (1.5, 1.5),
        (timedelta(minutes=2), 120),
        (-1, -1),
        (lambda: datetime.now(UTC) + timedelta(seconds=90), 90),
        (lambda: (datetime.now(UTC) + timedelta(seconds=90)).isoformat(), 90),
        (lambda: (datetime.now(UTC) + timedelta(seconds=90)).replace(tzinfo=None), 90),
    ],
)
def test_expires_in_all_forms(send: Callable[..., Message], expires: Any, seconds: float) -> None:
    before = time.time()
    message = send(expires=expires() if callable(expires) else expires)
    after = time.time()
    assert message.expires_at is not None
    assert before + seconds - 0.001 <= message.expires_at <= after + seconds + 0.001
    assert epoch(headers_of(message)["expires"]) == pytest.approx(message.expires_at, abs=1e-5)


def test_naive_times_are_in_the_applications_zone(make_app: MakeApp) -> None:
    app = make_app(timezone="Asia/Tokyo")
    app.send_task("job", eta=datetime(2030, 1, 1, 9, tzinfo=UTC).replace(tzinfo=None))
    app.send_task("job", eta="2030-01-01T09:00:00")
    for message in messages_of(app):
        assert headers_of(message)["eta"] == "2030-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"eta": 5}, TypeError, "datetime"),
        ({"countdown": "soon"}, TypeError, "countdown='soon': expected a number of seconds"),
        ({"priority": "high"}, TypeError, "priority='high': expected a whole number"),
        ({"eta": "tomorrow"}, ValueError, "ISO"),
        ({"expires": "soon"}, ValueError, "ISO"),
        ({"expires": [1]}, TypeError, "expires"),
        ({"count_down": 5}, TypeError, "count_down"),
        ({"stamped_headers": ["a"], "b": 1}, TypeError, "'b'"),
        ({"retry_policy": {"retries": 1}}, Exception, "retries"),
        ({"serializer": "nonsense"}, Exception, "nonsense"),
    ],
)
def test_options_that_cannot_be(
    app: Celeriac, job: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    for send in (
        lambda: job.apply_async((), **options),
        lambda: app.send_task("unknown", **options),
        lambda: job.delay_many([()], **options),
        lambda: job.s().apply_async(**options),
    ):
        with pytest.raises(error, match=text):
            send()
    assert messages_of(app) == []


def test_celerys_plumbing_options_are_taken(send: Callable[..., Message]) -> None:
    message = send(connection=None, producer=object(), mandatory=True, timeout=5, retry=True)
    assert set(headers_of(message)) == {*USUAL, "task", "id", "root_id", "argsrepr"}


def test_fields_of_the_message(send: Callable[..., Message]) -> None:
    message = send(priority=6, delivery_mode=1, reply_to="me", dedupe_key="beat/x")
    assert (message.priority, message.delivery_mode) == (6, 1)
    assert (message.reply_to, message.dedupe_key) == ("me", "beat/x")


def test_what_follows_is_in_the_body(send: Callable[..., Message], job: Any) -> None:
    message = send(
        link=job.s(1),
        link_error=[job.si(2), {"task": "else", "args": [], "kwargs": {}, "options": {}}],
        chain=[dict(job.s(3))],
        chord=dict(job.s(4)),
        group_id="g",
    )
    embed = json.loads(message.body)[2]
    assert embed["callbacks"] == [
        {
            "task": "job",
            "args": [1],
            "kwargs": {},
            "options": {},
            "subtask_type": None,
            "immutable": False,
        }
    ]
    assert [one["task"] for one in embed["errbacks"]] == ["job", "else"]
    assert embed["errbacks"][0]["immutable"] is True
    assert embed["chain"][0]["args"] == [3]
    assert embed["chord"]["args"] == [4]
    assert message.join == "g"


def test_serializers_and_compression(send: Callable[..., Message]) -> None:
    for name, content_type in (
        ("yaml", "application/x-yaml"),
        ("msgpack", "application/x-msgpack"),
    ):
        message = send(serializer=name)
        assert message.content_type == content_type
        assert list(read(message).args) == [1, "two"]
    message = send(compression="zlib")
    assert headers_of(message)["compression"] == "application/x-gzip"
    assert list(read(message).args) == [1, "two"]


def test_send_task_by_name(app: Celeriac, job: Any, sent: Sent) -> None:
    unknown = app.send_task("not.here", [1], {"x": 2}, countdown=5)
    known = app.send_task("job", (1,))
    first, second = sent()
    assert headers_of(first)["task"] == "not.here"
    assert headers_of(first)["ignore_result"] is None  # as the worker's task says
    assert read(first).kwargs == {"x": 2}
    assert headers_of(second)["ignore_result"] is False
    assert isinstance(unknown, AsyncResult)
    assert (unknown.id, known.id) == (first.id, second.id)


def test_protocol_1(make_app: MakeApp) -> None:
    app = make_app(task_protocol=1)
    app.send_task("job", (1,), task_id="t", countdown=10, expires=20, time_limit=5)
    (message,) = messages_of(app)
    body = json.loads(message.body)
    assert message.headers == b"{}"
    assert (body["task"], body["id"], body["args"], body["retries"]) == ("job", "t", [1], 0)
    assert body["timelimit"] == [5, None]
    assert epoch(body["eta"]) == pytest.approx(message.due_at)


# --- precedence -----------------------------------------------------------------------------------


def test_calling_option_over_attribute_over_route_over_setting(make_app: MakeApp) -> None:
    app = make_app(
        task_default_priority=1,
        task_default_queue="setting",
        task_serializer="yaml",
        task_routes={"routed": {"queue": "route", "priority": 2, "serializer": "msgpack"}},
    )
    plain = app.task(name="plain")(lambda: None)
    routed = app.task(name="routed")(lambda: None)
    own = app.task(name="own", queue="attribute", priority=3, serializer="json")(lambda: None)

    def last(task: Any, **options: Any) -> tuple[str, int, str]:
        task.apply_async(**options)
        message = messages_of(app)[-1]
        return message.queue, message.priority, message.content_type.rpartition("-")[2]

    assert last(plain) == ("setting", 1, "yaml")
    assert last(routed) == ("route", 2, "msgpack")
    assert last(own) == ("attribute", 3, "application/json")
    assert last(own, queue="call", priority=4) == ("call", 4, "application/json")
    assert last(routed, priority=0) == ("route", 0, "msgpack")
    # None does not override.
    assert last(own, queue=None, priority=None, serializer=None) == last(own)
    assert last(routed, priority=None) == ("route", 2, "msgpack")
    assert last(plain, priority=None) == ("setting", 1, "yaml")
    # By name the same holds for a task that is known.
    app.send_task("own")
    assert messages_of(app)[-1].queue == "attribute"


@pytest.mark.parametrize("watched", [False, True])
def test_attributes_are_options(app: Celeriac, watched: bool) -> None:
    if watched:
        Heard(signals.before_task_publish)
    job = app.task(
        name="job",
        expires=30,
        time_limit=10,
        soft_time_limit=5,
        delivery_mode=1,
        compression="zlib",
        ignore_result=True,
        mandatory=True,
    )(lambda: None)
    result = job.delay()
    (message,) = messages_of(app)
    assert headers_of(message)["timelimit"] == [10, 5]
    assert headers_of(message)["ignore_result"] is True
    assert headers_of(message)["compression"] == "application/x-gzip"
    assert message.delivery_mode == 1
    assert message.expires_at == pytest.approx(time.time() + 30, abs=5)
    assert result.ignored is True
    assert result.get(timeout=1) is None
    assert job.apply_async(ignore_result=False).ignored is False


def test_settings_for_limits_stay_with_the_worker(make_app: MakeApp) -> None:
    """A worker's own limits must hold for what other processes sent."""
    app = make_app(task_time_limit=100, task_soft_time_limit=50)
    job = app.task(name="job")(lambda: None)
    job.delay()
    assert headers_of(messages_of(app)[0])["timelimit"] == [None, None]


def test_changed_settings_hold_from_then_on(app: Celeriac, job: Any, sent: Sent) -> None:
    job.delay()
    app.conf.task_default_queue = "changed"
    app.conf.task_serializer = "yaml"
    job.delay()
    assert [(one.queue, one.content_type) for one in sent()] == [
        ("celery", "application/json"),
        ("changed", "application/x-yaml"),
    ]


@pytest.mark.parametrize("watched", [False, True])
def test_options_of_a_route_are_calling_options(make_app: MakeApp, watched: bool) -> None:
    if watched:
        Heard(signals.before_task_publish)
    app = make_app(task_routes={"job": {"queue": "q", "expires": 30, "headers": {"a": 1}}})
    job = app.task(name="job")(lambda: None)
    job.delay()
    (message,) = messages_of(app)
    assert message.queue == "q"
    assert message.expires_at == pytest.approx(time.time() + 30, abs=5)
    assert headers_of(message)["a"] == 1


def test_routing_functions_see_the_call(make_app: MakeApp) -> None:
    seen: list[Any] = []

    def route(
        name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **more: Any
    ) -> Any:
        seen.append((name, args, kwargs, options.get("priority"), task))
        return {"queue": f"tenant-{kwargs['tenant']}"}

    app = make_app(task_routes=(route,))
    job = app.task(name="job")(lambda x, tenant: None)
    job.apply_async((1,), {"tenant": 5}, priority=2)
    job.delay(1, tenant=6)
    assert [message.queue for message in messages_of(app)] == ["tenant-5", "tenant-6"]
    assert seen[0] == ("job", (1,), {"tenant": 5}, 2, job)


def test_a_queue_that_may_not_be_made(make_app: MakeApp) -> None:
    app = make_app(task_create_missing_queues=False)
    job = app.task(name="job")(lambda: None)
    with pytest.raises(QueueNotFound, match="elsewhere"):
        job.apply_async(queue="elsewhere")
    assert messages_of(app) == []


# --- many at once -----------------------------------------------------------------------------


def test_delay_many(app: Celeriac, job: Any, sent: Sent) -> None:
    results = job.delay_many(((n,) for n in range(1200)), priority=3)
    messages = sent()
    assert [result.id for result in results] == [message.id for message in messages]
    assert [read(message).args for message in messages] == [[n] for n in range(1200)]
    assert {message.priority for message in messages} == {3}
    assert len({message.id for message in messages}) == 1200
    assert job.delay_many([]) == []
    timed = job.delay_many([[1], [2]], countdown=60)
    assert all(message.due_at for message in sent()[-2:])
    assert len(timed) == 2


def test_delay_many_takes_few_round_trips(
    app: Celeriac, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    publish = app.producer.broker.publish
    monkeypatch.setattr(
        app.producer.broker, "publish", lambda m, j=(): sizes.append(len(m)) or publish(m, j)
    )
    job.delay_many([(n,) for n in range(1200)])
    app.send_many(job.s(n) for n in range(600))
    assert sizes == [1000, 200, 600]


def test_send_many(app: Celeriac, job: Any, sent: Sent) -> None:
    other = app.signature("not.here", args=(5,))
    results = app.send_many([job.s(1, x=2).set(priority=4), other, job.si().set(queue="q")])
    first, second, third = sent()
    assert [result.id for result in results] == [first.id, second.id, third.id]
    assert (read(first).args, read(first).kwargs, first.priority) == ([1], {"x": 2}, 4)
    assert headers_of(second)["task"] == "not.here"
    assert third.queue == "q"


# --- signals ----------------------------------------------------------------------------------


def test_before_task_publish_may_change_headers(app: Celeriac, job: Any, sent: Sent) -> None:
    told: list[dict[str, Any]] = []

    @signals.before_task_publish.connect
    def trace(sender: str, headers: dict[str, Any], **named: Any) -> None:
        told.append({"sender": sender, **named})
        headers["traceparent"] = "00-1"
        headers["shadow"] = "renamed"

    result = job.apply_async((1,), {"k": 2}, priority=5, queue="q")
    job.delay_many([(1,), (2,)])
    first, *others = sent()
    assert headers_of(first)["traceparent"] == "00-1"
    assert headers_of(first)["shadow"] == "renamed"
    assert [headers_of(one)["traceparent"] for one in others] == ["00-1", "00-1"]
    assert told[0]["sender"] == "job"
    assert told[0]["body"][:2] == ((1,), {"k": 2})
    assert set(told[0]["body"][2]) == {"callbacks", "errbacks", "chain", "chord"}
    assert told[0]["routing_key"] == "q"
    assert told[0]["properties"]["correlation_id"] == result.id
    assert told[0]["properties"]["priority"] == 5
    assert set(told[0]) >= signals.before_task_publish.providing_args - {"headers"}


def test_after_task_publish(app: Celeriac, job: Any, heard: type[Heard]) -> None:
    after = heard(signals.after_task_publish)
    only = heard(signals.after_task_publish, sender="job")
    result = job.apply_async((1,), {"k": 2})
    app.send_task("other")
    assert len(only) == 1
    assert [one["sender"] for one in after] == ["job", "other"]
    first = after[0]
    assert first["headers"]["id"] == result.id
    assert (first["body"][0], first["body"][1]) == ([1], {"k": 2})
    assert (first["exchange"], first["routing_key"]) == ("", "celery")
    assert first["properties"]["correlation_id"] == result.id
    assert set(first) >= signals.after_task_publish.providing_args


def test_nothing_is_said_of_what_was_not_published(
    app: Celeriac, job: Any, heard: type[Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    after = heard(signals.after_task_publish)
    monkeypatch.setattr(
        app.producer.broker, "publish", lambda *args: (_ for _ in ()).throw(RuntimeError("no"))
    )
    with pytest.raises(RuntimeError):
        job.delay()
    assert after == []


def test_shadow_names(app: Celeriac, sent: Sent) -> None:
    class Named(app.Task):  # type: ignore[misc,name-defined]
        abstract = True

        def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str:
            return f"job-{args[0]}"

    job = app.task(name="job", base=Named)(lambda x: None)
    job.delay(7)
    job.apply_async((7,), shadow="mine")
    assert [headers_of(message)["shadow"] for message in sent()] == ["job-7", "mine"]
