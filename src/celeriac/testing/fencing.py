"""Fencing: who is not the present owner changes nothing; and what is marked not to run again."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.message import Owner, Settled
from celeriac.testing.harness import StoreUnderTest, Suite
from celeriac.testing.samples import (
    arrival,
    bury,
    defer,
    done,
    ids,
    join,
    message,
    messages,
    record,
    release,
)

SETTLED, LOST = Settled.SETTLED, Settled.LOST


class FenceTests(Suite):
    def test_settled_twice(self, store: StoreUnderTest) -> None:
        """Rule: a settle that is repeated reports "lost" and changes nothing."""
        owner = store.worker()
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        settlement = done(delivery, messages=(message("child"),))
        assert store.broker.settle([settlement]) == [SETTLED]
        assert store.broker.settle([settlement]) == [LOST]
        assert ids(store.claim(owner)) == ["child"]

    def test_settled_twice_in_one_batch(self, store: StoreUnderTest) -> None:
        """settle: in order, so that the second of two for the same delivery has lost it."""
        owner = store.worker()
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        twice = [done(delivery, messages=(message(id),)) for id in ("first", "second")]
        assert store.broker.settle(twice) == [SETTLED, LOST]
        assert ids(store.claim(owner)) == ["first"]

    @pytest.mark.parametrize("verdict", [done, release, bury])
    def test_not_the_owner(self, store: StoreUnderTest, verdict: Any) -> None:
        """Owner: a successor in the same slot is another owner, and has nothing to settle."""
        owner = store.worker()
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        for lease, slot, incarnation in [("w1", 1, 2), ("w1", 2, 1), ("w2", 1, 1)]:
            store.worker(lease)
            foreign = type(delivery)(
                message=delivery.message, tag=delivery.tag, owner=Owner(lease, slot, incarnation)
            )
            assert store.broker.settle([verdict(foreign)]) == [LOST]
        assert store.broker.settle([done(delivery)]) == [SETTLED]
        assert store.claim_all(owner) == []

    def test_recovered_by_another(self, store: StoreUnderTest) -> None:
        """Promise 3: a settlement by anyone but the present owner changes nothing."""
        old = store.worker()
        new = Owner(old.lease, old.slot, 2)
        store.publish(message("a"))
        [delivery] = store.claim(old)
        [recovered] = store.broker.recover(old, new, ())
        self._changes_nothing(store, old, delivery)
        assert store.broker.settle([done(recovered)]) == [SETTLED]

    def test_lease_taken(self, store: StoreUnderTest) -> None:
        """Promise 3: a stale owner, whose lease was collected, is fenced, waiting or claimed."""
        old, judge = store.worker("w1"), store.worker("judge")
        store.publish(message("a"))
        [delivery] = store.claim(old)
        store.lose("w1", judge)
        self._changes_nothing(store, old, delivery)
        [again] = store.claim(judge)
        store.worker("w1")
        self._changes_nothing(store, old, delivery)
        assert store.broker.settle([done(again)]) == [SETTLED]

    def test_claimed_again_by_the_same_owner(self, store: StoreUnderTest) -> None:
        """Tag: a handle for one claimed message: releasing and claiming again fences nobody
        wrongly, and the settlement of the later claim counts."""
        owner = store.worker()
        store.publish(message("a"))
        [first] = store.claim(owner)
        store.broker.settle([release(first)])
        assert store.broker.settle([done(first)]) == [LOST]
        [second] = store.claim(owner)
        assert store.broker.settle([done(second)]) == [SETTLED]

    def _changes_nothing(self, store: StoreUnderTest, old: Owner, delivery: Any) -> None:
        """Of the records, follow-ups, joins and arrivals of a lost settlement."""
        number = f"{id(delivery)}-{store.now()}"
        place = join(f"join-{number}", size=1)
        settlement = done(
            delivery,
            records=(record(f"r-{number}"),) if store.is_one_store else (),
            messages=(message(f"m-{number}"),),
            joins=(place,) if store.is_one_store else (),
            arrivals=(arrival(0, place.id),) if store.is_one_store else (),
        )
        assert store.broker.settle([settlement]) == [LOST]
        assert store.broker.begin([delivery]) == [delivery.tag]
        if store.is_one_store:
            assert store.results.get([f"r-{number}"]) == [None]
            # Not opened: an arrival there does not complete it.
            assert store.results.arrive([arrival(0, place.id)]) == [None]
        assert store.admin.find([f"m-{number}"]) == []

    def test_lost_arrival_is_not_counted(self, store: StoreUnderTest) -> None:
        """Promise 3: the arrival of a lost settlement is not counted."""
        store.need_one_store()
        owner = store.worker()
        store.broker.publish(messages("a"), [join(size=2)])
        [delivery] = store.claim(owner)
        stale = type(delivery)(message=delivery.message, tag=delivery.tag, owner=Owner("w1", 1, 9))
        assert store.broker.settle([done(stale, arrivals=(arrival(0),))]) == [LOST]
        assert store.results.arrive([arrival(1)]) == [None]  # and not Completes

    # --- at most once

    def test_begin(self, store: StoreUnderTest) -> None:
        """begin: marks what is held, and reports the tags no longer held."""
        owner = store.worker()
        store.publish(*messages("a", "b", "c"))
        first, second, third = store.claim(owner)
        store.broker.settle([done(second)])
        assert store.broker.begin([first, second, third]) == [second.tag]
        assert store.broker.begin([]) == []
        recovered = store.broker.recover(owner, Owner("w1", 1, 2), ())
        assert [(d.message.id, d.begun) for d in recovered] == [("a", True), ("c", True)]

    def test_begin_by_another(self, store: StoreUnderTest) -> None:
        """begin: every transition checks the owner."""
        owner = store.worker()
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        store.broker.recover(owner, Owner("w1", 1, 2), ())
        assert store.broker.begin([delivery]) == [delivery.tag]
        [recovered] = store.broker.recover(Owner("w1", 1, 2), Owner("w1", 1, 3), ())
        assert not recovered.begun

    def test_begun_can_be_settled(self, store: StoreUnderTest) -> None:
        """begin: stays in flight, and is settled like any other."""
        owner = store.worker()
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        assert store.broker.begin([delivery]) == []
        assert store.claim(owner) == []
        assert store.broker.settle([done(delivery)]) == [SETTLED]

    def test_release_and_defer_take_the_mark_away(self, store: StoreUnderTest) -> None:
        """settle: its owner knows that what it releases or defers has not run."""
        owner = store.worker()
        store.publish(*messages("a", "b"))
        first, second = store.claim(owner)
        store.broker.begin([first, second])
        store.broker.settle([release(first), defer(second, None)])
        assert [d.begun for d in store.claim(owner)] == [False, False]
