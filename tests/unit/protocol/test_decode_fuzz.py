"""Whatever arrives, reading a message ends in a value or in one of three errors, runs nothing of
the sender's, and takes bounded time and memory."""

from __future__ import annotations

import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celeriac.exceptions import ContentDisallowed, DecodeError, InvalidTaskError, SecurityError
from celeriac.message import Message
from celeriac.protocol.compression import MAX_SIZE, compress
from celeriac.protocol.reading import decode, peek_task
from celeriac.protocol.results import decode_meta, encode_meta, exception_from_form
from celeriac.protocol.serialization import accept_types, encode
from celeriac.protocol.task import TaskMessage, encode_body, make_headers

REFUSALS = (ContentDisallowed, DecodeError, InvalidTaskError)
SAFE = accept_types(["json", "msgpack", "yaml"])
TYPES = st.sampled_from([*sorted(SAFE), "application/x-python-serialize", "text/plain", ""])
ENCODINGS = st.sampled_from(["utf-8", "binary", "utf-16", "zlib", ""]) | st.text(max_size=8)
HEADERS = make_headers(task="t.add", id="i", args=(1,), kwargs={}, origin="gen1@h")
BODY = encode_body((1, "a"), {"k": [1.5]}, {"callbacks": [{"task": "x"}]})[0]

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None, exclude_categories=()), max_size=6)
    | st.sampled_from(["task", "id", "__type__", "__value__", "datetime", "application/x-gzip"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*HEADERS, "__type__", "__value__", "args", "kwargs", "compression"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def read(headers: bytes, body: bytes, content_type: str, encoding: str) -> None:
    message = Message(
        id="i",
        run="r",
        queue="q",
        headers=headers,
        body=body,
        content_type=content_type,
        content_encoding=encoding,
    )
    peek_task(message)
    try:
        decoded = decode(message, SAFE)
    except REFUSALS as exc:
        refusal = str(exc)
    else:
        check(decoded)
        refusal = ""
    assert len(refusal) < 2000


def check(decoded: TaskMessage) -> None:
    given = decoded.headers
    for name in ("task", "id", "root_id"):
        assert isinstance(given[name], str)
        given[name].encode()
    assert isinstance(given["retries"], int)
    assert len(given["timelimit"]) == 2
    assert isinstance(decoded.args, list)
    assert all(isinstance(name, str) for name in decoded.kwargs)
    assert isinstance(decoded.embed, dict)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=80), TYPES, ENCODINGS)
def test_noise(headers: bytes, body: bytes, content_type: str, encoding: str) -> None:
    read(headers, body, content_type, encoding)
    read(json.dumps(HEADERS).encode(), body, content_type, encoding)
    read(headers, BODY, content_type, encoding)


@settings(max_examples=400, deadline=None)
@given(JSON_VALUES, JSON_VALUES, st.dictionaries(st.sampled_from([*HEADERS]), JSON_VALUES))
def test_json_of_any_shape(headers: Any, body: Any, changes: dict[str, Any]) -> None:
    body_bytes = json.dumps(body).encode()
    for value in (headers, {**HEADERS, **changes}):
        read(json.dumps(value).encode(), body_bytes, "application/json", "utf-8")
        read(json.dumps(value).encode(), BODY, "application/json", "utf-8")
    v1 = {"task": "t", "id": "i", **changes}
    read(b"{}", json.dumps(v1).encode(), "application/json", "utf-8")
    read(b"{}", json.dumps(body).encode(), "application/json", "utf-8")


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["json", "msgpack", "yaml"]),
    st.sampled_from([None, "gzip", "bzip2", "lzma", "zstd", "brotli"]),
    st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=3)), min_size=1, max_size=4),
)
def test_mutated_messages(
    serializer: str, compression: str | None, changes: list[tuple[int, bytes]]
) -> None:
    body, content_type, encoding, mime = encode_body(
        (1, "a", b"\xff" if serializer != "yaml" else 2), {"k": 1.5}, None, serializer, compression
    )
    headers = json.dumps({**HEADERS, "compression": mime}).encode()
    for at, noise in changes:
        mutated_body = body[: at % len(body)] + noise + body[at % len(body) + 1 :]
        cut = at % len(headers)
        mutated_headers = headers[:cut] + noise + headers[cut + 1 :]
        read(headers, mutated_body, content_type, encoding)
        read(mutated_headers, body, content_type, encoding)


def _deep(opening: bytes, closing: bytes, depth: int) -> bytes:
    return opening * depth + b"1" + closing * depth


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (_deep(b"[", b"]", 200_000), "application/json"),
        (_deep(b'{"a":', b"}", 200_000), "application/json"),
        (_deep(b'{"__type__":', b',"__value__":1}', 100_000), "application/json"),
        (b"[[" + b"9" * 1_000_000 + b"],{},{}]", "application/json"),
        (b'[["' + b"\\ud800" * 100_000 + b'"],{},{}]', "application/json"),
        (b"\x91" * 200_000 + b"\x01", "application/x-msgpack"),
        (b"\xdd\xff\xff\xff\xff", "application/x-msgpack"),
        (b"\xc6\xff\xff\xff\xff", "application/x-msgpack"),
        (_deep(b"[", b"]", 2_000), "application/x-yaml"),
        (_deep(b"{a: ", b"}", 2_000), "application/x-yaml"),
        (
            b"".join(
                b"a%d: &a%d {<<: [%s]}\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9))
                if n
                else b"a0: &a0 {x: 1}\n"
                for n in range(12)
            ),
            "application/x-yaml",
        ),
    ],
    ids=lambda v: repr(v)[:30],
)
def test_depths_and_lengths(body: bytes, content_type: str) -> None:
    headers = json.dumps(HEADERS).encode()
    read(headers, body, content_type, "binary")
    read(b"{}", body, content_type, "utf-8")
    read(body, BODY, "application/json", "utf-8")


def test_shared_parts_of_yaml_do_not_multiply() -> None:
    lines = [b"- &a0 [lol]"]
    lines += [b"- &a%d [%s]" % (n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 40)]
    read(json.dumps(HEADERS).encode(), b"\n".join(lines), "application/x-yaml", "utf-8")
    itself = b"- &a [*a]\n- {}\n- {}"
    read(json.dumps(HEADERS).encode(), itself, "application/x-yaml", "utf-8")
    read(b"{}", b"{task: t, id: i, args: &a [*a], callbacks: *a}", "application/x-yaml", "utf-8")


def test_a_bomb_is_refused() -> None:
    packer = zlib.compressobj()
    million = b"\0" * (1 << 20)
    parts = [packer.compress(million) for _ in range(MAX_SIZE // len(million) + 1)]
    bomb = b"".join(parts) + packer.flush()
    headers = json.dumps({**HEADERS, "compression": "application/x-gzip"}).encode()
    message = Message(id="i", run="r", queue="q", headers=headers, body=bomb)
    with pytest.raises(DecodeError, match="would be more than"):
        decode(message, SAFE)


class Touches:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 5), TYPES, ENCODINGS)
def test_a_pickle_never_runs(
    tmp_path: Path, protocol: int, content_type: str, encoding: str
) -> None:
    path = tmp_path / "touched"
    body = pickle.dumps([[Touches(path)], {}, {}], protocol=protocol)
    read(json.dumps(HEADERS).encode(), body, content_type, encoding)
    read(b"{}", body, content_type, encoding)
    packed, mime = compress(body, "gzip")
    read(json.dumps({**HEADERS, "compression": mime}).encode(), packed, content_type, encoding)
    for serializer in ("json", "msgpack", "yaml"):
        with pytest.raises(DecodeError):
            decode_meta(body, serializer)
    assert not path.exists()


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60) | JSON_VALUES.map(lambda v: json.dumps(v).encode()),
    st.sampled_from(["json", "msgpack", "yaml"]),
    st.integers(0, 300),
    st.binary(max_size=4),
)
def test_result_documents(payload: bytes, serializer: str, at: int, noise: bytes) -> None:
    good = encode_meta(id="i", state="SUCCESS", result=[1], serializer=serializer)
    packed = encode_meta(
        id="i", state="FAILURE", result=1, serializer=serializer, compression="gzip"
    )
    mutated = [d[: at % len(d)] + noise + d[at % len(d) + 1 :] for d in (good, packed)]
    for data in (payload, b"\0celery-compressed\0" + payload, *mutated):
        try:
            meta = decode_meta(data, serializer)
        except DecodeError:
            continue
        assert isinstance(meta["status"], str)


@settings(max_examples=300, deadline=None)
@given(
    JSON_VALUES
    | st.fixed_dictionaries(
        {
            "exc_type": st.sampled_from(["ValueError", "open", "system.x", "UnicodeDecodeError"])
            | JSON_VALUES,
            "exc_message": JSON_VALUES,
            "exc_module": st.sampled_from(["builtins", "os", "celery.exceptions"]) | JSON_VALUES,
        }
    )
)
def test_exception_forms(form: Any) -> None:
    try:
        assert isinstance(exception_from_form(form), BaseException)
    except SecurityError:
        pass


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml"])
@settings(max_examples=100, deadline=None)
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.floats(allow_nan=False)
        | st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)
        | st.binary(max_size=8),
        lambda i: (
            st.lists(i, max_size=4) | st.dictionaries(st.text("abc", max_size=4), i, max_size=4)
        ),
        max_leaves=10,
    )
)
def test_what_is_written_is_read(serializer: str, value: Any) -> None:
    encoded = encode([[value], {"k": value}, {}], serializer)
    message = Message(
        id="i",
        run="r",
        queue="q",
        headers=json.dumps(HEADERS).encode(),
        body=encoded.data,
        content_type=encoded.content_type,
        content_encoding=encoded.content_encoding,
    )
    decoded = decode(message, SAFE)
    assert decoded.args == [value]
    assert decoded.kwargs == {"k": value}
