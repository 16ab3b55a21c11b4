"""Task messages. Golden ones were captured from celery 5.7.0."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any

import pytest

from celeriac.exceptions import ContentDisallowed, DecodeError, EncodeError, InvalidTaskError
from celeriac.message import Message
from celeriac.protocol import reading
from celeriac.protocol.reading import decode, decode_headers, peek_task
from celeriac.protocol.serialization import accept_types
from celeriac.protocol.task import encode_body, encode_headers, encode_v1, make_headers
from celeriac.protocol.times import format_time, parse_time

JSON = accept_types(["json"])
ALL = accept_types(["json", "msgpack", "yaml", "pickle"])
GOLDEN_HEADERS = (
    '{"lang": "py", "task": "t.add", "id": "id1", "shadow": null, "eta": null, "expires": null, '
    '"group": null, "group_index": null, "retries": 0, "timelimit": [null, null], '
    '"root_id": "id1", "parent_id": null, "argsrepr": "(1, 2)", "kwargsrepr": "{\'k\': 1}", '
    '"origin": "gen5699@vm", "ignore_result": false, "replaced_task_nesting": 0, '
    '"stamped_headers": null, "stamps": {}}'
)
GOLDEN_BODY = (
    '[[1, 2], {"k": 1}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
)
GOLDEN_V1 = (
    '{"task": "t.add", "id": "id1", "args": [1, 2], "kwargs": {"k": 1}, "group": "g", '
    '"group_index": 2, "retries": 0, "eta": "2026-11-21T02:36:39.694070+00:00", '
    '"expires": "2026-11-21T02:36:44.694070+00:00", "utc": true, "callbacks": null, '
    '"errbacks": null, "timelimit": [10, 5], "taskset": "g", "chord": null}'
)
SIGNATURE = {
    "task": "t.next",
    "args": [],
    "kwargs": {},
    "options": {"task_id": "x"},
    "subtask_type": None,
    "immutable": False,
}


def message(headers: Any = None, body: Any = None, **fields: Any) -> Message:
    headers = json.loads(GOLDEN_HEADERS) if headers is None else headers
    body = json.loads(GOLDEN_BODY) if body is None else body
    return Message(
        id="id1",
        run="r",
        queue="celery",
        headers=headers if isinstance(headers, bytes) else json.dumps(headers).encode(),
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        **fields,
    )


def changed(**headers: Any) -> Message:
    return message({**json.loads(GOLDEN_HEADERS), **headers})


# ------------------------------------------------------------------------------- sending


def test_headers_are_celerys_in_celerys_order() -> None:
    headers = make_headers(
        task="t.add", id="id1", args=(1, 2), kwargs={"k": 1}, origin="gen5699@vm"
    )
    golden = json.loads(GOLDEN_HEADERS)
    assert list(headers.items()) == list(golden.items())
    assert encode_headers(headers) == json.dumps(golden, separators=(",", ":")).encode()


def test_every_header_can_be_given() -> None:
    headers = make_headers(
        task="t",
        id="i",
        args=(),
        kwargs={},
        root_id="r",
        parent_id="p",
        shadow="s",
        eta=0.5,
        expires=1600000000,
        group="g",
        group_index=3,
        retries=2,
        time_limit=10,
        soft_time_limit=5.5,
        argsrepr="A",
        kwargsrepr="K",
        ignore_result=None,
        replaced_task_nesting=1,
        stamped_headers=("stamp",),
        stamps={"stamp": ["v"]},
        compression="application/x-gzip",
        extra={"tenant": 5, "shadow": "mine"},
    )
    assert headers["origin"].startswith(f"gen{os.getpid()}@")
    del headers["origin"]
    assert headers == {
        "lang": "py",
        "task": "t",
        "id": "i",
        "shadow": "mine",
        "eta": "1970-01-01T00:00:00.500000+00:00",
        "expires": "2020-09-13T12:26:40+00:00",
        "group": "g",
        "group_index": 3,
        "retries": 2,
        "timelimit": [10, 5.5],
        "root_id": "r",
        "parent_id": "p",
        "argsrepr": "A",
        "kwargsrepr": "K",
        "ignore_result": None,
        "replaced_task_nesting": 1,
        "stamped_headers": ["stamp"],
        "stamps": {"stamp": ["v"]},
        "compression": "application/x-gzip",
        "tenant": 5,
    }
    assert decode_headers(encode_headers(headers)) == headers


def test_reprs_are_cut() -> None:
    headers = make_headers(task="t", id="i", args=("x" * 5000, [[[[1]]]]), kwargs={"a": 1})
    assert len(headers["argsrepr"]) == 1024
    headers = make_headers(
        task="t", id="i", args=([[[1]]],), kwargs={}, repr_maxlevels=1, repr_maxlen=50
    )
    assert headers["argsrepr"] == "([...],)"


def test_own_headers_may_hold_what_json_may() -> None:
    headers = make_headers(
        task="t",
        id="i",
        args=(),
        kwargs={},
        extra={"at": datetime(2020, 1, 1, tzinfo=UTC), "b": b"x"},
    )
    assert decode_headers(encode_headers(headers)) == headers
    for odd in ([1], {"a": float("inf")}, 1.5, {"timelimit": [1.5, None]}, "\ud800", {1: 2}):
        back = decode_headers(encode_headers({**headers, "odd": odd}))["odd"]
        assert back == ({"1": 2} if odd == {1: 2} else odd)
    with pytest.raises(EncodeError, match=r"\['tags'\] = \{1\} of type set"):
        encode_headers({**headers, "tags": {1}})


def test_body_is_celerys() -> None:
    expected = json.dumps(json.loads(GOLDEN_BODY), separators=(",", ":")).encode()
    body = encode_body((1, 2), {"k": 1}, None)
    assert body == (expected, "application/json", "utf-8", None)
    assert encode_body((1, 2), {"k": 1}, {}) == body
    assert encode_body((1, 2), {"k": 1}, {"chain": None}) == body


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml", "pickle"])
@pytest.mark.parametrize("compression", [None, "gzip", "bzip2", "lzma", "zstd", "brotli"])
def test_round_trip(serializer: str, compression: str | None) -> None:
    args, kwargs = [1, "é", [None]], {"k": {"a": 1.5}}
    embed = {"callbacks": [SIGNATURE], "chain": [SIGNATURE, SIGNATURE], "chord": SIGNATURE}
    data, content_type, encoding, mime = encode_body(args, kwargs, embed, serializer, compression)
    headers = make_headers(task="t.add", id="i", args=args, kwargs=kwargs, compression=mime)
    read = decode(
        message(
            encode_headers(headers), data, content_type=content_type, content_encoding=encoding
        ),
        ALL,
    )
    assert (read.args, read.kwargs, read.protocol) == (args, kwargs, 2)
    assert read.embed == {"errbacks": None, **embed}
    assert read.headers == headers


def test_json_carries_its_other_types_in_arguments() -> None:
    when = datetime(2020, 1, 1, tzinfo=UTC)
    data, *_ = encode_body((when, b"\xff"), {"at": when})
    read = decode(message(body=data), JSON)
    assert read.args == [when, b"\xff"]
    assert read.kwargs == {"at": when}


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        (({1},), {}, "args[0]"),
        ((1, {"x": {1}}), {}, "args[1]['x']"),
        ((), {"k": [{1}]}, "kwargs['k'][0]"),
    ],
)
def test_the_argument_that_cannot_be_written_is_named(args: Any, kwargs: Any, path: str) -> None:
    for serializer in ("json", "msgpack"):
        with pytest.raises(EncodeError) as caught:
            encode_body(args, kwargs, None, serializer)
        assert str(caught.value).startswith(f"{path} = {{1}} of type set")


# ------------------------------------------------------------------------------- receiving


def test_golden_messages_are_read() -> None:
    read = decode(message(GOLDEN_HEADERS.encode(), GOLDEN_BODY.encode()), JSON)
    assert read.headers == json.loads(GOLDEN_HEADERS)
    assert (read.args, read.kwargs) == ([1, 2], {"k": 1})
    assert not any(read.embed.values())


GOLDEN = json.loads(GOLDEN_HEADERS)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, GOLDEN_BODY),
        ({"origin": None, "group": "g", "group_index": 3, "retries": 2}, GOLDEN_BODY),
        ({"lang": None}, GOLDEN_BODY),
        ({"root_id": None, "timelimit": [10, None]}, GOLDEN_BODY),
        ({"eta": "2026-11-21T02:36:39+00:00"}, GOLDEN_BODY),
        ({"mine": "__type__", "_task": 1}, GOLDEN_BODY),
        ({"argsrepr": "{'__type__': 1}"}, '[[{"__type__":"date","__value__":"2026-01-02"}],{},{}]'),
        ({}, r'[[{"\u005f_type__":"date","__value__":"2026-01-02"}],{"k":NaN},{}]'),
        ({}, '[[1],{},{"callbacks":[],"errbacks":null,"chain":null,"chord":null}]'),
        ({}, '[[1],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null,"more":1}]'),
        ({}, "[[18446744073709551616, 1.5, -9223372036854775809],null,null]"),
        ({"retries": -1}, GOLDEN_BODY),
        ({"ignore_result": 1}, GOLDEN_BODY),
        ({"stamps": {"a": 1}, "stamped_headers": ["a"]}, GOLDEN_BODY),
        ({"task": ""}, GOLDEN_BODY),
        ({}, "[[1],{}]"),
        ({}, "[[1],{},{},4]"),
    ],
)
def test_the_quick_way_reads_what_the_other_one_does(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, Any], body: str
) -> None:
    one = message(json.dumps({**GOLDEN, **headers}).encode(), body.encode())
    quick = _read_or_refused(one)
    monkeypatch.setattr(reading, "usual_headers", lambda raw: None)
    assert quick == _read_or_refused(one)


def _read_or_refused(one: Message) -> Any:
    try:
        read = decode(one, JSON)
    except InvalidTaskError as exc:
        return str(exc)
    follows = {name: value for name, value in read.embed.items() if value is not None}
    return repr((list(read.headers.items()), read.args, read.kwargs, follows))


def test_golden_protocol_1_is_read_as_if_it_were_2() -> None:
    read = decode(message(b"{}", GOLDEN_V1.encode()), JSON)
    assert read.protocol == 1
    assert (read.args, read.kwargs) == ([1, 2], {"k": 1})
    assert read.embed == {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    headers = json.loads(GOLDEN_HEADERS)
    assert set(read.headers) == set(headers)
    assert read.headers == {
        **headers,
        "eta": "2026-11-21T02:36:39.694070+00:00",
        "expires": "2026-11-21T02:36:44.694070+00:00",
        "group": "g",
        "group_index": 2,
        "timelimit": [10, 5],
        "origin": None,
        "ignore_result": None,
    }


def test_protocol_1_is_written_as_celery_writes_it() -> None:
    body = encode_v1(
        task="t.add",
        id="id1",
        args=(1, 2),
        kwargs={"k": 1},
        group="g",
        group_index=2,
        eta=parse_time("2026-11-21T02:36:39.694070+00:00"),
        expires=parse_time("2026-11-21T02:36:44.694070+00:00"),
        time_limit=10,
        soft_time_limit=5,
    )
    assert body[1:] == ("application/json", "utf-8", None)
    assert list(json.loads(body[0]).items()) == list(json.loads(GOLDEN_V1).items())


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml", "pickle"])
def test_protocol_1_round_trip(serializer: str) -> None:
    data, content_type, encoding, mime = encode_v1(
        task="t",
        id="i",
        args=(1,),
        kwargs={},
        callbacks=[SIGNATURE],
        retries=3,
        serializer=serializer,
        compression="gzip",
    )
    read = decode(
        message({"compression": mime}, data, content_type=content_type, content_encoding=encoding),
        ALL,
    )
    assert read.args == [1]
    assert read.headers["retries"] == 3
    assert read.embed["callbacks"] == [SIGNATURE]


def test_protocol_1_of_old_senders() -> None:
    body = {"task": "t", "id": "i", "taskset": "g", "eta": "2020-01-01T00:00:00"}
    read = decode(message(b"{}", body), JSON)
    assert (read.args, read.kwargs, read.headers["group"]) == ([], {}, "g")
    assert read.headers["eta"] == "2020-01-01T00:00:00+00:00"
    assert read.headers["retries"] == 0
    assert read.headers["timelimit"] == [None, None]
    local = decode(message(b"{}", {**body, "utc": False}), JSON)
    there = datetime(2020, 1, 1).astimezone()
    assert parse_time(local.headers["eta"]) == there.timestamp()


def test_missing_headers_get_their_promised_values() -> None:
    read = decode(message({"task": "t", "id": "i"}), JSON)
    assert read.headers == {
        "task": "t",
        "id": "i",
        "root_id": "i",
        "retries": 0,
        "timelimit": [None, None],
        "stamps": {},
    }
    nulls = dict.fromkeys(json.loads(GOLDEN_HEADERS))
    read = decode(message({**nulls, "task": "t", "id": "i"}, [None, None, None]), JSON)
    assert (read.args, read.kwargs, read.embed) == ([], {}, {})
    assert read.headers["retries"] == 0


@pytest.mark.parametrize(
    ("headers", "names"),
    [
        ({"task": ""}, "task"),
        ({"task": None}, "task"),
        ({"task": ["x"]}, "task"),
        ({"id": None}, "id"),
        ({"id": 5}, "id"),
        ({"id": "\ud800"}, "id"),
        ({"task": "\ud800"}, "task"),
        ({"group": "\udfff"}, "group"),
        ({"root_id": {}}, "root_id"),
        ({"parent_id": 1}, "parent_id"),
        ({"group": []}, "group"),
        ({"shadow": 1}, "shadow"),
        ({"argsrepr": []}, "argsrepr"),
        ({"group_index": "1"}, "group_index"),
        ({"retries": "1"}, "retries"),
        ({"retries": -1}, "retries"),
        ({"retries": True}, "retries"),
        ({"retries": False}, "retries"),
        ({"retries": 0.0}, "retries"),
        ({"replaced_task_nesting": []}, "replaced_task_nesting"),
        ({"ignore_result": 0}, "ignore_result"),
        ({"retries": 1.5}, "retries"),
        ({"retries": 10**30}, "retries"),
        ({"replaced_task_nesting": "x"}, "replaced_task_nesting"),
        ({"timelimit": 5}, "timelimit"),
        ({"timelimit": [1]}, "timelimit"),
        ({"timelimit": ["1", None]}, "timelimit"),
        ({"timelimit": [-1, None]}, "timelimit"),
        ({"timelimit": [float("nan"), None]}, "timelimit"),
        ({"timelimit": [float("inf"), None]}, "timelimit"),
        ({"eta": "tomorrow"}, "eta"),
        ({"eta": []}, "eta"),
        ({"eta": float("nan")}, "eta"),
        ({"eta": 1e300}, "eta"),
        ({"expires": True}, "expires"),
        ({"stamps": []}, "stamps"),
        ({"stamped_headers": "a"}, "stamped_headers"),
        ({"stamped_headers": [1]}, "stamped_headers"),
        ({"ignore_result": "no"}, "ignore_result"),
    ],
    ids=lambda v: ascii(v)[:40],
)
def test_a_wrong_header_is_named(headers: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidTaskError, match=rf"header {names} "):
        decode(changed(**headers), JSON)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (5, "must be"),
        ([], "must be"),
        ([[], {}], "must be"),
        ([[], {}, {}, {}], "must be"),
        ({"args": []}, "must be"),
        (["ab", {}, {}], "args must be a list"),
        ([{}, {}, {}], "args must be a list"),
        ([[], [], {}], "kwargs must be an object"),
        ([[], {}, []], "third part"),
        ([[], {}, {"callbacks": {}}], None),
        ([[], {}, {"callbacks": {"task": "x"}}], "callbacks must be a list"),
        ([[], {}, {"callbacks": [5]}], "callbacks must hold signatures"),
        ([[], {}, {"errbacks": [{"task": 5}]}], "errbacks must hold signatures"),
        ([[], {}, {"chain": "abc"}], "chain must be a list"),
        ([[], {}, {"chord": [SIGNATURE]}], "chord must hold signatures"),
        ([[], {}, {"chord": {**SIGNATURE, "args": 5}}], "args must be a list"),
        ([[], {}, {"chord": {**SIGNATURE, "options": 5}}], "options"),
    ],
    ids=lambda v: ascii(v)[:40],
)
def test_a_wrong_body_is_named(body: Any, what: str | None) -> None:
    if what is None:
        assert decode(message(body=body), JSON).embed == body[2]
        return
    with pytest.raises(InvalidTaskError, match=what):
        decode(message(body=body), JSON)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ([], "there must be a task"),
        ({}, "there must be a task"),
        ({"task": 5, "id": "i"}, "task"),
        ({"task": "t"}, "id"),
        ({"task": "t", "id": "\ud800"}, "id"),
        ({"task": "t", "id": "i", "eta": "x"}, "eta"),
        ({"task": "t", "id": "i", "eta": "0001-01-01T00:00:00+23:00"}, "eta"),
        ({"task": "t", "id": "i", "args": 5}, "args"),
        ({"task": "t", "id": "i", "retries": "x"}, "retries"),
        ({"task": "t", "id": "i", "callbacks": [5]}, "callbacks"),
    ],
    ids=lambda v: ascii(v)[:50],
)
def test_a_wrong_protocol_1_is_named(body: Any, what: str) -> None:
    with pytest.raises(InvalidTaskError, match=what):
        decode(message(b"{}", body), JSON)


def test_bytes_that_cannot_be_read() -> None:
    for headers in (b"", b"[]", b"5", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(DecodeError):
            decode(message(headers), JSON)
    with pytest.raises(DecodeError):
        decode(message(body=b"\xff"), JSON)
    with pytest.raises(DecodeError):
        decode(changed(compression="application/x-gzip"), JSON)
    with pytest.raises(DecodeError):
        decode(changed(compression=["x"]), JSON)
    with pytest.raises(ContentDisallowed):
        decode(message(content_type="application/x-python-serialize"), JSON)
    with pytest.raises(ContentDisallowed):
        decode(changed(compression="application/x-gzip"), frozenset())


def test_names_in_kwargs_must_be_texts() -> None:
    data, content_type, encoding, _ = encode_body((), {}, {}, "msgpack")
    data = data.replace(b"\x90\x80", b"\x90\x81\x01\x02", 1)
    with pytest.raises(InvalidTaskError, match="names in kwargs"):
        decode(message(body=data, content_type=content_type, content_encoding=encoding), ALL)


def test_peek() -> None:
    assert peek_task(message()) == ("t.add", "(1, 2)")
    assert peek_task(message(b"{}", GOLDEN_V1.encode())) == ("t.add", "(1, 2)")
    assert peek_task(message({"task": "t", "id": "i"})) == ("t", "")
    assert peek_task(message({"task": [1], "argsrepr": 5})) == ("[1]", "5")
    for odd in (
        message(b"\xff", b"\xff"),
        message(b"{}", b"\xff"),
        message(b"{}", b"[]"),
        message(b"{}", GOLDEN_V1.encode(), content_type="application/x-yaml"),
        message(b"{}", b"[" * (2 << 20)),
        message({"compression": "x"}, GOLDEN_V1.encode()),
    ):
        assert peek_task(odd) == ("", "")


@pytest.mark.parametrize(
    ("value", "epoch"),
    [
        (None, None),
        ("1970-01-01T00:00:01+00:00", 1.0),
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.5", 1.5),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01", 0.0),
        (5, 5.0),
        (5.5, 5.5),
        (datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), 1.0),
        (datetime(1970, 1, 1, 0, 0, 1), 1.0),  # noqa: DTZ001
    ],
)
def test_parse_time(value: Any, epoch: float | None) -> None:
    assert parse_time(value) == epoch


def test_times_keep_their_microseconds() -> None:
    text = format_time(1763692599.694070)
    assert text == "2025-11-21T02:36:39.694070+00:00"
    assert parse_time(text) == 1763692599.694070
    for wrong in (float("nan"), float("inf"), 1e300, 1e15):
        with pytest.raises(ValueError, match="is not a time"):
            format_time(wrong)


def test_decode_never_lets_a_foreign_error_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(reading, "usual_headers", broken)
    with pytest.raises(InvalidTaskError, match="ZeroDivisionError: a bug of ours"):
        decode(message(), JSON)
