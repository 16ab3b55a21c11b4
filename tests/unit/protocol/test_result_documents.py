"""Result documents and the form of exceptions. Golden ones were captured from celery 5.7.0."""

from __future__ import annotations

import json
import os
import sys
import types
from datetime import UTC, datetime
from typing import Any

import pytest

from celeriac import exceptions
from celeriac.exceptions import DecodeError, EncodeError, SecurityError
from celeriac.protocol.results import (
    decode_meta,
    encode_meta,
    exception_form,
    exception_from_form,
    result_tuple,
)

DONE = datetime(2026, 11, 21, 2, 30, 53, 272865, tzinfo=UTC).timestamp()
GOLDEN = (
    '{"status": "SUCCESS", "result": [1, 2], "traceback": null, "children": [], '
    '"date_done": "2026-11-21T02:30:53.272865+00:00", "group_id": "g1", "parent_id": "p1", '
    '"task_id": "id1"}'
)
GOLDEN_EXTENDED = (
    '{"status": "PROGRESS", "result": {"p": 1}, "traceback": null, "children": [], '
    '"date_done": null, "group_id": "g1", "parent_id": "p1", "name": "t.add", '
    '"args": [1, {"__type__": "bytes", "__value__": "x"}], "kwargs": {"k": 1}, '
    '"worker": "w1@h", "retries": 2, "queue": "celery", "stamped_headers": ["s"], "s": [1], '
    '"task_id": "id1"}'
)
GOLDEN_BARE = (
    '{"status": "SUCCESS", "result": null, "traceback": null, "children": null, '
    '"date_done": "2026-11-21T02:30:53.272865+00:00", "task_id": "id2"}'
)


def same(data: bytes, golden: str) -> bool:
    return list(json.loads(data).items()) == list(json.loads(golden).items())


def test_documents_are_celerys_in_celerys_order() -> None:
    ids = {"id": "id1", "group_id": "g1", "parent_id": "p1"}
    assert same(encode_meta(state="SUCCESS", result=(1, 2), date_done=DONE, **ids), GOLDEN)
    extended = {
        "name": "t.add",
        "args": (1, b"x"),
        "kwargs": {"k": 1},
        "worker": "w1@h",
        "retries": 2,
        "queue": "celery",
        "stamped_headers": ["s"],
        "s": [1],
    }
    data = encode_meta(state="PROGRESS", result={"p": 1}, extended=extended, **ids)
    assert same(data, GOLDEN_EXTENDED)
    bare = encode_meta(id="id2", state="SUCCESS", result=None, date_done=DONE, children=None)
    assert same(bare, GOLDEN_BARE)


def test_golden_documents_are_read() -> None:
    assert decode_meta(GOLDEN.encode())["result"] == [1, 2]
    assert decode_meta(GOLDEN)["task_id"] == "id1"
    assert decode_meta(GOLDEN_EXTENDED)["args"] == [1, b"x"]


def test_children_are_result_tuples() -> None:
    child = result_tuple("c1", result_tuple("q"))
    assert child == [["c1", [["q", None], None]], None]
    group = result_tuple("g", None, [child])
    assert group == [["g", None], [child]]
    data = encode_meta(id="i", state="SUCCESS", result=1, children=[child])
    assert decode_meta(data)["children"] == [child]


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml", "pickle"])
@pytest.mark.parametrize("compression", [None, "gzip", "bzip2", "lzma", "zstd", "brotli"])
def test_round_trip(serializer: str, compression: str | None) -> None:
    data = encode_meta(
        id="i",
        state="FAILURE",
        result=exception_form(ValueError("a", 1), "json"),
        traceback="Traceback",
        date_done=DONE,
        serializer=serializer,
        compression=compression,
    )
    assert data.startswith(b"\0celery-compressed\0application/") is (compression is not None)
    meta = decode_meta(data, serializer)
    assert meta == {
        "status": "FAILURE",
        "result": {"exc_type": "ValueError", "exc_message": ["a", 1], "exc_module": "builtins"},
        "traceback": "Traceback",
        "children": [],
        "date_done": "2026-11-21T02:30:53.272865+00:00",
        "task_id": "i",
    }


def test_json_is_read_after_a_change_of_the_serializer() -> None:
    data = encode_meta(id="i", state="SUCCESS", result=1)
    for serializer in ("msgpack", "yaml", "pickle"):
        assert decode_meta(data, serializer)["result"] == 1


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"5", b"[]", b"{}", b'{"status":5}', b"\xff", b"\0celery-compressed\0"),
        *(b"\0celery-compressed\0application/x-gzip\0zz", b"\0celery-compressed\0nope\0zz"),
    ],
)
def test_what_is_no_document_is_a_decode_error(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_meta(payload)


def test_a_result_that_cannot_be_written_is_named() -> None:
    with pytest.raises(EncodeError, match=r"\['result'\]\['a'\] = \{1\} of type set"):
        encode_meta(id="i", state="SUCCESS", result={"a": {1}})


# ------------------------------------------------------------------------------- exceptions


class Outer:
    class Inner(Exception):
        pass


class TwoArguments(Exception):
    def __init__(self, a: Any, b: Any) -> None:
        super().__init__(a)


class Unpicklable(Exception):
    def __init__(self, a: Any, b: Any) -> None:
        super().__init__(a, b)
        self.hook = lambda: None


class ByKeyword(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"

    __repr__ = __str__


HERE = Outer.__module__


def local_error() -> Exception:
    class Local(Exception):
        pass

    return Local(1)


FORMS = [
    (ValueError("boom", 42), ["ValueError", ["boom", 42], "builtins"]),
    (Outer.Inner(b"x"), ["Outer.Inner", [b"x"], HERE]),
    (KeyError(), ["KeyError", [], "builtins"]),
    (OSError(2, "No"), ["FileNotFoundError", [2, "No"], "builtins"]),
    (ValueError({1}), ["ValueError", ["{1}"], "builtins"]),
    (ValueError([{1}]), ["ValueError", ["[{1}]"], "builtins"]),
    (ValueError(object), ["ValueError", ["<class 'object'>"], "builtins"]),
    (SystemExit(1), ["SystemExit", [1], "builtins"]),
    (local_error(), ["local_error.<locals>.Local", [1], HERE]),
    (exceptions.SoftTimeLimitExceeded(3), ["SoftTimeLimitExceeded", [3], "billiard.exceptions"]),
    (exceptions.TimeLimitExceeded(1), ["TimeLimitExceeded", [1], "billiard.exceptions"]),
    (exceptions.WorkerLostError("x"), ["WorkerLostError", ["x"], "billiard.exceptions"]),
    (exceptions.Terminated(1), ["Terminated", [1], "billiard.exceptions"]),
    (exceptions.ChordError("c"), ["ChordError", ["c"], "celery.exceptions"]),
    (exceptions.NotRegistered("a"), ["NotRegistered", ["a"], "celery.exceptions"]),
    (
        exceptions.TaskRevokedError("expired"),
        ["TaskRevokedError", ["expired"], "celery.exceptions"],
    ),
    (
        exceptions.Retry("m", ValueError(1), 3),
        ["Retry", ["m", "ValueError(1)", 3], "celery.exceptions"],
    ),
    (exceptions.Reject("x", True), ["Reject", ["x", True], "celery.exceptions"]),
    (exceptions.TimeoutError("z"), ["TimeoutError", ["z"], "celery.exceptions"]),
]


@pytest.mark.parametrize(("exc", "parts"), FORMS, ids=lambda v: ascii(v)[:30])
def test_the_form_is_celerys(exc: BaseException, parts: list[Any]) -> None:
    form = exception_form(exc, "json")
    assert form == dict(zip(("exc_type", "exc_message", "exc_module"), parts, strict=True))
    stored = encode_meta(id="i", state="FAILURE", result=form)
    back = exception_from_form(decode_meta(stored)["result"])
    assert list(back.args) == parts[1]
    if "<locals>" not in parts[0]:
        assert type(back) is type(exc)
    else:
        assert (type(back).__name__, type(back).__module__) == ("Local", "celeriac.exceptions")


def test_the_text_of_one_that_has_nothing_else_is_kept() -> None:
    """In the form that a Celery worker gives what it cannot pickle."""
    for exc, name, module in (
        (ByKeyword(code=7), "ByKeyword", HERE),
        (invalid(), "ValidationError", "pydantic_core._pydantic_core"),
    ):
        form = exception_form(exc, "json")
        assert form["exc_type"] == "UnpickleableExceptionWrapper"
        assert form["exc_module"] == "celery.utils.serialization"
        assert form["exc_message"][:3] == [module, name, ()]
        stored = encode_meta(id="i", state="FAILURE", result=form)
        back = exception_from_form(decode_meta(stored)["result"])
        assert type(back).__name__ == name
        assert str(back) == repr(exc)
    assert "valid integer" in str(back)


def invalid() -> Exception:
    pydantic = pytest.importorskip("pydantic")
    try:
        pydantic.TypeAdapter(int).validate_python("x")
    except pydantic.ValidationError as exc:
        return exc
    raise AssertionError


def test_pickle_stores_the_exception_itself_if_it_survives() -> None:
    exc = Outer.Inner(1)
    assert exception_form(exc, "pickle") is exc
    assert exception_form(Unpicklable(1, 2), "pickle")["exc_type"] == "Unpicklable"
    assert exception_form(TwoArguments(1, 2), "pickle")["exc_type"] == "TwoArguments"
    # Celery's clients do not have our package.
    assert exception_form(exceptions.ChordError("c"), "pickle")["exc_module"] == "celery.exceptions"
    assert exception_from_form(exc) is exc


def form(kind: Any, args: Any, module: Any) -> dict[str, Any]:
    return {"exc_type": kind, "exc_message": args, "exc_module": module}


@pytest.mark.parametrize(
    ("kind", "args", "module", "shown"),
    [
        ("ValueError", "x", "builtins", "ValueError('x')"),
        ("ValueError", {"a": 1}, "builtins", "ValueError({'a': 1})"),
        ("KeyError", None, "builtins", "KeyError(None)"),
        ("ValueError", ["x"], None, "ValueError('x')"),
        ("ChordError", ["x"], None, "ChordError('x')"),
        ("ChordError", ["x"], "celery.exceptions", "ChordError('x')"),
        ("DecodeError", ["x"], "kombu.exceptions", "DecodeError('x')"),
        ("Nope", ["x"], "nonexistent.mod", "Nope('x')"),
        ("Nope", ["x"], "builtins", "Nope('x')"),
        ("Outer.Inner", ["x"], HERE, "Inner('x')"),
        ("Outer.Nope", ["x"], HERE, "Nope('x')"),
        (
            "TwoArguments",
            [1],
            HERE,
            f"""Exception("<class '{HERE}.TwoArguments'>([1])")""",
        ),
        (
            "UnicodeDecodeError",
            ["x"],
            "builtins",
            """Exception("<class 'UnicodeDecodeError'>(['x'])")""",
        ),
    ],
)
def test_reading_as_celery_reads(kind: str, args: Any, module: Any, shown: str) -> None:
    assert repr(exception_from_form(form(kind, args, module))) == shown


def test_made_up_classes_are_the_same_each_time() -> None:
    one, two = (exception_from_form(form("Odd\ud800\0", [1], "gone")) for _ in range(2))
    assert type(one) is type(two)
    assert type(one).__module__ == "celeriac.exceptions"


@pytest.mark.parametrize(
    "odd", ["text", ["a"], None, 5, {}, {"exc_message": [1]}, form(None, [], "os")]
)
def test_what_is_no_form_is_still_an_exception(odd: Any) -> None:
    assert type(exception_from_form(odd)) is Exception


@pytest.mark.parametrize(
    ("kind", "module"),
    [
        ("system", "os"),
        ("sys.exit", "os"),
        ("path", "os"),
        ("int", "builtins"),
        ("eval", "builtins"),
        ("Outer", HERE),
        ("UTC", "celery.exceptions"),
    ],
)
def test_what_is_no_exception_is_never_called(
    kind: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("called"))
    with pytest.raises(SecurityError, match="not an exception class"):
        exception_from_form(form(kind, ["x"], module))


def test_finding_a_class_imports_and_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = types.ModuleType("lazy_module")
    lazy.__getattr__ = lambda name: pytest.fail("ran")  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "lazy_module", lazy)
    exception_from_form(form("Anything", [], "lazy_module"))
    monkeypatch.delitem(sys.modules, "wsgiref.validate", raising=False)
    exception_from_form(form("WSGIWarning", [], "wsgiref.validate"))
    assert "wsgiref.validate" not in sys.modules
