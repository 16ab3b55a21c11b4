"""JSON is Celery's: the standard library's plus envelopes. Golden texts were captured from
celery 5.7.0 / kombu 5.7.0."""

from __future__ import annotations

import enum
import json
import uuid
from abc import ABC
from collections import OrderedDict, defaultdict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.exceptions import DecodeError
from celeriac.protocol import json_codec
from celeriac.protocol.json_codec import decode_json, encode_json, is_plain, register_type

Point = namedtuple("Point", "x y")


class Text(str, enum.Enum):  # noqa: UP042 - the older kind is what applications have
    A = "x"


class Number(enum.IntEnum):
    A = 5


class Own:
    def __json__(self) -> Any:
        return {"j": (1, 2)}

    def __repr__(self) -> str:  # the same in every process that collects the tests
        return "Own()"


class Moment(datetime):
    pass


UUID5 = uuid.UUID(int=5)
GOLDEN = [
    (datetime(2020, 1, 2, 3, 4, 5), '{"__type__": "datetime", "__value__": "2020-01-02T03:04:05"}'),  # noqa: DTZ001 - naive ones travel too
    (
        datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        '{"__type__": "datetime", "__value__": "2020-01-02T03:04:05.000006+00:00"}',
    ),
    (
        datetime(2020, 1, 2, tzinfo=timezone(timedelta(hours=1))),
        '{"__type__": "datetime", "__value__": "2020-01-02T00:00:00+01:00"}',
    ),
    (date(2020, 1, 2), '{"__type__": "date", "__value__": "2020-01-02"}'),
    (time(1, 2, 3), '{"__type__": "time", "__value__": "01:02:03"}'),
    (time(1, 2, 3, tzinfo=UTC), '{"__type__": "time", "__value__": "01:02:03+00:00"}'),
    (Decimal("1.10"), '{"__type__": "decimal", "__value__": "1.10"}'),
    (
        UUID5,
        '{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000005"}}',
    ),
    (b"abc", '{"__type__": "bytes", "__value__": "abc"}'),
    (b"", '{"__type__": "bytes", "__value__": ""}'),
    (b"\xff", '{"__type__": "base64", "__value__": "/w=="}'),
    ([10**30, -0.0, 1e22, 5e-324], "[1000000000000000000000000000000, -0.0, 1e+22, 5e-324]"),
    (["\ud800", "é", "\u2028"], '["\\ud800", "\\u00e9", "\\u2028"]'),
    ({"__type__": "bytes", "__value__": "x", "z": 1}, None),
    ({"__type__": "x"}, None),
    ([], "[]"),
    (None, "null"),
]


@pytest.mark.parametrize(("value", "golden"), GOLDEN, ids=lambda v: ascii(v)[:40])
def test_written_as_celery_writes_and_read_back(value: Any, golden: str | None) -> None:
    data = encode_json(value)
    if golden is None:
        golden = json.dumps(value)
    assert json.loads(data) == json.loads(golden)
    for text in (data, golden.encode()):
        back = decode_json(text)
        assert back == value
        assert type(back) is type(value)


WRITTEN_ONLY = [
    (Moment(2020, 1, 1), '{"__type__": "datetime", "__value__": "2020-01-01T00:00:00"}'),
    (
        datetime(2020, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")),
        '{"__type__": "datetime", "__value__": "2020-01-02T00:00:00+01:00"}',
    ),
    ((1, (2,)), "[1, [2]]"),
    (Point(1, 2), "[1, 2]"),
    (Own(), '{"j": [1, 2]}'),
    (Text.A, '"x"'),
    (Number.A, "5"),
    ({Text.A: 1, Number.A: 2}, '{"x": 1, "5": 2}'),
    ({1: 4, None: 3, 1.5: 5, "1": 6, False: 7}, '{"1": 6, "null": 3, "1.5": 5, "false": 7}'),
    (OrderedDict(a=1), '{"a": 1}'),
    (defaultdict(int, {"b": 1}), '{"b": 1}'),
]


@pytest.mark.parametrize(("value", "golden"), WRITTEN_ONLY, ids=lambda v: ascii(v)[:40])
def test_other_types_are_written_as_celery_writes_them(value: Any, golden: str) -> None:
    assert json.loads(encode_json(value)) == json.loads(golden)
    assert json.loads(encode_json([value, 1.5])) == [json.loads(golden), 1.5]


@pytest.mark.parametrize(
    "value",
    [
        {1},
        frozenset(),
        bytearray(b"a"),
        memoryview(b"a"),
        timedelta(1),
        1 + 2j,
        range(3),
        object(),
        ValueError("x"),
        enum.Enum("Plain", "A").A,
        {(1, 2): 3},
        {b"a": 1},
        {UUID5: 1},
        {date(2020, 1, 1): 1},
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_celery_refuses_is_refused(value: Any) -> None:
    for wrapped in (value, [value], {"k": value}, [[1] * 50, value]):
        with pytest.raises(TypeError):
            encode_json(wrapped)


def test_not_a_number_and_infinity_are_kept() -> None:
    assert encode_json([float("nan"), float("inf"), float("-inf")]) == b"[NaN,Infinity,-Infinity]"
    assert encode_json(float("nan")) == b"NaN"
    assert repr(decode_json(b"[NaN, Infinity, -Infinity, 1e999]")) == "[nan, inf, -inf, inf]"


def test_separators_are_compact() -> None:
    assert encode_json({"a": [1, {"b": b"x"}]}) == (
        b'{"a":[1,{"b":{"__type__":"bytes","__value__":"x"}}]}'
    )


def test_a_circle_ends_in_recursion_error() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(RecursionError):
        encode_json(circle)


READ = [
    (
        '{"__type__":"datetime","__value__":"2020-01-01T00:00:00Z"}',
        datetime(2020, 1, 1, tzinfo=UTC),
    ),
    ('{"__type__":"date","__value__":"2020-01-01T00:00:00"}', date(2020, 1, 1)),
    ('{"__value__":"00:00:01","__type__":"time"}', time(0, 0, 1)),
    ('{"__type__":"decimal","__value__":1.5}', Decimal("1.5")),
    ('{"__type__":"base64","__value__":"YQ=="}', b"a"),
    ('{"\\u005f_type__":"bytes","__value__":"a"}', b"a"),
    ('{"\\u005F_t\\u0079pe__":"bytes","__value__":"a"}', b"a"),
    ('[{"a":{"__type__":"bytes","__value__":"a"}}]', [{"a": b"a"}]),
    ('{"a":1,"a":2}', {"a": 2}),
    ('"\\ud83d\\ude00"', "\U0001f600"),
    ('"\\ude00\\ud83d"', "\ude00\ud83d"),
    ("-0", 0),
    (" 1 ", 1),
]


@pytest.mark.parametrize(("text", "value"), READ, ids=lambda v: ascii(v)[:40])
def test_what_celery_reads_is_read(text: str, value: Any) -> None:
    assert decode_json(text.encode()) == value
    assert decode_json(text) == value


@pytest.mark.parametrize("marker", ['"nope"', "null", "1", '["x"]', "{}"])
def test_an_unknown_type_is_refused(marker: str) -> None:
    with pytest.raises(DecodeError, match="register_type"):
        decode_json(f'[{{"__type__":{marker},"__value__":1}}]'.encode())


class Animal(ABC):
    name: str


class Cat:
    name = "cat"


def test_types_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_codec, "_encoders", dict(json_codec._encoders))
    monkeypatch.setattr(json_codec, "_decoders", dict(json_codec._decoders))
    register_type(timedelta, "delta", timedelta.total_seconds, lambda s: timedelta(seconds=s))
    register_type(set, "set", sorted, set)
    value = {"wait": timedelta(seconds=2), "who": {1, 2}}
    assert decode_json(encode_json(value)) == value

    Animal.register(Cat)
    register_type(Animal, "animal", lambda a: a.name, str.upper)
    assert decode_json(encode_json([Cat()])) == ["CAT"]
    # The most special class decides, whichever was registered first.
    register_type(Moment, "moment", datetime.timestamp, float)
    assert decode_json(encode_json(Moment(1970, 1, 1, tzinfo=UTC))) == 0.0


# ------------------------------------------------------------------ the oracle: stdlib json

ODD_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=12)
FLOATS = st.floats(allow_nan=True, allow_infinity=True)
INTS = st.integers() | st.integers(min_value=-(2**70), max_value=2**70)
KEYS = ODD_TEXT | INTS | FLOATS | st.booleans() | st.none()
VALUES = st.recursive(
    st.none() | st.booleans() | INTS | FLOATS | ODD_TEXT | st.sampled_from([Text.A, Number.A]),
    lambda inner: (
        st.lists(inner, max_size=30)
        | st.tuples(inner, inner)
        | st.dictionaries(ODD_TEXT, inner, max_size=30)
        | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=40,
)


@settings(max_examples=400, deadline=None)
@given(VALUES)
def test_writing_means_what_the_standard_library_means(value: Any) -> None:
    expected = json.loads(json.dumps(value))
    # repr tells 1 from 1.0 from True, and NaN equals itself.
    assert repr(json.loads(encode_json(value))) == repr(expected)
    if "__type__" not in json.dumps(value):
        assert repr(decode_json(encode_json(value))) == repr(expected)
        assert repr(decode_json(json.dumps(value).encode())) == repr(expected)


@settings(max_examples=200, deadline=None)
@given(st.lists(VALUES, max_size=3), st.integers(0, 200))
def test_wide_values_too(values: list[Any], width: int) -> None:
    value = [list(range(width)), {str(n): n / 7 for n in range(width)}, *values]
    assert repr(json.loads(encode_json(value))) == repr(json.loads(json.dumps(value)))


def _outcome(read: Any, data: Any) -> str:
    try:
        return repr(read(data))
    except (ValueError, RecursionError):
        return "refused"


JSON_PIECES = st.lists(
    st.sampled_from(
        [
            *(b"[", b"]", b"{", b"}", b",", b":", b'"', b" ", b"\n", b"\x0c", b"\x00"),
            *(b"null", b"true", b"false", b"NaN", b"Infinity", b"-Infinity", b"nan"),
            *(b"0", b"-", b"1", b".5", b"e", b"E+", b"9" * 25, b"1e400", b"-0", b"01", b"1."),
            *(b'"a"', b'"a":', b"\\", b'"\\ud800"', b'"\\udc00"', b'"\\u00', b"\xff", b"\xc3\xa9"),
            *(b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xf4\x90\x80\x80", b'"\t"', b'"\\/"', b"\\x"),
        ]
    ),
    max_size=12,
).map(b"".join)


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=30) | JSON_PIECES)
def test_reading_means_what_the_standard_library_means(data: bytes) -> None:
    assert _outcome(decode_json, data) == _outcome(lambda d: json.loads(str(d, "utf-8")), data)


@settings(max_examples=300, deadline=None)
@given(st.from_regex(r"\A-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,3})?\Z"))
def test_numbers_are_read_to_the_last_bit(text: str) -> None:
    assert repr(decode_json(text.encode())) == repr(json.loads(text))


def test_integers_too_long_for_python_are_refused() -> None:
    with pytest.raises(ValueError, match="digits"):
        decode_json(b"9" * 5000)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ([1, "a", None, True], True),
        ({"a": 1.5}, True),
        ([float("nan")], False),
        (float("inf"), False),
        ({1: 2}, False),
        ([Number.A], False),
        ([Text.A], False),
        ({Text.A: 1}, False),
        ([b"x"], False),
        ([list(range(50)), {"a": b"x"}], False),
        ([list(range(50)), {1: "x"}], False),
        ([list(range(50)), {"a": [float("nan")]}], False),
        ([list(range(50)), {"a": 1.5}], True),
    ],
    ids=lambda v: ascii(v)[:30],
)
def test_only_what_is_shown_to_be_plain_goes_the_fast_way(value: Any, plain: bool) -> None:
    assert is_plain(value) is plain
