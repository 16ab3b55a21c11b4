"""Proxies: names that stand for an object found anew at each use."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from celeriac.local import Proxy, isinstance_proxy, maybe_evaluate


class Thing:
    """A thing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.name, args, kwargs

    def __getitem__(self, key: str) -> str:
        return f"{self.name}[{key}]"

    def __contains__(self, key: object) -> bool:
        return key == "x"

    def __or__(self, other: Any) -> Any:
        return (self.name, other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<Thing {self.name}>"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> Any:
        return Thing, (self.name,)


@pytest.fixture
def present() -> list[Any]:
    return [Thing("first")]


@pytest.fixture
def proxy(present: list[Any]) -> Any:
    return Proxy(lambda: present[0], name="thing", doc="What it stands for.")


def test_it_is_found_anew_at_each_use(proxy: Any, present: list[Any]) -> None:
    assert proxy.name == "first"
    present[0] = Thing("second")
    assert proxy.name == "second"
    assert proxy._get_current_object() is present[0]


def test_it_behaves_like_the_object(proxy: Any, present: list[Any]) -> None:
    assert proxy(1, k=2) == ("first", (1,), {"k": 2})
    assert proxy["a"] == "first[a]"
    assert "x" in proxy
    assert "y" not in proxy
    assert proxy | 5 == ("first", 5)
    assert proxy == present[0]
    assert hash(proxy) == hash(present[0])
    assert (repr(proxy), str(proxy)) == ("<Thing first>", "first")
    assert isinstance(proxy, Thing)
    assert proxy.__class__ is Thing
    assert "name" in dir(proxy)
    assert copy.copy(proxy) == pickle.loads(pickle.dumps(proxy)) == present[0]
    proxy.name = "renamed"
    assert present[0].name == "renamed"
    del proxy.name
    assert not hasattr(present[0], "name")


def test_what_it_says_of_itself(proxy: Any) -> None:
    assert (proxy.__name__, proxy.__doc__) == ("thing", "What it stands for.")
    with pytest.raises(TypeError):
        proxy.__class__ = dict


def test_truth(proxy: Any, present: list[Any]) -> None:
    assert proxy
    present[0] = None
    assert not proxy

    def nothing() -> Any:
        raise RuntimeError("there is none")

    assert not Proxy(nothing)


def test_telling_proxies_from_objects(proxy: Any, present: list[Any]) -> None:
    assert isinstance_proxy(proxy)
    assert not isinstance_proxy(present[0])
    assert maybe_evaluate(proxy) is present[0]
    assert maybe_evaluate(5) == 5
