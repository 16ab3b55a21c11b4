"""Settling: everything that finishing a delivery changes, whole or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac import states
from celeriac.message import Settled
from celeriac.testing.harness import StoreUnderTest, Suite
from celeriac.testing.samples import (
    bury,
    content,
    defer,
    done,
    ids,
    message,
    messages,
    record,
    release,
)

SETTLED, LOST = Settled.SETTLED, Settled.LOST


class SettleTests(Suite):
    def test_done_is_gone(self, store: StoreUnderTest) -> None:
        """DONE: gone, from the queue and from what its owner holds."""
        owner = store.worker()
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        assert store.broker.settle([done(delivery)]) == [SETTLED]
        store.broker.unregister(owner.lease)
        assert store.claim(store.worker()) == []

    def test_nothing_to_settle(self, store: StoreUnderTest) -> None:
        """settle: one answer for each, none for none."""
        assert store.broker.settle([]) == []

    def test_defer(self, store: StoreUnderTest) -> None:
        """DEFER: unchanged, back at due_at, counted as nothing, with the note handed back."""
        owner = store.worker()
        sent = message("a", priority=3)
        store.publish(sent)
        [first] = store.claim(owner)
        due_at = store.now() + 5
        assert store.broker.settle([defer(first, due_at, note="waits 0.5 s")]) == [SETTLED]
        store.advance(4)
        assert store.claim(owner) == []
        store.advance(2)
        [second] = store.claim(owner)
        assert content(second.message) == content(sent)
        assert (second.note, second.lost, second.redelivered) == ("waits 0.5 s", 0, False)
        store.broker.settle([defer(second, None, note="")])
        [third] = store.claim(owner)
        assert third.note == ""

    def test_defer_again_and_again(self, store: StoreUnderTest) -> None:
        """DEFER: the note is what the settlement that deferred it last wanted to remember."""
        owner = store.worker()
        store.publish(message("a"))
        for turn in range(4):
            [delivery] = store.claim(owner)
            assert delivery.note == (f"ünit {turn - 1}" if turn else "")
            store.broker.settle([defer(delivery, store.now() + 1, note=f"ünit {turn}")])
            store.advance(1.5)

    def test_defer_to_now_goes_to_the_end(self, store: StoreUnderTest) -> None:
        """DEFER without due_at, or with one that has passed: to the end, now."""
        owner = store.worker()
        store.publish(*messages("a", "b", "c"))
        first, second = store.claim(owner, 2)
        store.broker.settle([defer(first, None), defer(second, store.now() - 1)])
        assert ids(store.claim(owner)) == ["c", "a", "b"]

    def test_release(self, store: StoreUnderTest) -> None:
        """RELEASE: back to the front now, counted as nothing; a batch keeps its order."""
        owner = store.worker()
        store.publish(*messages("a", "b", "c", "d"))
        deliveries = store.claim(owner, 3)
        assert store.broker.settle([release(d) for d in deliveries]) == [SETTLED] * 3
        again = store.claim(owner)
        assert ids(again) == ["a", "b", "c", "d"]
        assert [(d.lost, d.redelivered) for d in again] == [(0, False)] * 4

    def test_release_part_of_a_batch(self, store: StoreUnderTest) -> None:
        """RELEASE: what is not released is not affected."""
        owner = store.worker()
        store.publish(*messages("a", "b", "c", "d"))
        first, second, third = store.claim(owner, 3)
        store.broker.settle([done(first), release(second), release(third)])
        assert ids(store.claim(owner)) == ["b", "c", "d"]

    def test_release_keeps_the_priority(self, store: StoreUnderTest) -> None:
        """Rule: released batches keep their order and their priority's list."""
        if not store.capabilities.priorities:
            pytest.skip("this broker has no priorities")
        best = store.capabilities.highest_priority
        worst = 9 - best
        owner = store.worker()
        store.publish(*messages("low1", "low2", "low3", priority=worst))
        low = store.claim(owner, 2)
        store.publish(*messages("high1", "high2", priority=best))
        high = store.claim(owner, 1)
        store.broker.settle([release(d) for d in [*low, *high]])
        assert ids(store.claim(owner)) == ["high1", "high2", "low1", "low2", "low3"]

    def test_release_keeps_the_note(self, store: StoreUnderTest) -> None:
        """RELEASE: what a deferral wanted to remember is still remembered."""
        owner = store.worker()
        store.publish(message("a"))
        store.broker.settle([defer(d, None, note="n") for d in store.claim(owner)])
        store.broker.settle([release(d) for d in store.claim(owner)])
        assert [d.note for d in store.claim(owner)] == ["n"]

    def test_bury(self, store: StoreUnderTest) -> None:
        """BURY: a dead letter, with the reason: not claimed again, kept whole."""
        owner = store.worker()
        sent = message("a", body=b"\xff\x00")
        store.publish(sent)
        [delivery] = store.claim(owner)
        assert store.broker.settle([bury(delivery, "cannot be read: ☃")]) == [SETTLED]
        store.advance(store.ttl)
        assert store.claim(owner) == []
        [dead] = store.admin.find(["a"])
        assert (content(dead.message), dead.reason) == (content(sent), "cannot be read: ☃")

    # --- what follows

    def test_follow_ups(self, store: StoreUnderTest) -> None:
        """Settlement: the messages that follow are published, at once or when due."""
        owner = store.worker()
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        follow = [message("link"), message("retry", due_at=store.now() + 5)]
        assert store.broker.settle([done(delivery, messages=tuple(follow))]) == [SETTLED]
        assert ids(store.claim(owner)) == ["link"]
        store.advance(6)
        assert ids(store.claim(owner)) == ["retry"]

    def test_retry_in_the_same_settlement(self, store: StoreUnderTest) -> None:
        """Rule: a retry is ``done`` with the next message, of the same id and run."""
        owner = store.worker()
        sent = message("a")
        store.publish(sent)
        for _ in range(3):
            [delivery] = store.claim(owner)
            assert (delivery.message.id, delivery.message.run) == (sent.id, sent.run)
            assert (delivery.lost, delivery.redelivered) == (0, False)
            assert store.broker.settle([done(delivery, messages=(sent,))]) == [SETTLED]
        assert len(store.claim_all(owner)) == 1

    def test_follow_up_key_is_dropped(self, store: StoreUnderTest) -> None:
        """publish: a key drops a message among those that follow, and the settlement stands."""
        if not store.capabilities.dedupe:
            pytest.skip("this broker does not remember dedupe keys")
        owner = store.worker()
        store.publish(*messages("a", "b"))
        settlements = [
            done(d, messages=(message("child", dedupe_key="run/child"),))
            for d in store.claim(owner)
        ]
        assert store.broker.settle(settlements) == [SETTLED, SETTLED]
        assert ids(store.claim(owner)) == ["child"]

    def test_records(self, store: StoreUnderTest) -> None:
        """Settlement: the records are stored with the verdict, whichever it is."""
        store.need_one_store()
        owner = store.worker()
        store.publish(*messages("a", "b", "c", "d"))
        first, second, third, fourth = store.claim(owner)
        answers = store.broker.settle(
            [
                done(first, records=(record("a"), record("a-child", states.REVOKED))),
                defer(second, store.now() + 5, records=(record("b", states.RETRY),)),
                release(third, records=(record("c", states.STARTED),)),
                bury(fourth, records=(record("d", states.FAILURE),)),
            ]
        )
        assert answers == [SETTLED] * 4
        found = store.connect().results.get(["a", "a-child", "b", "c", "d"])
        assert found == [
            record("a"),
            record("a-child", states.REVOKED),
            record("b", states.RETRY),
            record("c", states.STARTED),
            record("d", states.FAILURE),
        ]

    def test_refused_record(self, store: StoreUnderTest) -> None:
        """settle: a record that promise 9 refuses does not make the settlement lost."""
        store.need_one_store()
        owner = store.worker()
        store.results.put([record("a")])
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        again = record("a", states.FAILURE, run="another")
        assert store.broker.settle([done(delivery, records=(again,))]) == [SETTLED]
        assert store.results.get(["a"]) == [record("a")]
        assert store.claim_all(owner) == []

    # --- batches

    def test_answers_in_order(self, store: StoreUnderTest) -> None:
        """settle: one answer for each, in order; what is lost does not stop the others."""
        owner = store.worker()
        store.publish(*messages("a", "b", "c", "d", "e"))
        deliveries = store.claim(owner)
        store.broker.settle([done(deliveries[1]), done(deliveries[3])])
        answers = store.broker.settle([done(d) for d in deliveries])
        assert answers == [SETTLED, LOST, SETTLED, LOST, SETTLED]

    def test_follow_ups_keep_the_order(self, store: StoreUnderTest) -> None:
        """settle: in order: what follows the first comes before what follows the second."""
        owner = store.worker()
        store.publish(*messages("a", "b", "c"))
        settlements = [
            done(d, messages=(message(f"{d.message.id}1"), message(f"{d.message.id}2")))
            for d in store.claim(owner)
        ]
        store.broker.settle(settlements)
        assert ids(store.claim(owner)) == ["a1", "a2", "b1", "b2", "c1", "c2"]

    def test_one_transaction(self, store: StoreUnderTest) -> None:
        """settle: in one transaction: a batch that cannot be written changes nothing."""
        owner = store.worker()
        store.publish(*messages("a", "b"))
        first, second = store.claim(owner)
        broken: Any = (None,)
        with pytest.raises(Exception, match=r".+"):
            store.broker.settle([done(first), done(second, messages=broken)])
        assert store.claim(owner) == []
        assert store.broker.settle([done(first), done(second)]) == [SETTLED, SETTLED]

    def test_equal_payloads_stay_two(self, store: StoreUnderTest) -> None:
        """Rule: equal payloads twice in flight stay two."""
        owner = store.worker()
        same = message("a")
        store.publish(same, same)
        first, second = store.claim(owner)
        assert store.broker.settle([done(first)]) == [SETTLED]
        assert store.broker.settle([done(first)]) == [LOST]
        assert store.broker.settle([release(second)]) == [SETTLED]
        [again] = store.claim(owner)
        assert store.broker.settle([done(again)]) == [SETTLED]
        assert store.claim(owner) == []

    def test_large_batch(self, store: StoreUnderTest) -> None:
        """settle: hundreds at once, each with a record and a message that follows."""
        owner = store.worker()
        names = [f"t{number}" for number in range(500)]
        store.publish(*messages(*names))
        deliveries = store.claim(owner, 500)
        assert ids(deliveries) == names
        settlements = [
            done(d, messages=(message(f"next-{d.message.id}"),), records=self._record(store, d))
            for d in deliveries
        ]
        assert store.broker.settle(settlements) == [SETTLED] * 500
        assert ids(store.claim(owner, 1000)) == [f"next-{name}" for name in names]
        if store.is_one_store:
            assert None not in store.results.get(names)

    def _record(self, store: StoreUnderTest, delivery: Any) -> Any:
        return (record(delivery.message.id),) if store.is_one_store else ()
