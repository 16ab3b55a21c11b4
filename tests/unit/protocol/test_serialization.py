from __future__ import annotations

import importlib
import pickle
from datetime import datetime
from typing import Any

import pytest

from celeriac.exceptions import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    ImproperlyConfigured,
    MissingDependency,
    SoftTimeLimitExceeded,
)
from celeriac.protocol import serialization
from celeriac.protocol.serialization import accept_types, decode, encode, register

ALL = accept_types(["json", "msgpack", "yaml", "pickle"])
JSON = accept_types(["json"])
BODY = [[1, "a"], {"k": None}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]


@pytest.mark.parametrize(
    ("name", "content_type", "content_encoding"),
    [
        ("json", "application/json", "utf-8"),
        ("pickle", "application/x-python-serialize", "binary"),
        ("yaml", "application/x-yaml", "utf-8"),
        ("msgpack", "application/x-msgpack", "binary"),
    ],
)
def test_every_serializer(name: str, content_type: str, content_encoding: str) -> None:
    encoded = encode(BODY, name)
    assert encoded[:2] == (content_type, content_encoding)
    assert decode(encoded.data, content_type, content_encoding, ALL) == BODY
    assert accept_types([name]) == accept_types([content_type]) == {content_type}
    with pytest.raises(ContentDisallowed):
        decode(encoded.data, content_type, content_encoding, ALL - {content_type})


def test_golden_bytes_of_celery_are_read() -> None:
    when = datetime(2020, 1, 1)  # noqa: DTZ001 - as captured
    text = b"- - 1\n  - 2\n- a: !!binary |\n    eA==\n- 2020-01-01 00:00:00\n"
    assert decode(text, "application/x-yaml", "utf-8", ALL) == [[1, 2], {"a": b"x"}, when]
    assert encode([(1, 2), {"a": b"x"}, when], "yaml").data == text
    pickled = (
        b"\x80\x04\x95?\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01K\x02\x86\x94}\x94\x8c\x01a\x94C\x01x"
        b"\x94s\x8c\x08datetime\x94\x8c\x08datetime\x94\x93\x94C\n\x07\xe4\x01\x01\x00\x00\x00\x00"
        b"\x00\x00\x94\x85\x94R\x94e."
    )
    assert encode([(1, 2), {"a": b"x"}, when], "pickle").data == pickled
    assert decode(pickled, "application/x-python-serialize", "binary", ALL)[2] == when


@pytest.mark.parametrize("name", ["msgpack", "yaml", "pickle"])
def test_more_types_than_json(name: str) -> None:
    value = {"b": b"\xff", 1: "int key", "n": [1.5, None, True]}
    encoded = encode(value, name)
    assert decode(encoded.data, encoded.content_type, encoded.content_encoding, ALL) == value


def test_refusal_says_what_and_how() -> None:
    with pytest.raises(ContentDisallowed) as caught:
        decode(b"", "application/x-python-serialize", "binary", JSON)
    for part in (
        "application/x-python-serialize",
        "application/json",
        "accept_content",
        "'pickle'",
    ):
        assert part in str(caught.value)
    with pytest.raises(ContentDisallowed):
        decode(b"{}", "", "", JSON)
    with pytest.raises(ContentDisallowed, match="nothing"):
        decode(b"{}", "application/json", "utf-8", frozenset())


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "utf8", "us-ascii", "", "binary"])
def test_encodings_that_mean_utf8(encoding: str) -> None:
    assert decode('"é"'.encode(), "application/json", encoding, JSON) == "é"


@pytest.mark.parametrize("encoding", ["latin-1", "ISO-8859-1", "utf-16", "utf-32"])
def test_other_encodings_of_text(encoding: str) -> None:
    assert decode('"é"'.encode(encoding), "application/json", encoding, JSON) == "é"


@pytest.mark.parametrize("encoding", ["zlib", "idna", "rot13", "nope", "../x", "unicode_escape"])
def test_other_codecs_are_not_looked_up(encoding: str) -> None:
    with pytest.raises(DecodeError, match="not an encoding"):
        decode(b'"a"', "application/json", encoding, JSON)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"9" * 5000,
        b'{"__type__":"nope","__value__":1}',
        b'{"__type__":"uuid","__value__":"x"}',
        b'{"__type__":"uuid","__value__":{"hex":"x"}}',
        b'{"__type__":"uuid","__value__":{"self":1}}',
        b'{"__type__":"datetime","__value__":5}',
        b'{"__type__":"datetime","__value__":"yesterday"}',
        b'{"__type__":"decimal","__value__":"abc"}',
        b'{"__type__":"decimal","__value__":{}}',
        b'{"__type__":"base64","__value__":"YQ"}',
        b'{"__type__":"bytes","__value__":1}',
        b'{"__type__":"bytes","__value__":"\\ud800"}',
        b'{"__type__":{"__type__":"bytes","__value__":"a"},"__value__":1}',
    ],
    ids=lambda v: repr(v)[:50],
)
def test_bad_json_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data, "application/json", "utf-8", JSON)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "[" * 5000 + "]" * 5000,
        "a: [",
        "%",
        "\0",
        "a: &a {x: 1}\nb: {<<: [*a, *a]}",
        "2020-99-99",
        "? [1]\n: 2",
    ],
    ids=lambda v: repr(v)[:30],
)
def test_bad_or_clever_yaml_is_a_decode_error(text: str) -> None:
    with pytest.raises(DecodeError):
        decode(text.encode(), "application/x-yaml", "utf-8", ALL)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xdf\xff\xff\xff\xff",
        b"\x92\x01",
        b"\x01\x01",
        b"\x91" * 100_000,
        b"\x81\x90\x01",
    ],
    ids=lambda v: repr(v)[:30],
)
def test_bad_msgpack_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data, "application/x-msgpack", "binary", ALL)


class Touches:
    """Its pickle writes a file when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


def test_a_pickle_is_read_only_where_it_is_accepted(tmp_path: Any) -> None:
    path = tmp_path / "touched"
    data = pickle.dumps(Touches(str(path)))
    assert decode(data, "application/data", "binary", frozenset(["application/data"])) == data
    for content_type in (*sorted(ALL - accept_types(["pickle"])), "text/plain"):
        with pytest.raises(DecodeError):
            decode(data, content_type, "utf-8", ALL | {content_type})
    with pytest.raises(ContentDisallowed):
        decode(data, "application/x-python-serialize", "binary", JSON)
    assert not path.exists()
    for broken in (
        b"",
        b"\x80",
        b"cnope\nnope\n.",
        b".",
        data[:-10],
        b"\x80\x04\x8e" + b"\x7f" * 8,
    ):
        with pytest.raises(DecodeError):
            decode(broken, "application/x-python-serialize", "binary", ALL)


@pytest.mark.parametrize(
    ("value", "path", "type_name"),
    [
        ({1}, "the value", "set"),
        ([1, {"x": {1}}], "[1]['x']", "set"),
        ({"a": [1, (2, object())]}, "['a'][1][1]", "object"),
        ([{(1, 2): 3}], "[0]", "dict"),
    ],
    ids=["a set", "a set within", "an object within", "a key"],
)
def test_the_part_that_cannot_be_written_is_named(value: Any, path: str, type_name: str) -> None:
    with pytest.raises(EncodeError) as caught:
        encode(value)
    message = str(caught.value)
    assert message.startswith(f"{path} = ")
    assert f"of type {type_name} cannot be written as json" in message
    assert "register_type" in message
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("name", ["msgpack", "yaml", "pickle"])
def test_the_part_is_named_by_other_serializers(name: str) -> None:
    with pytest.raises(EncodeError, match=rf"\[0\]\['x'\] = .* of type .*generator.* as {name}"):
        encode([{"x": (i for i in ())}], name)


class RaisesInJson:
    def __json__(self) -> Any:
        raise RuntimeError("not now")


def test_whatever_an_encoder_raises_is_an_encode_error() -> None:
    with pytest.raises(EncodeError, match="not now"):
        encode([RaisesInJson()])
    circle: list[Any] = []
    circle.append(circle)
    for name in ("json", "msgpack"):
        with pytest.raises(EncodeError, match="nested too deeply, or something in it contains"):
            encode(circle, name)
    deep: list[Any] = [{1}]
    for _ in range(30):
        deep = [deep]
    with pytest.raises(EncodeError, match=r"^(\[0\]){31} = \{1\} of type set"):
        encode(deep)


def test_the_alarm_of_a_task_is_not_taken_for_an_error_of_the_bytes() -> None:
    class Late:
        def __json__(self) -> Any:
            raise SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        encode(Late())


def test_unknown_names_are_told_with_the_nearest() -> None:
    for call in (lambda: encode(1, "jsn"), lambda: accept_types(["jsn"])):
        with pytest.raises(ImproperlyConfigured, match="did you mean 'json'"):
            call()


def test_serializers_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialization, "_by_name", dict(serialization._by_name))
    monkeypatch.setattr(serialization, "_by_type", dict(serialization._by_type))
    register("words", " ".join, str.split, "text/x-words", "utf-8")
    register("raw", bytes, bytes, "application/x-raw", "binary")
    for value, name in ((["ä", "b"], "words"), (b"\xff", "raw")):
        encoded = encode(value, name)
        accept = accept_types([name])
        back = decode(encoded.data, encoded.content_type, encoded.content_encoding, accept)
        assert back == value
    with pytest.raises(EncodeError):
        encode([1], "words")


def test_an_accepted_type_without_serializer() -> None:
    with pytest.raises(DecodeError, match="register"):
        decode(b"", "application/x-new", "binary", frozenset(["application/x-new"]))


@pytest.mark.parametrize(("name", "module"), [("msgpack", "msgpack"), ("yaml", "yaml")])
def test_a_missing_package_is_named(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encode([1], name)

    def missing(module: str) -> Any:
        raise ImportError(module)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingDependency, match=rf"celeriac\[{name}\]"):
        encode([1], name)
    with pytest.raises(DecodeError, match=rf"celeriac\[{name}\]"):
        decode(encoded.data, encoded.content_type, encoded.content_encoding, ALL)
