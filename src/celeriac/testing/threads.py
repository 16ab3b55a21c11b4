"""Many threads and connections at once: every message once, and nobody in another's way."""

from __future__ import annotations

import threading
import time
from collections import Counter

from celeriac.message import Delivery, Owner, Settled
from celeriac.testing.harness import StoreUnderTest, Suite, assert_waiting, in_background
from celeriac.testing.samples import done, ids, message, messages

SETTLED = Settled.SETTLED


class ThreadTests(Suite):
    def test_threads_on_one_object(self, store: StoreUnderTest) -> None:
        """contracts: calls may be made from any thread, of one object: every message once."""
        self._hammer(store, own_connections=False)

    def test_threads_on_their_own_connections(self, store: StoreUnderTest) -> None:
        """claim takes: of workers that claim at once each message goes to one."""
        self._hammer(store, own_connections=True)

    def _hammer(self, store: StoreUnderTest, own_connections: bool) -> None:
        producers, each, consumers = 3, 60, 3
        store.worker("w1")
        seen: Counter[str] = Counter()
        lock = threading.Lock()
        expected = 2 * producers * each
        deadline = time.monotonic() + 60

        def produce(number: int) -> None:
            broker = store.connect().broker if own_connections else store.broker
            for index in range(0, each, 3):
                names = [f"m{number}-{index + step}" for step in range(3)]
                assert broker.publish(messages(*names)) == 3

        def settle(broker_of: int, deliveries: list[Delivery]) -> None:
            broker = brokers[broker_of]
            answers = broker.settle(
                [
                    done(d, messages=(message(f"next-{d.message.id}"),))
                    if not d.message.id.startswith("next-")
                    else done(d)
                    for d in deliveries
                ]
            )
            assert answers == [SETTLED] * len(deliveries)

        def consume(number: int) -> None:
            owner = Owner("w1", number, 1)
            while time.monotonic() < deadline:
                deliveries = brokers[number].claim(owner, ["celery"], 7, wait=0.05)
                settle(number, deliveries)
                with lock:
                    seen.update(ids(deliveries))
                    if sum(seen.values()) >= expected:
                        return

        brokers = [
            store.connect().broker if own_connections else store.broker for _ in range(consumers)
        ]
        calls = [in_background(consume, n) for n in range(consumers)]
        calls += [in_background(produce, n) for n in range(producers)]
        for call in calls:
            call.result(70)
        assert len(seen) == expected
        assert set(seen.values()) == {1}
        assert store.claim(store.worker("w2")) == []

    def test_waiting_blocks_no_other(self, store: StoreUnderTest) -> None:
        """contracts: a call that waits blocks no other."""
        owner = store.worker()
        claims = [in_background(lambda: store.claim(owner, 1, wait=20)) for _ in range(4)]
        begun = time.monotonic()
        store.publish(message("x", queue="elsewhere"))
        assert store.broker.heartbeat("w1").alive
        [delivery] = store.claim(owner, 10, "elsewhere")
        assert store.broker.settle([done(delivery)]) == [SETTLED]
        assert time.monotonic() - begun < store.wake_within
        store.publish(*messages("a", "b", "c", "d"))
        assert sorted(id for claim in claims for id in ids(claim.result(20))) == [
            "a",
            "b",
            "c",
            "d",
        ]
        assert time.monotonic() - begun < 4 * store.wake_within

    def test_close_wakes_everybody(self, store: StoreUnderTest) -> None:
        """close: all waiting calls return."""
        owner, broker = store.worker(), store.connect().broker
        claims = [in_background(lambda: broker.claim(owner, ["q"], 1, wait=20)) for _ in range(3)]
        for claim in claims:
            assert_waiting(claim, 0.1)
        begun = time.monotonic()
        broker.close()
        assert [claim.result(20) for claim in claims] == [[], [], []]
        assert time.monotonic() - begun < store.wake_within
