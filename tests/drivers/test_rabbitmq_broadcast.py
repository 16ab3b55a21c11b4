"""Broadcasts on RabbitMQ: every worker gets a copy, in a queue of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from tests.drivers.rabbitmq_stage import shared_server
from tests.drivers.test_rabbitmq_own import cut

from celeriac.drivers import admin_of, open_broker
from celeriac.drivers.rabbitmq.broker import RabbitBroker
from celeriac.message import Delivery, Message, MessageState, Owner, Settlement, Worker
from celeriac.routing import queues as routing
from celeriac.routing.queues import Broadcast, Queue
from celeriac.testing.samples import bury, defer, done, ids, message, release

NEWS = "news"


class Member:
    """A process of a worker."""

    def __init__(self, broker: RabbitBroker, lease: str, slot: int = 1) -> None:
        self.broker = broker
        self.owner = Owner(lease, slot, 1)
        broker.open()
        broker.register(Worker(lease=lease, ttl=5.0, queues=("celery", NEWS)))

    def claim(self, limit: int = 10, wait: float = 5.0) -> list[Delivery]:
        return self.broker.claim(self.owner, ["celery", NEWS], limit, wait=wait)

    def own_queue(self) -> str:
        return Broadcast(NEWS).own(self.owner.lease).name

    def depth(self, queue: str) -> Any:
        with self.broker.using() as line:
            return line.topology.depth(queue)


class World:
    def __init__(self, arguments: dict[str, Any] | None) -> None:
        self.url = shared_server().new_vhost()
        self.news = Broadcast(NEWS, queue_arguments=arguments)
        self.members: list[Member] = []

    def broker(self, **options: Any) -> RabbitBroker:
        queues = {"celery": Queue("celery"), NEWS: self.news}
        broker = open_broker(
            self.url, {"delayed_queue_type": "classic", "queues": queues, **options}
        )
        assert isinstance(broker, RabbitBroker)
        return broker

    def member(self, lease: str, slot: int = 1, **options: Any) -> Member:
        self.members.append(Member(self.broker(**options), lease, slot))
        return self.members[-1]


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(getattr(request, "param", None))
    yield made
    for member in made.members:
        member.broker.close()


quorum_too = pytest.mark.parametrize(
    "world", [None, {"x-queue-type": "quorum"}], ids=["classic", "quorum"], indirect=True
)


def news(name: str, **fields: Any) -> Message:
    return message(name, queue=NEWS, exchange=NEWS, **fields)


@quorum_too
def test_every_worker_gets_a_copy(world: World) -> None:
    one, two = world.member("w1"), world.member("w2")
    one.broker.publish([news("a"), message("b"), news("c")])
    for member in (one, two):
        got = [d for d in member.claim() + member.claim(wait=0.0) if d.message.queue == NEWS]
        assert ids(got) == ["a", "c"]
        assert [d.message.exchange for d in got] == [NEWS, NEWS]
        member.broker.settle([done(d) for d in got])
    assert one.depth(one.own_queue())[0] == 0


def test_processes_of_a_worker_share_its_copy(world: World) -> None:
    one, other = world.member("w1", 1), world.member("w1", 2)
    one.broker.publish([news("a"), news("b")])
    first = one.claim(1)
    assert sorted(ids(first + other.claim())) == ["a", "b"]
    assert one.claim(wait=0.1) == []


def test_nobody_is_there(world: World) -> None:
    """Then it is for nobody: no error, and nothing that waits."""
    broker = world.broker()
    broker.open()
    assert broker.publish([news("a")]) == 1
    assert broker.publish([news("b", due_at=time.time() + 0.1)]) == 1
    broker.close()
    one = world.member("w1")
    time.sleep(0.3)
    one.broker.publish([news("c")])
    assert "a" not in ids(one.claim())


def test_delayed(world: World) -> None:
    one, two = world.member("w1"), world.member("w2")
    due = time.time() + 0.5
    one.broker.publish([news("a", due_at=due)])
    for member in (one, two):
        [delivery] = member.claim()
        assert time.time() >= due - 0.01
        assert (delivery.message.queue, delivery.message.exchange) == (NEWS, NEWS)


@pytest.mark.parametrize("delay", [None, 0.2])
def test_what_comes_back_is_for_the_same_worker(world: World, delay: float | None) -> None:
    """Retries, deferrals and releases are of one copy; the run of each is its own."""
    one, two = world.member("w1"), world.member("w2")
    one.broker.publish([news("a")])
    [delivery], [other] = one.claim(), two.claim()
    assert delivery.message.run != other.message.run
    two.broker.settle([done(other)])
    due_at = None if delay is None else time.time() + delay
    ways: list[Callable[[Delivery], Settlement]] = [
        lambda d: done(d, messages=(replace(d.message, due_at=due_at),)),
        lambda d: defer(d, due_at),
        release,
    ]
    for way in ways:
        one.broker.settle([way(delivery)])
        [again] = one.claim()
        assert again.message.run == delivery.message.run
        assert (again.message.queue, again.message.exchange) == (NEWS, NEWS)
        delivery = again
    assert two.claim(wait=0.3) == []
    one.broker.settle([done(delivery)])


@pytest.mark.parametrize("begun", [False, True])
def test_losses_are_counted(world: World, begun: bool) -> None:
    one = world.member("w1")
    two = world.member("w2")
    one.broker.publish([news("a")])
    [delivery] = one.claim()
    if begun:
        assert one.broker.begin([delivery]) == []
    cut(one.broker)
    again = world.member("w1", 2)
    [found] = again.claim()
    assert (found.lost, found.begun) == ((0, True) if begun else (1, False))
    assert found.redelivered or begun
    assert found.message.run == delivery.message.run
    assert ids(two.claim()) == ["a"]


def test_dead_letters(world: World) -> None:
    """They are under the name that the application knows, and go to all again."""
    one, two = world.member("w1"), world.member("w2")
    one.broker.publish([news("a")])
    one.broker.settle([bury(d, "it is poison") for d in one.claim()])
    two.broker.settle([done(d) for d in two.claim()])
    admin = admin_of(world.member("operator").broker)
    [peeked] = admin.peek(NEWS, MessageState.DEAD)
    assert (peeked.message.queue, peeked.reason) == (NEWS, "it is poison")
    assert admin.revive(["a"]) == 1
    assert ids(one.claim()) == ids(two.claim()) == ["a"]


def test_the_queue_goes_with_its_worker(world: World) -> None:
    one, two = world.member("w1"), world.member("w2")
    assert two.depth(one.own_queue()) is not None
    one.broker.unregister("w1")
    assert two.depth(one.own_queue()) is None
    assert two.depth(two.own_queue()) is not None


def test_the_queue_of_a_busy_worker_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody consumes while every process is busy: its heartbeats keep the queue."""
    monkeypatch.setattr(routing, "OWN_KEPT", 1.0)
    monkeypatch.setattr(routing, "_OWN_KEPT_LEAST", 1.0)
    busy, dead = world.member("w1"), world.member("w2")
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        time.sleep(0.2)
        busy.broker.heartbeat("w1")
    assert busy.depth(busy.own_queue()) is not None
    assert busy.depth(dead.own_queue()) is None
    busy.broker.publish([news("a")])
    assert ids(busy.claim()) == ["a"]


def test_a_deleted_queue_is_made_again(world: World) -> None:
    one, two = world.member("w1"), world.member("w2")
    with two.broker.using() as line:
        line.topology.delete_queue(one.own_queue())
    one.broker.heartbeat("w1")
    one.broker.publish([news("a")])
    assert ids(one.claim()) == ["a"]
