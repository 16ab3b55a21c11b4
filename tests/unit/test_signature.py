"""Signatures: dictionaries that describe a call."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from core_stage import Stage, read

from celeriac import Celeriac, Signature, maybe_signature, signature, subtask
from celeriac.exceptions import NotRegistered
from celeriac.message import Message

Sent = Callable[[], list[Message]]


@pytest.fixture
def add(app: Celeriac) -> Any:
    @app.task(name="add")
    def add(x: int, y: int = 0, z: int = 0) -> int:
        return x + y * 10 + z * 100

    return add


def test_a_signature_is_the_dictionary_of_the_wire(add: Any) -> None:
    sig = add.s(1, y=2)
    assert dict(sig) == {
        "task": "add",
        "args": (1,),
        "kwargs": {"y": 2},
        "options": {},
        "subtask_type": None,
        "immutable": False,
    }
    assert json.loads(json.dumps(sig))["args"] == [1]
    assert add.si(1)["immutable"] is True
    assert add.signature((1,), {"y": 2}, countdown=5, immutable=True).options == {"countdown": 5}
    assert add.subtask((1,)) == add.s(1)
    assert repr(sig) == "add(1, y=2)"
    assert sig.reprcall(9) == "add(9, 1, y=2)"


def test_an_immutable_task_makes_immutable_signatures(app: Celeriac) -> None:
    assert app.task(name="fixed", immutable=True)(lambda: None).s().immutable


def test_attributes_read_and_write(add: Any) -> None:
    sig = add.s(1)
    assert (sig.task, sig.name, sig.id, sig.subtask_type) == ("add", "add", None, None)
    sig.task, sig.args, sig.kwargs = "other", [2], {"y": 3}
    sig.options, sig.immutable = {"queue": "q"}, True
    assert dict(sig) == {
        "task": "other",
        "args": (2,),
        "kwargs": {"y": 3},
        "options": {"queue": "q"},
        "subtask_type": None,
        "immutable": True,
    }


def test_the_ways_to_make_one(app: Celeriac, add: Any) -> None:
    assert subtask is signature
    by_name = signature("add", args=(1,), kwargs={"y": 2}, countdown=10)
    assert by_name.options == {"countdown": 10}
    assert by_name.type is add
    assert app.signature("add", (1,)) == signature("add", args=(1,), app=app)
    assert signature(add, args=(1,)) == add.s(1)
    assert signature({"task": "add"}) == add.s()
    original = add.s(1)
    assert signature(original) == original
    assert signature(original) is not original
    with_none = {"task": "add", "args": None, "kwargs": None, "options": None}
    assert Signature.from_dict(with_none) == add.s()
    assert signature("not.here").type is None


def test_maybe_signature(app: Celeriac, add: Any) -> None:
    sig = add.s(1)
    assert maybe_signature(None) is None
    assert maybe_signature(5) == 5
    assert maybe_signature(sig) is sig
    assert maybe_signature(sig, clone=True) == sig
    assert maybe_signature(sig, clone=True) is not sig
    made = maybe_signature(dict(sig), app=app)
    assert isinstance(made, Signature)
    assert made.app is app


def test_partials_are_put_in_front_and_merged(add: Any, sent: Sent) -> None:
    """celery-api.md 4: ``add.s(2)`` called with 4 is ``add(4, 2)``."""
    sig = add.s(2, z=3).set(countdown=5, priority=1)
    sig.delay(4)
    sig.apply_async((4,), {"z": 5}, priority=2)
    sig.apply_async(priority=None)
    add.si(2).delay(4, z=5)
    first, second, third, fixed = sent()
    assert (read(first).args, read(first).kwargs) == ([4, 2], {"z": 3})
    assert (read(second).args, read(second).kwargs) == ([4, 2], {"z": 5})
    assert (first.priority, second.priority, third.priority) == (1, 2, 1)
    assert first.due_at is not None
    assert (read(fixed).args, read(fixed).kwargs) == ([2], {})
    assert sig == add.s(2, z=3).set(countdown=5, priority=1)  # unchanged


def test_clone_leaves_the_original_alone(add: Any) -> None:
    sig = add.s(1, y=2).set(link=[add.s(9)])
    other = sig.clone((5,), {"z": 6}, queue="q")
    assert (other.args, other.kwargs) == ((5, 1), {"y": 2, "z": 6})
    assert other.options["queue"] == "q"
    other.options["link"].append("more")
    other.kwargs["y"] = 7
    assert sig == add.s(1, y=2).set(link=[add.s(9)])
    assert sig.partial((1,)) == sig.clone((1,))


def test_set_and_freeze(add: Any, sent: Sent) -> None:
    sig = add.s(1)
    assert sig.set(queue="q", immutable=True) is sig
    assert (sig.options, sig.immutable) == ({"queue": "q"}, True)
    result = sig.freeze()
    assert result.id == sig.id == sig.options["task_id"]
    assert sig.freeze().id == result.id
    assert sig.delay().id == result.id == sent()[0].id
    assert add.s().freeze("mine", group_id="g").id == "mine"


def test_links(add: Any) -> None:
    sig, callback, errback = add.s(1), add.s(2), add.s(3)
    assert sig.link(callback) is callback
    sig.link(callback)
    assert sig.link_error(errback) is errback
    assert sig.on_error(add.s(4)) is sig
    assert sig.options == {"link": [callback], "link_error": [errback, add.s(4)]}
    single = add.s(1).set(link=callback)
    single.link(errback)
    assert single.options["link"] == [callback, errback]


def test_running_in_place(add: Any) -> None:
    assert add.s(2)(1) == 21
    assert add.s(2).apply((1,)).get() == 21
    for run in (signature("not.here"), signature("not.here").apply):
        with pytest.raises(NotRegistered, match=r"not\.here"):
            run()


def test_sending_and_waiting_in_one(app: Celeriac, add: Any) -> None:
    app.conf.task_always_eager = True
    assert ~add.s(1, 2) == 21


def test_a_signature_of_an_unknown_task_is_sent_by_name(app: Celeriac, sent: Sent) -> None:
    app.signature("not.here", args=(1,), queue="q").delay(2)
    (message,) = sent()
    assert (message.queue, read(message).args) == ("q", [2, 1])


def test_copies_and_pickles(add: Any) -> None:
    sig = add.s(1, y=[2]).set(queue="q")
    for other in (copy.copy(sig), copy.deepcopy(sig), pickle.loads(pickle.dumps(sig))):
        assert isinstance(other, Signature)
        assert other == sig
        assert other is not sig
    deep = copy.deepcopy(sig)
    deep.kwargs["y"].append(3)
    assert sig.kwargs == {"y": [2]}


def test_a_signature_as_an_argument_arrives_as_a_dictionary(
    app: Celeriac, add: Any, stage: Stage
) -> None:
    seen: list[Any] = []

    @app.task
    def later(sig: Any) -> None:
        seen.append(maybe_signature(sig)(5))

    later.delay(add.s(1))
    stage.one()
    assert seen == [15]
