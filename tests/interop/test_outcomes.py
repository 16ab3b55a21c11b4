"""How a task ends is the same for both clients, whoever ran it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from tests.interop.conftest import Way
from tests.interop.parties import SIDES, Client, Scene, until

from celeriac.message import MessageState

# --- errors

ERRORS: dict[str, tuple[str, list[Any]]] = {
    "plain": ("ValueError", ["boom", 42]),
    "custom": ("OutOfStock", ["tea", 3]),
    "nested": ("RuntimeError", ["outer"]),
}


@pytest.mark.parametrize("how", ERRORS)
def test_errors_are_raised_as_they_were(way: Way, how: str) -> None:
    id = way.send("fail", how)
    name, args = ERRORS[how]
    for client in (way.client, way.other):
        error = client.error(id)
        assert (error.name, error.raised_args) == (name, args)
        assert client.state(id) == "FAILURE"
        assert client("result_of(id).failed()", id=id)
        trace = client("result_of(id).traceback", id=id)
        assert trace.startswith("Traceback (most recent call last)")
        assert f"{name}: " in trace
        assert "in fail" in trace
        if how == "nested":
            assert "LookupError: inner" in trace
    document = way.town.document(id)
    assert document["status"] == "FAILURE"
    assert document["result"]["exc_type"] == name
    assert document["result"]["exc_message"] == args
    assert document["result"]["exc_module"] == ("shop" if how == "custom" else "builtins")


def test_a_custom_exception_is_of_its_class(way: Way) -> None:
    id = way.send("fail", "custom")
    way.client.error(id)
    for client in (way.client, way.other):
        look = "isinstance(result_of(id).result, OutOfStock) and result_of(id).result.article"
        assert client(look, id=id) == "tea"


def test_a_class_that_nobody_can_import(way: Way) -> None:
    id = way.send("fail", "local")
    for client in (way.client, way.other):
        error = client.error(id)
        assert "nobody can import this" in str(error)
        assert "Exception" in error.bases
        if (way.side, client.side) != ("celery", "celery"):  # wrapped, and not unwrapped
            assert error.name.endswith("Local")
            assert error.raised_args == ["nobody can import this"]


def test_a_class_that_refuses_its_arguments(way: Way) -> None:
    id = way.send("fail", "stubborn")
    for client in (way.client, way.other):
        error = client.error(id)
        if (way.side, client.side) != ("celery", "celery"):  # the same
            assert error.name == "Exception"
            assert error.raised_args == ["<class 'shop.Stubborn'>(['7: no'])"]
        assert "7: no" in str(error)


def test_an_argument_that_cannot_be_written(way: Way) -> None:
    id = way.send("fail", "unwritable")
    for client in (way.client, way.other):
        error = client.error(id)
        assert error.name == "KeyError"
        assert "object object at" in str(error.raised_args[0])
        assert error.raised_args[1] == "told"


def test_a_result_that_cannot_be_written(way: Way) -> None:
    id = way.send("unwritable")
    for client in (way.client, way.other):
        assert client.error(id).name == "EncodeError"


def test_wrong_arguments(way: Way) -> None:
    """By name, so that the sender cannot know."""
    name = f"shop.only_{way.side}"
    id = way.client("app.send_task(name, (1, 2, 3), queue=queue).id", name=name, queue=way.queue)
    for client in (way.client, way.other):
        assert client.error(id).name == "TypeError"


def test_a_process_that_dies_on_celerys_side(town: Scene) -> None:
    """Celery acknowledges before it runs: the task has failed, and we can read that."""
    id = town.client("celeriac").send("fail", "killed", queue="old")
    error = town.client("celeriac").error(id)
    assert error.name == "WorkerLostError"
    assert error.module == "celeriac.exceptions"
    assert town.client("celery").error(id).name == "WorkerLostError"


# --- limits


def test_soft_time_limit(way: Way) -> None:
    assert way.run("sleep", 20, soft_time_limit=1) == "interrupted"


def test_hard_time_limit(way: Way) -> None:
    id = way.send("sleep", 20, time_limit=1)
    for client in (way.client, way.other):
        error = client.error(id)
        assert error.name == "TimeLimitExceeded"
        assert error.raised_args == [1]
    document = way.town.document(id)
    assert document["result"]["exc_module"] == "billiard.exceptions"
    assert document["traceback"] is None


# --- retries


def test_a_retry_continues_on_the_other_side(way: Way) -> None:
    there = ["old", "new"] if way.queue == "new" else ["new", "old"]
    id = way.send("insist", 3, there)
    side, own, retries, root, parent, eta = way.client.get(id)
    assert side != way.side  # it has moved an odd number of times
    assert (own, retries, root, parent) == (id, 3, id, id)
    assert eta is not None
    assert [line[2] for line in way.town.notes("try", id)] == list(range(4))
    sides = [len(way.town.notes(side, "try", id)) for side in ("celery", "celeriac")]
    assert sides == [2, 2]


def test_all_tries_used_up(way: Way) -> None:
    id = way.send("give_up")
    for client in (way.client, way.other):
        error = client.error(id)
        assert (error.name, error.raised_args) == ("OutOfStock", ["all", 0])


def test_the_state_between_tries(way: Way) -> None:
    marker = way.town.file()
    id = way.send("wait_between", str(marker))
    for client in (way.client, way.other):
        until(lambda: client.state(id) == "RETRY", "the state to be RETRY")  # noqa: B023
        look = "(lambda r: (type(r.result).__name__, r.result.args, r.traceback))(result_of(id))"
        name, args, trace = client(look, id=id)
        assert (name, list(args)) == ("OutOfStock", ["tea", 1])
        assert trace is not None
        assert not client("result_of(id).ready()", id=id)
    marker.touch()
    assert way.client.get(id) == way.other.get(id) == "at last"


# --- states


def test_a_custom_state(way: Way) -> None:
    marker = way.town.file()
    id = way.send("progress", str(marker))
    for client in (way.client, way.other):
        until(lambda: client.state(id) == "PROGRESS", "the custom state")  # noqa: B023
        assert client("result_of(id).info", id=id) == {"done": 7, "of": [1, 2]}
        assert not client("result_of(id).ready()", id=id)
    marker.touch()
    assert way.client.get(id) == way.other.get(id) == "ended"


def test_a_state_that_starts_like_a_final_one(way: Way) -> None:
    """Written by a client; read and then replaced by the other side's worker."""
    id = str(uuid.uuid4())
    for state in ("SUCCESSFUL SO FAR", "FAILURE EXPECTED"):
        update = "add.update_state(task_id=id, state=state, meta={'n': 1})"
        way.client(update, id=id, state=state)
        assert way.other.state(id) == state
        assert way.other("result_of(id).info", id=id) == {"n": 1}
        assert not way.other("result_of(id).ready()", id=id)
    way.send("add", 1, 2, task_id=id)
    assert way.client.get(id) == way.other.get(id) == 3


def test_started(way: Way) -> None:
    marker = way.town.file()
    id = way.send("tracked", str(marker))
    for client in (way.client, way.other):
        until(lambda: client.state(id) == "STARTED", "the task to start")  # noqa: B023
        info = client("result_of(id).info", id=id)
        assert set(info) == {"pid", "hostname"}
    marker.touch()
    assert way.client.get(id) == "ended"


def test_ignore_leaves_the_state(way: Way) -> None:
    id = way.send("ignored")
    way.town.until_noted(1, "ignored")
    way.town.settled(way.queue)
    assert way.client.state(id) == way.other.state(id) == "PENDING"


def test_reject(town: Scene) -> None:
    """The task has failed; only we keep the message."""
    ids = [town.client("celery").send("rejected", queue=queue) for queue in ("old", "new")]
    for client in (town.client("celery"), town.client("celeriac")):
        for id in ids:
            error = client.error(id)
            assert (error.name, error.raised_args) == ("Reject", ["no good", False])
    kept = town.client("celeriac")(
        "[one.message.id for one in app.admin().peek('new', state)]", state=MessageState.DEAD
    )
    assert ids[1] in kept


# --- revoked


def _is_revoked(client: Client, id: str, why: str) -> None:
    error = client.error(id)
    assert (error.name, error.raised_args) == ("TaskRevokedError", [why])
    assert client.state(id) == "REVOKED"


def test_terminated(town: Scene) -> None:
    """Each side ends its own; both read what came of it."""
    for side, queue in (("celery", "old"), ("celeriac", "new")):
        marker, key = town.file(), f"terminated {side}"
        id = town.client(side).send("hold", key, str(marker), queue=queue)
        town.until_noted(1, "start", key)
        town.client(side)("result_of(id).revoke(terminate=True)", id=id)
        for client in (town.client("celery"), town.client("celeriac")):
            _is_revoked(client, id, "terminated")
        assert town.notes("end", key) == []


def test_our_client_revokes_what_a_celery_client_sent(town: Scene) -> None:
    """Waiting in a list, with and without eta; Celery's client learns of it."""
    theirs, ours = town.client("celery"), town.client("celeriac")
    ids = [
        theirs.send("count", "revoked", queue="nobodys"),
        theirs.send("count", "revoked", queue="nobodys", countdown=3600, priority=6),
        theirs.send("count", "kept", queue="nobodys"),
        ours.send("count", "revoked", queue="nobodys"),
    ]
    ours("app.control.revoke(ids)", ids=[ids[0], ids[1], ids[3]])
    for id in (ids[0], ids[1], ids[3]):
        _is_revoked(theirs, id, "revoked")
    assert theirs.state(ids[2]) == "PENDING"
    left = town.envelopes("nobodys") + town.envelopes("nobodys\x06\x166")
    assert [one["properties"]["correlation_id"] for one in left] == [ids[2]]
    town.wire("DEL", "nobodys")


def test_revoked_before_it_is_sent(town: Scene) -> None:
    """A cancelled id stays cancelled: our worker refuses what a Celery client sends."""
    id = str(uuid.uuid4())
    town.client("celeriac")("app.control.revoke(id)", id=id)
    town.client("celery").send("count", "never", queue="new", task_id=id)
    _is_revoked(town.client("celery"), id, "revoked")
    assert town.notes("count", "never") == []


# --- unknown tasks


def test_an_unknown_task_is_left_to_a_worker_that_knows_it(scene: Callable[..., Scene]) -> None:
    """Our worker defers it, Celery's on the same queue takes it meanwhile."""
    town = scene(task_default_queue="mixed")
    ours = town.start("celeriac", "-P", "solo")
    known = [
        town.client(side)("app.send_task('shop.only_celery', (n,)).id", n=n)
        for n, side in enumerate(SIDES * 10)
    ]
    town.wait_ready(ours)
    marker = "is not known to this worker"
    until(lambda: town.worker_log(ours).count(marker) >= len(known), "our worker to defer them")
    town.wait_ready(town.start("celery", "-P", "solo"))
    told = [town.client("celeriac").get(id) for id in known]
    assert told == [["celery", n] for n in range(len(known))]
    assert town.wire("KEYS", "mixed*") == []


def test_a_task_that_nobody_knows(town: Scene) -> None:
    """Left to others for a while, then kept as a dead letter; the sender is told."""
    id = town.client("celery")("app.send_task('shop.nobody_knows', queue='new').id")
    for side in SIDES:
        error = town.client(side).error(id)
        assert (error.name, error.raised_args) == ("NotRegistered", ["shop.nobody_knows"])
    dead = "[one.message.id for one in app.admin().peek('new', state)]"
    assert id in town.client("celeriac")(dead, state=MessageState.DEAD)


def test_celery_discards_what_it_does_not_know(town: Scene) -> None:
    id = town.client("celeriac")("app.send_task('shop.only_celeriac', (1,), queue='old').id")
    for side in ("celery", "celeriac"):
        error = town.client(side).error(id)
        assert (error.name, error.raised_args) == ("NotRegistered", ["shop.only_celeriac"])
