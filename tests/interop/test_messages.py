"""What a message carries arrives, whoever sends it and whoever runs it (wire-format.md 1)."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import uuid
from collections.abc import Callable
from datetime import UTC, timedelta, timezone
from typing import Any, NamedTuple

import pytest
from tests.interop.conftest import Way
from tests.interop.parties import Scene, until

from celeriac.message import MessageState

TYPED = {
    "datetime in UTC": datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC),
    "datetime with an offset": datetime.datetime(
        2020, 1, 2, 3, 4, 5, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30))
    ),
    "naive datetime": datetime.datetime(2020, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001
    "date": datetime.date(2020, 2, 29),
    "time": datetime.time(23, 59, 58, 7),
    "decimal": decimal.Decimal("1234567890.123456789012345678901234567890"),
    "decimal exponent": decimal.Decimal("-1E+3"),
    "uuid": uuid.UUID("12345678-1234-5678-9234-567812345678"),
    "text bytes": b"caf\xc3\xa9",
    "bytes": bytes(range(256)),
    "no bytes": b"",
    "text": 'na\u00efve \u2603 \U0001f40d \u2028 \\ " / \0',
    "large integer": 2**100,
    "float": 0.1,
    "negative zero": -0.0,
    "none": None,
    "flags": [True, False],
    "nested": {"a": [{"b": [datetime.date(2020, 1, 1), {"c": b"\xff"}]}], "": []},
}


@pytest.mark.parametrize("name", TYPED)
def test_typed_values_come_through_and_back(way: Way, name: str) -> None:
    value = TYPED[name]
    told = way.run("echo", value, kwargs={"value": value})
    assert told["args"] == [value]
    assert told["kwargs"] == {"value": value}
    assert told["kinds"] == [type(value).__name__]
    assert type(told["args"][0]) is type(value)


def test_tuples_arrive_as_lists(way: Way) -> None:
    told = way.run("echo", (1, (2, 3)), kwargs={"t": (4,)})
    assert told["args"] == [[1, [2, 3]]]
    assert told["kwargs"] == {"t": [4]}


def test_a_set_is_refused_by_the_sender(way: Way) -> None:
    with pytest.raises(Exception, match=r"EncodeError|TypeError"):
        way.send("echo", {1, 2})


def test_a_large_message(way: Way) -> None:
    told = way.run("echo", "x" * 3_000_000)
    assert told["args"] == ["x" * 3_000_000]


COMPRESSIONS = "gzip zlib bzip2 bzip lzma xz zstd brotli".split()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressed_bodies(way: Way, compression: str) -> None:
    told = way.run("echo", "again " * 1000, kwargs={"d": TYPED["date"]}, compression=compression)
    assert told["args"] == ["again " * 1000]
    assert told["kwargs"] == {"d": TYPED["date"]}


@pytest.mark.parametrize("serializer", ["json", "pickle", "msgpack", "yaml"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_serializers(way: Way, serializer: str, compression: str | None) -> None:
    args = ["text \u2603", 1, 1.5, None, True, [1, [2]], {"k": {"v": 0}}]
    if serializer in ("pickle", "msgpack"):
        args.append(b"\x00\xff")
    told = way.run("echo", *args, kwargs={"k": "v"}, serializer=serializer, compression=compression)
    assert told["args"] == args
    assert told["kwargs"] == {"k": "v"}


def test_pickled_objects(way: Way) -> None:
    values = [{1, 2}, datetime.timedelta(days=1), complex(1, 2), (3, [4])]
    kinds = [type(value).__name__ for value in values]
    assert way.run("kinds", *values, serializer="pickle") == kinds


def test_the_request_is_the_same(way: Way) -> None:
    told = way.run(
        "tell",
        1,
        "two",
        kwargs={"three": 3},
        headers={"colour": "green", "deep": {"er": [1]}},
        shadow="another name",
        time_limit=30,
        soft_time_limit=20,
        priority=6,
        argsrepr="(1, ***)",
        expires=60,
    )
    assert told["side"] == way.side
    assert told["args"] == [1, "two"]
    assert told["kwargs"] == {"three": 3}
    assert told["colour"] == "green"
    assert told["headers"]["deep"] == {"er": [1]}
    assert told["shadow"] == "another name"
    assert told["timelimit"] == [30, 20]
    assert told["argsrepr"] == "(1, ***)"
    assert told["kwargsrepr"] == "{'three': 3}"
    assert told["id"] == told["root_id"] == told["correlation_id"]
    assert told["parent_id"] is None
    assert told["group"] is None
    assert told["retries"] == 0
    assert told["eta"] is None
    assert told["lang"] == "py"
    assert told["ignore_result"] is False
    assert told["replaced_task_nesting"] == 0
    assert told["stamps"] in ({}, None)
    assert isinstance(told["reply_to"], str)
    assert told["origin"].startswith("gen")
    left = datetime.datetime.fromisoformat(told["expires"]) - datetime.datetime.now(UTC)
    assert timedelta(seconds=30) < left <= timedelta(seconds=60)
    info = told["delivery_info"]
    assert info["routing_key"] == way.queue
    assert info["exchange"] == ""
    assert info["priority"] == 6
    assert not info["redelivered"]


def test_an_id_of_the_callers_own(way: Way) -> None:
    id = f'order/{way.queue}/1 \u2603 "quoted" {uuid.uuid4()}'
    assert way.send("add", 1, 2, task_id=id) == id
    assert way.client.get(id) == way.other.get(id) == 3
    assert way.town.document(id)["task_id"] == id


def test_stamps(way: Way) -> None:
    id = way.client(
        "app.signature('shop.tell').set(queue=queue).apply_async("
        "stamped_headers=['shop'], stamps={'shop': ['berlin']}, shop=['berlin']).id",
        queue=way.queue,
    )
    told = way.client.get(id)
    assert told["stamped_headers"] == ["shop"]
    assert told["stamps"] == {"shop": ["berlin"]}


def test_sending_by_name_leaves_ignore_result_to_the_task(town: Scene) -> None:
    """The sender does not know the task; the worker's definition says it."""
    for side, queue, name in (
        ("celery", "new", "shop.only_celeriac"),
        ("celeriac", "old", "shop.only_celery"),
    ):
        client = town.client(side)
        send = "app.send_task(name, args, queue=queue).id"
        client(send, name=name, args=(1,), queue="nobody")
        (envelope,) = town.envelopes("nobody")
        town.wire("DEL", "nobody")
        assert envelope["headers"]["ignore_result"] is None
        told = client(send, name=name, args=(1,), queue=queue)
        assert client.get(told) == [name.rpartition("_")[2], 1]
        quiet = client(send, name="shop.quiet", args=(), queue=queue)
        town.until_noted(1, "quiet")
        town.settled(queue)
        assert town.document(quiet) is None


@pytest.mark.parametrize("ignore", [True, False])
def test_ignore_result_of_the_call(way: Way, ignore: bool) -> None:
    id = way.send("add", 1, 2, ignore_result=ignore)
    quiet = way.send("quiet", ignore_result=ignore)
    assert way.run("add", 3, 4) == 7
    if ignore:
        way.town.settled(way.queue)
        assert way.town.document(id) is None
        assert way.town.document(quiet) is None
    else:
        assert way.other.get(id) == 3


def test_protocol_1(town: Scene) -> None:
    """Messages of Celery's protocol 1 are read by our worker, and ours by Celery's."""
    for side, queue in (("celery", "new"), ("celeriac", "old"), ("celeriac", "new")):
        client = town.new_client(side, task_protocol=1)
        id = client.send("tell", 1, queue=queue, kwargs={"k": TYPED["decimal"]}, expires=60)
        told = client.get(id)
        assert told["id"] == id
        assert told["args"] == [1]
        assert told["kwargs"] == {"k": TYPED["decimal"]}
        assert told["retries"] == 0
        assert client.get(client.send("add", 1, 2, queue=queue, compression="gzip")) == 3
        assert client.error(client.send("fail", "plain", queue=queue)).name == "ValueError"
        follow = client(
            "add.apply_async((1, 2), queue=queue, link=follow.s('linked').set(queue=queue)).id",
            queue=queue,
        )
        assert client.get(follow) == 3
        town.until_noted(1, "follow", 3, "linked")
        town.forget_notes()


def test_a_protocol_1_chain_and_eta(town: Scene) -> None:
    client = town.new_client("celery", task_protocol=1)
    told = client("tell.apply_async((), countdown=0.5, queue=queue).get(timeout=10)", queue="new")
    assert told["eta"] is not None
    insist = client.send("insist", 2, ["old", "new"], queue="new")
    assert client.get(insist)[1:3] == [insist, 2]


def test_our_messages_look_like_celerys(town: Scene) -> None:
    """The same keys and types in envelope, headers, properties and body."""
    seen: dict[str, Any] = {}
    for side in ("celery", "celeriac"):
        queue = f"look-{side}"
        town.client(side)("add.apply_async((1, 2), queue=queue).id", queue=queue)
        (seen[side],) = town.envelopes(queue)
        assert town.wire("TYPE", queue) == b"list"
        town.wire("DEL", queue)
    theirs, ours = seen["celery"], seen["celeriac"]
    assert ours.pop("celeriac") == ""
    assert _shape(ours) == _shape(theirs)
    for part in ("content-type", "content-encoding"):
        assert ours[part] == theirs[part]
    bodies = [json.loads(base64.b64decode(one["body"])) for one in (ours, theirs)]
    assert bodies[0] == bodies[1]
    same = (
        "lang task shadow eta expires group group_index retries timelimit parent_id argsrepr "
        "kwargsrepr ignore_result replaced_task_nesting stamped_headers stamps"
    ).split()
    for name in same:
        assert ours["headers"][name] == theirs["headers"][name], name
    for name in ("delivery_mode", "priority", "body_encoding"):
        assert ours["properties"][name] == theirs["properties"][name], name


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(one) for key, one in sorted(value.items())}
    return [_shape(one) for one in value] if isinstance(value, list) else type(value).__name__


@pytest.mark.parametrize("spacing", [(",", ":"), (", ", ": ")])
def test_an_envelope_with_a_plain_body(town: Scene, spacing: tuple[str, str]) -> None:
    """Senders in other languages may leave out base64 and what Celery only passes on."""
    for queue, reader in (("new", "celeriac"), ("old", "celery")):
        id = str(uuid.uuid4())
        envelope = {
            "body": json.dumps([[20, 22], {}, {}]),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": "shop.add", "id": id, "root_id": id},
            "properties": {
                "correlation_id": id,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "delivery_tag": str(uuid.uuid4()),
                "delivery_mode": 2,
                "priority": 0,
            },
        }
        town.wire("LPUSH", queue, json.dumps(envelope, separators=spacing))
        assert town.client(reader).get(id) == 42


class _Broken(NamedTuple):
    content_type: str
    encoding: str
    body: bytes
    headers: dict[str, Any]


BROKEN = {
    "body is no JSON": _Broken("application/json", "utf-8", b"[[1, 2", {"task": "shop.add"}),
    "body is no task": _Broken("application/json", "utf-8", b'"hello"', {"task": "shop.add"}),
    "type that nobody knows": _Broken("application/x-own", "binary", b"\xff", {"task": "shop.add"}),
    "value of unknown type": _Broken(
        "application/json",
        "utf-8",
        b'[[1, {"__type__": "money", "__value__": "1 EUR"}], {}, {}]',
        {"task": "shop.add"},
    ),
    "compressed by an unknown way": _Broken(
        "application/json", "utf-8", b"xx", {"task": "shop.add", "compression": "application/x-z"}
    ),
    "no task at all": _Broken("application/json", "utf-8", b'{"hello": 1}', {}),
}


def test_what_cannot_be_understood_is_kept(town: Scene) -> None:
    """As a dead letter with its bytes; what follows is run. (Celery's worker stops at some of
    these.)"""
    ids = {}
    for name, broken in BROKEN.items():
        id = ids[name] = str(uuid.uuid4())
        headers = {"lang": "py", "id": id, "root_id": id, **broken.headers}
        envelope = {
            "body": base64.b64encode(broken.body).decode(),
            "content-encoding": broken.encoding,
            "content-type": broken.content_type,
            "headers": headers if broken.headers else {},
            "properties": {
                "correlation_id": id,
                "delivery_info": {"exchange": "", "routing_key": "new"},
                "delivery_tag": str(uuid.uuid4()),
                "delivery_mode": 2,
                "body_encoding": "base64",
                "priority": 0,
            },
        }
        town.wire("LPUSH", "new", json.dumps(envelope))
    client = town.client("celery")
    assert client.get(client.send("add", 1, 2, queue="new")) == 3
    look = "{one.message.id: one.message.body for one in app.admin().peek('new', state)}"
    ours = town.client("celeriac")

    def kept() -> Any:  # the other process of the worker may have had some of them
        found = ours(look, state=MessageState.DEAD)
        return {name: found.get(id) for name, id in ids.items()}

    until(lambda: None not in kept().values(), "all to be buried")
    assert kept() == {name: broken.body for name, broken in BROKEN.items()}


def test_a_serializer_that_the_worker_does_not_accept(scene: Callable[..., Scene]) -> None:
    """By default both accept JSON only; ours keeps the message, and says so to who waits."""
    town = scene()
    town.wait_ready(town.start("celeriac", "-P", "solo", "-Q", "new"))
    client = town.client("celery")
    id = client.send("add", 1, 2, queue="new", serializer="pickle")
    until(lambda: client.state(id) == "FAILURE", "the sender to be told")
    look = "[one.message.content_type for one in app.admin().peek('new', state)]"
    kept = town.client("celeriac")(look, state=MessageState.DEAD)
    assert kept == ["application/x-python-serialize"]


def test_beats_mark(way: Way) -> None:
    """Celery's beat marks what it sends."""
    told = way.run("tell", headers={"celery_beat_task": True})
    assert told["headers"]["celery_beat_task"] is True


def test_what_says_its_own_json(way: Way) -> None:
    """Objects with ``__json__``, and named tuples."""
    id = way.client(
        "echo.apply_async((type('Own', (), {'__json__': lambda self: {'own': [1]}})(),"
        " __import__('collections').namedtuple('Pair', 'a b')(1, 2)), queue=queue).id",
        queue=way.queue,
    )
    for client in (way.client, way.other):
        assert client.get(id)["args"] == [{"own": [1]}, [1, 2]]
