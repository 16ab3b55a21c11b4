"""Settling with two stores: the order that loses nothing, and what repeating it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac import states
from celeriac.drivers import open_broker, open_results
from celeriac.drivers.memory import forget
from celeriac.exceptions import OperationalError
from celeriac.message import Delivery, Owner, Settled, Settlement, TaskRecord, Worker
from celeriac.settling import Settling
from celeriac.testing.samples import arrival, bury, defer, done, ids, join, message, record

OWNER = Owner("w1", 1, 1)
SETTLED = Settled.SETTLED


class Stage:
    """A broker and a result backend that are two stores, and what was sent, in order."""

    def __init__(self) -> None:
        self.broker: Any = open_broker("memory://settling-broker")
        self.results: Any = open_results("memory://settling-results")
        self.broker.open()
        self.results.open()
        self.broker.register(Worker(lease="w1", ttl=60.0))
        self.followed: list[tuple[str, str]] = []
        self.settling = Settling(self.broker, self.results, self.complete, self.follow)

    def follow(self, delivery: Delivery, stands: TaskRecord) -> Settlement:
        self.followed.append((delivery.message.id, stands.state))
        return done(delivery, messages=(message(f"after-{stands.state}"),))

    def complete(self, settlement: Settlement, completes: Any) -> Settlement:
        values = b",".join(part.value for part in completes.parts)
        body = message(f"body-{completes.join}", body=b"[" + values + b"]")
        tokens = {**settlement.tokens, completes.join: completes.token}
        return done(
            settlement.delivery,
            messages=(*settlement.messages, body),
            arrivals=settlement.arrivals,
            tokens=tokens,
        )

    def deliver(self, *names: str) -> list[Delivery]:
        self.broker.publish([message(name) for name in names])
        return self.claim()

    def claim(self) -> list[Delivery]:
        return list(self.broker.claim(OWNER, ["celery"], 100))


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    assert not made.settling.whole
    yield made
    for url in ("memory://settling-broker", "memory://settling-results"):
        forget(url)


def test_record_follow_ups_and_verdict(stage: Stage) -> None:
    [delivery] = stage.deliver("a")
    settlement = done(delivery, records=(record("a"),), messages=(message("next"),))
    assert stage.settling.settle([settlement]) == [SETTLED]
    assert stage.results.get(["a"]) == [record("a")]
    [following] = stage.claim()
    assert following.message.id == "next"
    assert following.message.dedupe_key == "run-of-a/next"


def test_nothing_follows_a_refused_record(stage: Stage) -> None:
    """Promise 3: what another sending of the id has stored stands, and we send nothing."""
    stage.results.put([record("a", run="another")])
    [delivery] = stage.deliver("a")
    late = record("a", states.FAILURE)
    others = (late, record("step", states.FAILURE))
    settlement = done(delivery, records=others, messages=(message("next"),))
    assert stage.settling.settle([settlement]) == [SETTLED]
    assert stage.results.get(["a", "step"]) == [record("a", run="another"), None]
    assert stage.claim() == []


def test_follow_ups_of_the_record_that_stands(stage: Stage) -> None:
    """Of the same run another outcome stands: what follows is what that one calls for."""
    stage.results.put([record("a", payload=b"first")])
    [delivery] = stage.deliver("a")
    second = record("a", states.FAILURE, payload=b"second")
    settlement = done(delivery, records=(second,), messages=(message("errback"),))
    assert stage.settling.settle([settlement]) == [SETTLED]
    assert stage.followed == [("a", states.SUCCESS)]
    assert ids(stage.claim()) == ["after-SUCCESS"]


def test_a_retry_of_what_has_ended_is_not_sent(stage: Stage) -> None:
    stage.results.put([record("a")])
    [delivery] = stage.deliver("a")
    again = done(delivery, records=(record("a", states.RETRY),), messages=(message("a"),))
    assert stage.settling.settle([again]) == [SETTLED]
    assert ids(stage.claim()) == ["after-SUCCESS"]


def test_a_retry_carries_no_key(stage: Stage) -> None:
    for _ in range(3):
        [delivery] = stage.deliver("a") if not stage.followed else stage.claim()
        again = done(delivery, records=(record("a", states.RETRY),), messages=(message("a"),))
        stage.settling.settle([again])
        [delivery] = stage.claim()
        assert (delivery.message.id, delivery.message.dedupe_key) == ("a", None)
        stage.settling.settle([done(delivery)])


def test_buried_only_for_the_failure_that_stands(stage: Stage) -> None:
    stage.results.put([record("fine"), record("broken", states.FAILURE, payload=b"first")])
    for delivery in stage.deliver("fine", "broken"):
        failed = record(delivery.message.id, states.FAILURE)
        stage.settling.settle([bury(delivery, "died", records=(failed,))])
    admin = __import__("celeriac.drivers", fromlist=["admin_of"]).admin_of(stage.broker)
    found = {one.message.id: one.state.value for one in admin.find(["fine", "broken"])}
    assert found == {"broken": "dead"}


def test_repeating_is_harmless(stage: Stage) -> None:
    """The broker fails after the records were put: the same call again does all of it once."""
    [delivery] = stage.deliver("a")
    settlement = done(delivery, records=(record("a"),), messages=(message("next"),))
    settle = stage.broker.settle

    def fail(_: Any) -> Any:
        raise OperationalError("away")

    stage.broker.settle = fail
    with pytest.raises(OperationalError):
        stage.settling.settle([settlement])
    stage.broker.settle = settle
    assert stage.settling.settle([settlement]) == [SETTLED]
    assert stage.followed == []
    assert ids(stage.claim()) == ["next"]


def test_join_over_two_stores(stage: Stage) -> None:
    """The last part sends the body, with all values, and closes the join after it."""
    stage.results.open_joins([join(size=2)])
    parts = stage.deliver("p0", "p1")
    for index, delivery in enumerate(parts):
        one = done(delivery, records=(record(f"p{index}"),), arrivals=(arrival(index),))
        assert stage.settling.settle([one]) == [SETTLED]
    [body] = stage.claim()
    assert body.message.id == "body-join"
    assert body.message.body == b'[{"part":0},{"part":1}]'
    assert body.message.dedupe_key == "join/body-join"
    assert stage.results.arrive([arrival(1)]) == [None]


def test_join_is_completed_again_after_a_kill(stage: Stage) -> None:
    """Killed between sending the body and closing the join: the part that comes again completes
    it again, under the same key, which is dropped."""
    stage.results.open_joins([join(size=1)])
    [delivery] = stage.deliver("p0")
    one = done(delivery, records=(record("p0"),), arrivals=(arrival(0),))
    arrive = stage.results.arrive

    def killed(arrivals: Any, tokens: Any = None) -> Any:
        if tokens:
            raise OperationalError("killed")
        return arrive(arrivals, tokens)

    stage.results.arrive = killed
    with pytest.raises(OperationalError):
        stage.settling.settle([one])
    stage.results.arrive = arrive
    assert stage.settling.settle([one]) == [SETTLED]
    assert ids(stage.claim()) == ["body-join"]


def test_bare_verdicts_pass_through(stage: Stage) -> None:
    [delivery] = stage.deliver("a")
    later = time.time() + 60
    assert stage.settling.settle([defer(delivery, later, note="rate")]) == [SETTLED]
    assert stage.claim() == []
