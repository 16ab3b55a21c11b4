"""Messages that wait: eta, countdown, expires."""

from __future__ import annotations

import datetime
import time
import uuid
from collections.abc import Callable
from datetime import UTC, timedelta, timezone

from tests.interop.conftest import Way
from tests.interop.parties import SIDES, Scene, until

from celeriac.message import MessageState


def test_countdown(way: Way) -> None:
    sent = time.time()
    told = way.run("tell", countdown=0.7)
    ran = time.time()
    eta = datetime.datetime.fromisoformat(told["eta"])
    assert eta.utcoffset() == timedelta(0)
    assert 0.6 < eta.timestamp() - sent < 1.5
    assert eta.timestamp() <= ran < eta.timestamp() + 3.0


def test_eta_with_an_offset(way: Way) -> None:
    eta = datetime.datetime.now(timezone(timedelta(hours=-7))) + timedelta(seconds=0.5)
    told = way.run("tell", eta=eta)
    assert datetime.datetime.fromisoformat(told["eta"]) == eta
    assert time.time() >= eta.timestamp()


def test_eta_in_the_past(way: Way) -> None:
    assert way.run("add", 1, 2, eta=datetime.datetime.now(UTC) - timedelta(hours=1)) == 3


def test_many_etas_run_in_time_and_once(way: Way) -> None:
    keys = [f"{way.queue} {uuid.uuid4()} {number}" for number in range(20)]
    ids = [way.send("count", key, countdown=0.1 * (number % 5)) for number, key in enumerate(keys)]
    assert [way.client.get(id) for id in ids] == keys
    assert all(len(way.town.notes("count", key)) == 1 for key in keys)


def _delayed(town: Scene, queue: str) -> list[int]:
    """Waiting, delayed and in flight, as our own tools see them."""
    return list(
        town.client("celeriac")(
            "next(([q.waiting, q.delayed, q.in_flight] for q in app.admin().queues()"
            " if q.name == queue), [0, 0, 0])",
            queue=queue,
        )
    )


def test_a_celery_clients_eta_waits_in_the_broker(scene: Callable[..., Scene]) -> None:
    """Our worker parks it; killed meanwhile, the next one runs it when it is due."""
    town = scene(worker_lease=2.0)
    worker = town.start("celeriac", "-c", "1", "-Q", "new")
    client = town.client("celery")
    town.wait_ready(worker)
    due = time.time() + 4.0
    eta = datetime.datetime.fromtimestamp(due, UTC)
    parked = client.send("count", "parked", queue="new", eta=eta)
    far = client.send("count", "far", queue="new", countdown=3600)
    until(lambda: _delayed(town, "new") == [0, 2, 0], "both to be parked")
    assert town.wire("LLEN", "new") == 0
    assert client.get(client.send("add", 1, 2, queue="new")) == 3
    town.kill(worker)
    assert _delayed(town, "new") == [0, 2, 0]
    assert time.time() < due
    town.wait_ready(town.start("celeriac", "-c", "1", "-Q", "new"))
    assert client.get(parked) == "parked"
    assert due <= time.time() < due + 5.0
    assert town.notes("count", "parked") == [["count", "parked"]]
    assert client.state(far) == "PENDING"
    assert _delayed(town, "new") == [0, 1, 0]


def test_what_we_parked_can_be_taken_by_a_celery_worker(scene: Callable[..., Scene]) -> None:
    """Our worker parks a message on a queue that both consume; then only Celery's is left."""
    town = scene()
    ours = town.start("celeriac", "-P", "solo", "-Q", "mixed")
    ids = {
        side: town.client(side).send("tell", queue="mixed", countdown=3600)
        for side in ("celery", "celeriac")
    }
    town.wait_ready(ours)
    until(lambda: _delayed(town, "mixed") == [0, 2, 0], "both to be parked")
    due = [
        town.client(side).send("tell", queue="mixed", countdown=1.0)
        for side in ("celery", "celeriac")
    ]
    until(lambda: _delayed(town, "mixed") == [0, 4, 0], "all to be parked")
    theirs = town.start("celery", "-P", "solo", "-Q", "mixed")
    town.wait_ready(theirs)
    for id in due:
        told = town.client("celery").get(id)
        assert told["eta"] is not None
    assert all(town.client("celeriac").state(id) == "PENDING" for id in ids.values())


def test_looking_does_not_take_from_celery(scene: Callable[..., Scene]) -> None:
    """Where only Celery's workers are, our tools leave messages with an eta where these look."""
    town = scene()
    ids = [
        town.client(side).send("tell", queue="theirs", countdown=countdown)
        for side in SIDES
        for countdown in (0.5, 3600)
    ]
    look = (
        "[app.admin().queues(), app.admin().find(ids),"
        " app.admin().peek('theirs', waiting), app.admin().peek('theirs', delayed)] and 0"
    )
    town.client("celeriac")(
        look, ids=ids, waiting=MessageState.WAITING, delayed=MessageState.DELAYED
    )
    assert town.wire("LLEN", "theirs") == 4
    town.wait_ready(town.start("celery", "-P", "solo", "-Q", "theirs"))
    for id in ids[::2]:
        assert town.client("celery").get(id)["side"] == "celery"


def test_our_eta_is_taken_by_a_celery_worker(town: Scene) -> None:
    """Whoever sends it, it lies in Celery's list until a worker takes it."""
    client = town.client("celeriac")
    id = client.send("tell", queue="waiting-room", countdown=0.4)
    assert town.wire("LLEN", "waiting-room") == 1
    (envelope,) = town.envelopes("waiting-room")
    assert envelope["headers"]["eta"].endswith("+00:00")
    town.wire("RENAME", "waiting-room", "old")
    told = client.get(id)
    assert told["side"] == "celery"
    assert time.time() >= datetime.datetime.fromisoformat(told["eta"]).timestamp()


def test_expired_is_revoked(way: Way) -> None:
    for options in (
        {"expires": datetime.datetime.now(UTC) - timedelta(seconds=10)},
        {"expires": 0.3, "countdown": 0.6},
    ):
        key = str(uuid.uuid4())
        id = way.send("count", key, **options)
        for client in (way.client, way.other):
            error = client.error(id)
            assert (error.name, error.raised_args) == ("TaskRevokedError", ["expired"])
            assert client.state(id) == "REVOKED"
        assert way.town.notes("count", key) == []


def test_expiring_later(way: Way) -> None:
    told = way.run("tell", expires=30, countdown=0.2)
    eta, expires = (datetime.datetime.fromisoformat(told[name]) for name in ("eta", "expires"))
    assert timedelta(seconds=28) < expires - eta < timedelta(seconds=31)
