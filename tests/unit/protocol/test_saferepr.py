from __future__ import annotations

import sys
import time
from collections import OrderedDict, deque, namedtuple
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.protocol.saferepr import saferepr

Point = namedtuple("Point", "x y")


class Raises:
    def __repr__(self) -> str:
        raise ValueError("no repr")


class RaisesOnAll:
    class Error(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def __repr__(self) -> str:
        raise self.Error


class NotText:
    def __repr__(self) -> Any:
        return 5


class Endless(list):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        while True:
            yield 1

    def __len__(self) -> int:
        return 10**9


class Many:
    def __repr__(self) -> str:
        return "x" * 5000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((), "()"),
        ((1,), "(1,)"),
        ((1, 2), "(1, 2)"),
        ({}, "{}"),
        ({"a": 1, 2: None}, "{'a': 1, 2: None}"),
        ([], "[]"),
        (set(), "set()"),
        ({1}, "{1}"),
        (frozenset([1]), "frozenset({1})"),
        (frozenset(), "frozenset()"),
        (b"abc", "b'abc'"),
        ("it's", '"it\'s"'),
        (1.5, "1.5"),
        (None, "None"),
        ({1: (2,)}, "{1: (2,)}"),
        ({"b": 1, "a": [1, {"x": [1, [2]]}]}, "{'b': 1, 'a': [1, {'x': [...]}]}"),
        ([[[[[]]]]], "[[[[...]]]]"),
        ([[[[]]]], "[[[[]]]]"),
        ([1, [2, [3, [4]]]], "[1, [2, [3, [...]]]]"),
        ({"a": {"b": {"c": {"d": 1}}}}, "{'a': {'b': {'c': {...}}}}"),
    ],
    ids=lambda v: ascii(v)[:30],
)
def test_as_celery_shows_it(value: Any, text: str) -> None:
    assert saferepr(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (OrderedDict(a=1), "OrderedDict({'a': 1})"),
        (deque([1, 2]), "deque([1, 2])"),
        (Point(1, 2), "Point([1, 2])"),
        (10**5000, "<int of 16610 bits>"),
        ((10**5000,), "(<int of 16610 bits>,)"),
        ((1, Raises()), "(1, <Raises: its repr raised ValueError: no repr>)"),
        (RaisesOnAll(), "<RaisesOnAll: its repr raised Error>"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_other_types(value: Any, text: str) -> None:
    assert saferepr(value) == text


def test_a_repr_that_is_no_text_is_shown_as_such() -> None:
    assert saferepr([NotText()]).startswith("[<NotText: its repr raised TypeError")


def test_a_circle_is_shown_as_such() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    assert saferepr(circle) == "[1, <Recursion on list>]"
    twice = [1]
    assert saferepr([twice, twice]) == "[[1], [1]]"  # no circle


def test_it_is_cut_to_its_length() -> None:
    for value in ("x" * 3000, b"x" * 3000, ["x" * 3000], {"k": "x" * 3000}, [Many()], Many()):
        text = saferepr(value)
        assert len(text) <= 1024
        assert text.endswith("...")
    assert saferepr((1, 2, 3), maxlen=5) == "(1..."


@pytest.mark.parametrize(
    "value",
    [
        list(range(3_000_000)),
        {n: n for n in range(1_000_000)},
        "x" * 50_000_000,
        ["x" * 50_000_000],
        b"\xff" * 50_000_000,
        deque(range(1_000_000)),
        Endless([1, 2]),
        10 ** (10**5),
    ],
    ids=lambda v: type(v).__name__,
)
def test_huge_values_cost_little(value: Any) -> None:
    started = time.process_time()
    assert len(saferepr(value)) <= 1024
    assert time.process_time() - started < 0.05


def test_shared_parts_do_not_multiply() -> None:
    laughs: list[Any] = ["lol"] * 10
    for _ in range(50):
        laughs = [laughs] * 10
    started = time.process_time()
    assert len(saferepr(laughs, maxlevels=1000)) <= 1024
    assert time.process_time() - started < 0.5


def test_deep_nesting_is_no_error() -> None:
    deep: list[Any] = []
    for _ in range(sys.getrecursionlimit() * 2):
        deep = [deep]
    assert saferepr(deep) == "[[[[...]]]]"
    assert len(saferepr(deep, maxlevels=10**6)) <= 1024


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda i: (
            st.lists(i)
            | st.dictionaries(st.integers() | st.text(), i)
            | st.tuples(i)
            | st.tuples(i, i)
        ),
    )
)
def test_what_fits_is_repr(value: Any) -> None:
    text = saferepr(value, maxlen=10**6, maxlevels=1000)
    assert text == repr(value)
    assert len(saferepr(value, maxlen=20)) <= 20
