"""Celery and Celeriac on one RabbitMQ: queues, messages and replies are shared (wire-format.md 1,
3, 4.3)."""

from __future__ import annotations

import datetime
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.drivers import redis_stage
from tests.drivers.rabbitmq_stage import shared_server
from tests.interop.conftest import QUEUE
from tests.interop.parties import OTHER, SIDES, Client, Place, require_celery, until

from celeriac.drivers.rabbitmq.connection import Connection
from celeriac.drivers.rabbitmq.topology import CELERY_DELAYED, Topology
from celeriac.drivers.rabbitmq.urls import read_options
from celeriac.message import MessageState

KINDS = ("classic", "quorum")
FULL = os.environ.get("CELERIAC_FAULTS") == "full"


def new_place(folder: Path, results: str = "rpc://", **conf: Any) -> Place:
    require_celery()
    conf.setdefault("broker_native_delayed_delivery_queue_type", "classic")
    return Place(folder, shared_server().new_vhost(), results, **conf)


@pytest.fixture(scope="module", params=KINDS if FULL else KINDS[:1])
def town(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Two workers: Celery's on the queue ``old``, ours on ``new``. Results are replies. ``make
    test`` has quorum queues only where both sides share one (below)."""
    place = new_place(
        tmp_path_factory.mktemp("town"),
        task_default_queue_type=request.param,
        unknown_task_wait=1.0,
    )
    try:
        place.wait_ready(
            place.start("celery", "-c", "2", "-Q", "old", "-n", "old@%h"),
            place.start("celeriac", "-c", "2", "-Q", "new", "-n", "new@%h"),
        )
        yield place
    finally:
        place.end()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(results: str = "rpc://", **conf: Any) -> Place:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(new_place(folder, results, **conf))
        return made[-1]

    yield make
    for one in made:
        one.end()


class Way(NamedTuple):
    """From a client of one side to a worker of the other; replies are the client's alone."""

    town: Place
    client: Client
    queue: str
    side: str

    def send(self, name: str, *args: Any, **options: Any) -> str:
        return self.client.send(name, *args, queue=self.queue, **options)

    def run(self, name: str, *args: Any, **options: Any) -> Any:
        return self.client.get(self.send(name, *args, **options))


@pytest.fixture(params=SIDES)
def way(request: pytest.FixtureRequest, town: Place) -> Way:
    side = OTHER[request.param]
    return Way(town, town.client(request.param), QUEUE[side], side)


# --- messages and replies


def test_what_a_message_carries(way: Way) -> None:
    id = str(uuid.uuid4())
    told = way.run("tell", 1, task_id=id, headers={"colour": "red"}, shadow="other", expires=60)
    assert (told["id"], told["root_id"], told["args"], told["retries"]) == (id, id, [1], 0)
    assert (told["side"], told["colour"], told["shadow"]) == (way.side, "red", "other")
    assert told["correlation_id"] == id
    assert told["reply_to"]
    assert told["delivery_info"]["routing_key"] == way.queue
    assert not told["delivery_info"]["redelivered"]


def test_types(way: Way) -> None:
    moment = datetime.datetime.now(UTC)
    told = way.run("kinds", moment, b"\x00\xff", uuid.uuid4(), {"a": 1}, 1.5, None, "ß☃")
    assert told == ["datetime", "bytes", "UUID", "dict", "float", "NoneType", "str"]
    assert way.run("echo", "x" * 300_000)["args"] == ["x" * 300_000]


def test_errors(way: Way) -> None:
    error = way.client.error(way.send("fail", "custom"))
    assert (error.name, error.raised_args) == ("OutOfStock", ["tea", 3])
    assert way.client.error(way.send("unwritable")).name == "EncodeError"


def test_states(way: Way) -> None:
    """Seen by a new client: one of Celery's that has waited for a result looks no more."""
    client, marker = way.town.new_client(way.client.side), way.town.file()
    id = client.send("progress", str(marker), queue=way.queue)
    until(lambda: client.state(id) == "PROGRESS", "the custom state")
    marker.touch()
    assert client.get(id) == "ended"


def test_retries_on_both_sides(way: Way) -> None:
    """Whoever ends it, the reply goes to whoever sent it."""
    there = ["old", "new"] if way.queue == "new" else ["new", "old"]
    id = way.send("insist", 5, there)
    side, own, retries, root, *_ = way.client.get(id)
    assert (side != way.side, own, retries, root) == (True, id, 5, id)
    assert [line[2] for line in way.town.notes("try", id)] == list(range(6))


def test_chain_and_group(way: Way) -> None:
    chain = "chain(add.s(1, 2).set(queue=qs[0]), *(add.s(3).set(queue=q) for q in qs[1:])).delay()"
    for queues in (["old", "new", "old"], ["new", "old", "new"]):
        assert way.client(f"{chain}.get(timeout=20)", qs=queues) == 9
    group = "group(add.s(n, n).set(queue=q) for n in range(4) for q in ('old', 'new'))"
    assert way.client(f"{group}.delay().get(timeout=20)") == [0, 0, 2, 2, 4, 4, 6, 6]


def test_links(way: Way) -> None:
    """Callbacks and errbacks run on either side."""
    key = str(uuid.uuid4())
    other = "old" if way.queue == "new" else "new"
    send = (
        "[echo.apply_async((key,), queue=queue, link=follow.si(key).set(queue=other)).id,"
        " fail.apply_async(('plain',), queue=queue, link_error=errback.s().set(queue=other)).id]"
    )
    _, failed = way.client(send, key=key, queue=way.queue, other=other)
    way.town.until_noted(1, "follow", key)
    way.town.until_noted(1, "errback", failed)


def test_members_of_a_chain_never_get_the_expiration_property(way: Way) -> None:
    """One that expires in the middle is told, not dropped by the server."""
    chain = (
        "chain(add.s(1, 2).set(queue=queue), add.s(3).set(queue=queue, expires=expires))"
        ".apply_async()"
    )
    past = datetime.datetime.now(UTC) - datetime.timedelta(seconds=5)
    id = way.client(f"{chain}.id", queue="new", expires=past)
    error = way.client.error(id)
    assert (error.name, error.raised_args) == ("TaskRevokedError", ["expired"])


# --- time


def test_countdown_and_expires(way: Way) -> None:
    sent = time.time()
    told = way.run("tell", countdown=1.0)
    ran = time.time()
    eta = datetime.datetime.fromisoformat(told["eta"]).timestamp()
    assert sent + 0.9 < eta <= ran < eta + 3.0
    error = way.client.error(way.send("count", "late", expires=0.3, countdown=0.8))
    assert (error.name, error.raised_args) == ("TaskRevokedError", ["expired"])


def test_an_eta_of_a_celery_client_waits_in_the_broker(town: Place) -> None:
    """Our worker parks it, and ends at once with nothing of it in its hands."""
    client = town.client("celery")
    due = time.time() + 4.0
    id = client.send("count", "parked", queue="waiting", countdown=4.0)
    ours = town.start("celeriac", "-P", "solo", "-Q", "waiting", "-n", "waiting@%h")
    town.wait_ready(ours)
    look = "sum(q.waiting for q in app.admin().queues() if q.name == 'waiting')"
    depth = town.client("celeriac")
    depth("app.send_task('shop.count', ('after',), queue='waiting').id")
    town.until_noted(1, "count", "after")
    assert depth(look) == 0
    town.kill(ours)
    assert time.time() < due
    town.wait_ready(town.start("celeriac", "-P", "solo", "-Q", "waiting", "-n", "waiting@%h"))
    assert client.get(id) == "parked"
    assert time.time() >= due
    assert len(town.notes("count", "parked")) == 1


@pytest.mark.parametrize("sender", SIDES)
def test_native_delays_of_a_topic(place: Callable[..., Place], sender: str) -> None:
    """Behind a topic exchange both sides use Celery's own chain of delays, and each runs what the
    other has delayed."""
    town = place(
        task_default_queue_type="quorum",
        task_default_exchange_type="topic",
        task_default_exchange="tasks",
        task_create_missing_queues=True,
        task_default_queue="shared",
        task_default_routing_key="shared",
    )
    worker = town.start(OTHER[sender], "-c", "1")
    town.wait_ready(worker)
    client = town.client(sender)
    sent = time.time()
    id = client.send("tell", countdown=2.5)
    assert _waiting(town.url, [f"{CELERY_DELAYED}_{level}" for level in range(3)]) == 1
    told = client.get(id)
    assert told["side"] == OTHER[sender]
    assert time.time() >= sent + 2.4


def _waiting(url: str, queues: list[str]) -> int:
    connection = Connection(read_options(url, {}), "looking")
    depths = [Topology(connection, None, "classic").depth(queue) for queue in queues]
    connection.close()
    return sum(depth[0] for depth in depths if depth)


@pytest.mark.parametrize("sender", SIDES)
def test_a_broadcast(place: Callable[..., Place], sender: str) -> None:
    """Every worker of both sides runs it once, however late."""
    town = place(broadcast="news")
    hosts = {f"{side}{number}@here" for side in SIDES for number in (1, 2)}
    town.wait_ready(
        *(
            town.start(side, "-c", "2", "-Q", "news", "-n", f"{side}{number}@here")
            for side in SIDES
            for number in (1, 2)
        )
    )
    for word, options in (("now", {}), ("later", {"countdown": 1.5})):
        town.client(sender).send("shout", word, queue="news", **options)
        town.until_noted(4, "shout", word)
    town.client(sender).send("shout", "last", queue="news")
    town.until_noted(4, "shout", "last")
    for word in ("now", "later", "last"):
        assert sorted(note[2] for note in town.notes("shout", word)) == sorted(hosts)


# --- one queue for both


@pytest.mark.parametrize("kind", KINDS)
def test_both_on_one_queue(place: Callable[..., Place], kind: str) -> None:
    """Each task runs once, each client has the replies to what it has sent."""
    town = place(task_default_queue_type=kind, worker_prefetch_multiplier=4)
    started = [town.start(side, "-c", "2", "-Q", "mixed", "-n", f"{side}@%h") for side in SIDES]
    clients = [town.client(side) for side in SIDES]
    town.wait_ready(*started)
    send = "[count.apply_async((n,), queue='mixed').id for n in numbers]"
    get = "[one.get(timeout=60) for one in map(result_of, ids)]"
    for turn in range(4):
        for number, client in enumerate(clients):
            first = 200 * turn + 100 * number
            ids = client(send, numbers=list(range(first, first + 100)))
            if turn == 3:
                assert client(get, ids=ids) == list(range(first, first + 100))
    town.until_noted(800, "count")
    assert Counter(note[1] for note in town.notes("count")) == Counter(range(800))
    shares = [len(town.notes(side, "count")) for side in SIDES]
    assert min(shares) > 0, shares


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", SIDES)
def test_the_others_worker_goes_on(place: Callable[..., Place], side: str, kind: str) -> None:
    """What a killed worker held runs on the other side, which is told so."""
    town = place(task_default_queue_type=kind)
    client, marker = town.client(side), town.file()
    dying = town.start(side, "-c", "1", "-Q", "mixed", "-n", "dying@%h")
    town.wait_ready(dying)
    id = client.send("hold_late", "held", str(marker), queue="mixed")
    town.until_noted(1, "start", "held")
    town.kill(dying)
    marker.touch()
    town.wait_ready(town.start(OTHER[side], "-P", "solo", "-Q", "mixed", "-n", "heir@%h"))
    assert client.get(id) == ["held", True]
    assert [note[3] for note in town.notes(OTHER[side], "start", "held")] == [True]


def test_a_runner_dies(town: Place) -> None:
    """Another process has the message at once."""
    client, marker, key = town.client("celery"), town.file(), str(uuid.uuid4())
    id = client.send("hold_late", key, str(marker), queue="new")
    town.until_noted(1, "start", key)
    os.kill(town.notes("start", key)[0][3], signal.SIGKILL)
    town.until_noted(2, "start", key)
    marker.touch()
    assert client.get(id) == [key, True]


@pytest.mark.parametrize("side", SIDES)
def test_priorities(place: Callable[..., Place], side: str) -> None:
    """9 goes first, whoever sends and whoever runs."""
    town = place(task_queue_max_priority=9, task_default_queue="line")
    for priority in (1, 9, 5):
        for sender in SIDES:
            town.client(sender).send("count", f"{priority} {sender}", priority=priority)
    town.wait_ready(town.start(side, "-P", "solo"))
    town.until_noted(6, "count")
    assert [note[1][0] for note in town.notes("count")] == ["9", "9", "5", "5", "1", "1"]


def test_a_chord_with_results_in_redis(place: Callable[..., Place]) -> None:
    """Messages here, results there: parts on both sides meet once."""
    server = redis_stage.shared_server()
    town = place(f"redis://127.0.0.1:{server.port}/15")
    town.wait_ready(
        town.start("celery", "-c", "1", "-Q", "old", "-n", "old@%h"),
        town.start("celeriac", "-c", "1", "-Q", "new", "-n", "new@%h"),
    )
    parts = "[add.s(n, n).set(queue=q) for n in range(5) for q in ('old', 'new')]"
    for side in SIDES:
        for queue in QUEUE.values():
            whole = f"chord({parts}, total.s().set(queue=queue)).delay().get(timeout=20)"
            assert town.client(side)(whole, queue=queue) == 40


# --- what we keep


def test_reject_and_unknown_tasks(town: Place) -> None:
    """The sender is told, and we keep the message."""
    client = town.client("celery")
    rejected = client.send("rejected", queue="new")
    assert client.error(rejected).name == "Reject"
    unknown = client("app.send_task('shop.nobody_knows', queue='new').id")
    assert client.error(unknown).name == "NotRegistered"
    dead = "[one.message.id for one in app.admin().peek('new', state)]"
    kept = town.client("celeriac")(dead, state=MessageState.DEAD)
    assert {rejected, unknown} <= set(kept)


def test_revoked_by_our_client(town: Place) -> None:
    """Our worker refuses what a Celery client sends under a cancelled id."""
    id = str(uuid.uuid4())
    town.client("celeriac")("app.control.revoke(id)", id=id)
    client = town.client("celery")
    client.send("count", "never", queue="new", task_id=id)
    assert client.error(id).name == "TaskRevokedError"
    assert town.notes("count", "never") == []
