"""Random workflows run as a plain function says; and every pair of forms, one inside the other."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import Tree, grow


def leaf(number: int = 1) -> Tree:
    made = Tree("add")
    made.number = number
    return made


def of(kind: str, inner: Tree) -> Tree:
    """The form with ``inner`` at the first of its places."""
    if kind == "body":
        return Tree("chord", (leaf(), leaf(2)), inner)
    if kind == "header":
        return Tree("chord", (inner, leaf(3)), leaf(4))
    if kind == "chain start":
        return Tree("chain", (inner, leaf(5), leaf(6)))
    if kind == "chain middle":
        return Tree("chain", (leaf(5), inner, leaf(6)))
    if kind == "chain end":
        return Tree("chain", (leaf(5), leaf(6), inner))
    return Tree("group", (leaf(7), inner, leaf(8)))


FORMS = ["body", "header", "chain start", "chain middle", "chain end", "group"]


@pytest.mark.parametrize("outer", FORMS)
@pytest.mark.parametrize("inner", FORMS)
def test_every_pair_of_forms(flow: Any, outer: str, inner: str) -> None:
    tree = of(outer, of(inner, leaf(9)))
    assert flow.get(tree.sig()) == tree.value(None), tree


@pytest.mark.parametrize("outer", FORMS)
@pytest.mark.parametrize("inner", FORMS)
def test_every_triple_with_the_pair_inside(flow: Any, outer: str, inner: str) -> None:
    for middle in FORMS:
        tree = of(outer, of(middle, of(inner, leaf(9))))
        assert flow.get(tree.sig()) == tree.value(None), tree


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32))
def test_random_trees(flow: Any, seed: int) -> None:
    """celery-api.md 4: trees to depth 4, run here, in place and by a plain function, agree."""
    tree = grow(random.Random(seed), 4)
    expected = tree.value(None)
    assert tree.sig().apply().get() == expected, tree
    assert flow.get(tree.sig()) == expected, tree
