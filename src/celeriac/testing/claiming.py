"""Claiming: which messages, in which order, how many, and how long a claim waits."""

from __future__ import annotations

import time

import pytest

from celeriac.exceptions import LeaseLost
from celeriac.message import Owner
from celeriac.testing.harness import StoreUnderTest, Suite, assert_waiting, in_background
from celeriac.testing.samples import ids, message, messages, release


class ClaimTests(Suite):
    def test_delivery_as_first_claimed(self, store: StoreUnderTest) -> None:
        """Delivery: a message as claimed, by this owner, never lost, deferred or begun."""
        owner = store.worker()
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        assert delivery.owner == owner
        assert delivery.lost == 0
        assert delivery.note == ""
        flags = (delivery.redelivered, delivery.cancelled, delivery.begun)
        assert flags == (False, False, False)

    def test_claimed_is_taken(self, store: StoreUnderTest) -> None:
        """claim: takes: nobody else gets it, nor the same owner again."""
        store.publish(message("a"))
        other = store.connect()
        assert ids(store.claim(store.worker())) == ["a"]
        assert store.claim(store.worker()) == []
        assert other.broker.claim(store.worker("w2"), ["celery"], 10) == []

    def test_limit(self, store: StoreUnderTest) -> None:
        """claim: up to ``limit`` messages, the oldest first."""
        owner = store.worker()
        store.publish(*messages("a", "b", "c", "d", "e"))
        assert ids(store.claim(owner, 2)) == ["a", "b"]
        assert ids(store.claim(owner, 1)) == ["c"]
        assert ids(store.claim(owner, 100)) == ["d", "e"]

    def test_queues_in_the_order_given(self, store: StoreUnderTest) -> None:
        """claim: queues in the order given, whatever is older or has the better priority."""
        owner = store.worker()
        best = store.capabilities.highest_priority
        store.publish(message("low", queue="low", priority=best))
        store.publish(message("high", queue="high"), message("other", queue="other"))
        assert ids(store.claim(owner, 10, "high", "low")) == ["high", "low"]
        assert store.claim(owner, 10, "nothing") == []
        assert ids(store.claim(owner, 10, "nothing", "other")) == ["other"]

    def test_best_priority_first(self, store: StoreUnderTest) -> None:
        """claim: in each queue the best priority, then the oldest first."""
        if not store.capabilities.priorities:
            pytest.skip("this broker has no priorities")
        best, middle, worst = (9, 6, 0) if store.capabilities.highest_priority == 9 else (0, 3, 9)
        owner = store.worker()
        store.publish(message("w1", priority=worst), message("m1", priority=middle))
        store.publish(message("b1", priority=best), message("w2", priority=worst))
        store.publish(message("b2", priority=best), message("m2", priority=middle))
        assert ids(store.claim(owner, 3)) == ["b1", "b2", "m1"]
        assert ids(store.claim(owner, 3)) == ["m2", "w1", "w2"]

    def test_due_one_takes_its_place_when_due(self, store: StoreUnderTest) -> None:
        """claim: a delayed message takes its place when it becomes due, as if published then."""
        owner = store.worker()
        store.publish(message("later", due_at=store.now() + 8))
        store.publish(message("sooner", due_at=store.now() + 4))
        store.publish(message("waiting"))
        store.advance(9)
        assert ids(store.claim(owner)) == ["waiting", "sooner", "later"]

    def test_due_one_is_not_overtaken_for_ever(self, store: StoreUnderTest) -> None:
        """claim: what is due goes before what is published after it was brought up."""
        owner = store.worker()
        store.publish(message("delayed", due_at=store.now() + 1), message("a"))
        store.advance(2)
        assert ids(store.claim(owner, 1)) == ["a"]
        store.publish(message("b"))
        assert ids(store.claim(owner, 10)) == ["delayed", "b"]

    # --- bytes

    def test_max_bytes(self, store: StoreUnderTest) -> None:
        """claim: no more bytes than max_bytes."""
        owner = store.worker()
        batch = messages("a", "b", "c", "d", headers=b"{}", body=b"x" * 98)
        store.publish(*batch)
        assert ids(store.claim(owner, 10, max_bytes=200)) == ["a", "b"]
        assert ids(store.claim(owner, 10, max_bytes=199)) == ["c"]
        assert ids(store.claim(owner, 10)) == ["d"]

    def test_at_least_one_however_large(self, store: StoreUnderTest) -> None:
        """claim: always at least one if there is one, however large; the order is kept."""
        owner = store.worker()
        store.publish(message("large", body=b"x" * 100_000), message("small", body=b"x"))
        assert ids(store.claim(owner, 10, max_bytes=1000)) == ["large"]
        assert ids(store.claim(owner, 10, max_bytes=1000)) == ["small"]

    def test_large_one_in_the_middle(self, store: StoreUnderTest) -> None:
        """claim: a message too large for the rest of a batch is not overtaken."""
        owner = store.worker()
        store.publish(message("a", body=b"x"), message("large", body=b"x" * 5000))
        store.publish(message("b", body=b"x"))
        assert ids(store.claim(owner, 10, max_bytes=2000)) == ["a"]
        assert ids(store.claim(owner, 10, max_bytes=2000)) == ["large"]
        assert ids(store.claim(owner, 10, max_bytes=2000)) == ["b"]

    def test_max_bytes_over_queues(self, store: StoreUnderTest) -> None:
        """claim: the bound is for the claim, not for each queue."""
        owner = store.worker()
        for queue in ("one", "two"):
            store.publish(message(queue, queue=queue, headers=b"{}", body=b"x" * 98))
        assert ids(store.claim(owner, 10, "one", "two", max_bytes=150)) == ["one"]
        assert ids(store.claim(owner, 10, "one", "two", max_bytes=150)) == ["two"]

    # --- waiting

    def test_wait_zero_returns_at_once(self, store: StoreUnderTest) -> None:
        """claim: without ``wait`` nothing is waited for."""
        owner = store.worker()
        begun = time.monotonic()
        assert store.claim(owner) == []
        assert time.monotonic() - begun < store.wake_within

    def test_wait_is_bounded(self, store: StoreUnderTest) -> None:
        """claim: blocks up to ``wait`` seconds while there is nothing."""
        owner = store.worker()
        begun = time.monotonic()
        assert store.claim(owner, wait=0.3) == []
        assert 0.28 <= time.monotonic() - begun < 0.3 + store.wake_within

    def test_wait_does_not_delay_what_is_there(self, store: StoreUnderTest) -> None:
        """claim: a claim that finds something does not wait for more."""
        owner = store.worker()
        store.publish(message("a"))
        begun = time.monotonic()
        assert ids(store.claim(owner, 10, wait=20)) == ["a"]
        assert time.monotonic() - begun < store.wake_within

    def test_publish_wakes(self, store: StoreUnderTest) -> None:
        """claim: a publish on another connection ends the wait."""
        owner, other = store.worker(), store.connect()
        claim = in_background(lambda: store.claim(owner, wait=20))
        assert_waiting(claim)
        begun = time.monotonic()
        other.broker.publish(messages("a"))
        assert ids(claim.result(20)) == ["a"]
        assert time.monotonic() - begun < store.wake_within

    def test_publish_on_the_same_object_wakes(self, store: StoreUnderTest) -> None:
        """contracts: a call that waits blocks no other, on the same object too."""
        owner = store.worker()
        claim = in_background(lambda: store.claim(owner, wait=20))
        assert_waiting(claim)
        begun = time.monotonic()
        store.publish(message("a"))
        assert time.monotonic() - begun < store.wake_within
        assert ids(claim.result(20)) == ["a"]
        assert time.monotonic() - begun < store.wake_within

    def test_release_wakes(self, store: StoreUnderTest) -> None:
        """claim: a message that comes back ends the wait of another worker."""
        owner, other = store.worker("w1"), store.connect()
        store.publish(message("a"))
        deliveries = store.claim(owner)
        waiting = store.worker("w2")
        claim = in_background(lambda: other.broker.claim(waiting, ["celery"], 10, wait=20))
        assert_waiting(claim)
        begun = time.monotonic()
        store.broker.settle([release(d) for d in deliveries])
        assert ids(claim.result(20)) == ["a"]
        assert time.monotonic() - begun < store.wake_within

    def test_another_queue_does_not_end_the_wait(self, store: StoreUnderTest) -> None:
        """claim: only the queues that were asked for count."""
        owner, other = store.worker(), store.connect()
        claim = in_background(lambda: store.claim(owner, wait=20))
        assert_waiting(claim)
        other.broker.publish(messages("x", queue="elsewhere"))
        assert_waiting(claim)
        other.broker.publish(messages("a"))
        assert ids(claim.result(20)) == ["a"]

    def test_wait_until_due(self, store: StoreUnderTest) -> None:
        """Promise 5: a message that becomes due starts within 0.5 s on an idle worker."""
        owner = store.worker()
        store.run_clock()
        due_at = store.now() + 0.4
        store.publish(message("a", due_at=due_at))
        assert ids(store.claim(owner, wait=20)) == ["a"]
        assert 0.0 <= store.now() - due_at < 0.5

    def test_wait_until_due_published_meanwhile(self, store: StoreUnderTest) -> None:
        """Promise 5, for a message that is published while the worker waits already."""
        owner, other = store.worker(), store.connect()
        store.run_clock()
        claim = in_background(lambda: (store.claim(owner, wait=20), store.now()))
        assert_waiting(claim)
        due_at = store.now() + 0.3
        other.broker.publish(messages("a", due_at=due_at))
        deliveries, at = claim.result(20)
        assert ids(deliveries) == ["a"]
        assert 0.0 <= at - due_at < 0.5

    def test_close_wakes(self, store: StoreUnderTest) -> None:
        """close: waiting calls return."""
        owner, other = store.worker(), store.connect()
        broker = other.broker
        claim = in_background(lambda: broker.claim(owner, ["celery"], 10, wait=20))
        assert_waiting(claim)
        begun = time.monotonic()
        broker.close()
        assert claim.result(20) == []
        assert time.monotonic() - begun < store.wake_within

    def test_wake(self, store: StoreUnderTest) -> None:
        """wake: the waits of this object end with nothing taken, and later calls are as ever;
        another object's go on."""
        owner, other = store.worker(), store.connect()
        mine = in_background(lambda: store.claim(owner, wait=20))
        theirs = in_background(lambda: other.broker.claim(owner, ["celery"], 10, wait=20))
        assert_waiting(mine)
        assert_waiting(theirs)
        begun = time.monotonic()
        store.broker.wake()
        assert mine.result(20) == []
        assert time.monotonic() - begun < store.wake_within
        assert_waiting(theirs)
        again = in_background(lambda: store.claim(owner, wait=0.3))
        assert_waiting(again)
        other.broker.wake()
        assert theirs.result(20) == []
        assert again.result(20) == []
        store.publish(message("a"))
        assert ids(store.claim(owner, wait=5)) == ["a"]

    def test_woken_waits_take_no_wake_ups(self, store: StoreUnderTest) -> None:
        """wake: whoever was woken claims no more, and a message wakes one who still waits."""
        owner, woken = store.worker(), store.connect().broker
        first = in_background(lambda: woken.claim(owner, ["celery"], 10, wait=20))
        assert_waiting(first)
        claim = in_background(lambda: store.claim(owner, wait=20))
        assert_waiting(claim)
        woken.wake()
        assert first.result(20) == []
        begun = time.monotonic()
        store.publish(message("a"))
        assert ids(claim.result(20)) == ["a"]
        assert time.monotonic() - begun < store.wake_within

    # --- pausing

    def test_paused_queues_are_left_out(self, store: StoreUnderTest) -> None:
        """claim: paused queues are left out; publishing to them goes on."""
        owner, other = store.worker(), store.connect()
        store.publish(message("a"), message("b", queue="other"))
        other.admin.pause("celery")
        store.publish(message("c"))
        assert ids(store.claim(owner, 10, "celery", "other")) == ["b"]
        other.admin.pause("celery", False)
        assert ids(store.claim(owner, 10, "celery", "other")) == ["a", "c"]

    def test_resuming_wakes(self, store: StoreUnderTest) -> None:
        """claim: a queue that is no longer paused ends the wait."""
        owner, other = store.worker(), store.connect()
        store.admin.pause("celery")
        store.publish(message("a"))
        claim = in_background(lambda: store.claim(owner, wait=20))
        assert_waiting(claim)
        begun = time.monotonic()
        other.admin.pause("celery", False)
        assert ids(claim.result(20)) == ["a"]
        assert time.monotonic() - begun < store.wake_within

    # --- leases

    def test_unknown_lease(self, store: StoreUnderTest) -> None:
        """claim: raises LeaseLost if the owner's lease is gone, and takes nothing."""
        store.publish(message("a"))
        with pytest.raises(LeaseLost, match="nobody"):
            store.claim(Owner("nobody", 1, 1))
        assert ids(store.claim(store.worker())) == ["a"]

    def test_collected_lease(self, store: StoreUnderTest) -> None:
        """claim: a lease that has lapsed and was collected is gone."""
        owner, judge = store.worker("w1"), store.worker("judge")
        store.lose("w1", judge)
        store.publish(message("a"))
        with pytest.raises(LeaseLost):
            store.claim(owner)
        assert ids(store.claim(store.worker("w1"))) == ["a"]

    def test_lapsed_lease_is_still_there(self, store: StoreUnderTest) -> None:
        """heartbeat: a lease that has lapsed is still there until a maintain collects it."""
        owner = store.worker()
        store.advance(store.ttl * 2)
        assert store.broker.heartbeat("w1").alive
        store.publish(message("a"))
        assert ids(store.claim(owner)) == ["a"]
