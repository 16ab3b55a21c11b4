"""Settlements whose owner would like to keep what follows: a wish that a driver may pass over."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.message import Delivery, Kept, Message, Outcome, Settled, Settlement
from celeriac.testing.harness import StoreUnderTest, Suite
from celeriac.testing.samples import QUEUE, content, done, ids, message, messages, release

FAR = 3600.0


def settle(store: StoreUnderTest, settlement: Settlement) -> Outcome:
    [outcome] = store.broker.settle([settlement])
    return outcome


def kept_of(outcome: Outcome) -> Delivery:
    """The delivery that was kept; the test is over if the driver does not do that."""
    if outcome is Settled.SETTLED:
        pytest.skip("this driver keeps nothing")
    assert isinstance(outcome, Kept)
    return outcome.delivery


class KeepTests(Suite):
    def _one_running(self, store: StoreUnderTest, **more: Any) -> Delivery:
        store.publish(message("first"))
        [delivery] = store.claim(store.worker(**more))
        return delivery

    def test_kept_or_waiting(self, store: StoreUnderTest) -> None:
        """keep: the message that follows waits, or its owner has it as if it had claimed it."""
        first = self._one_running(store)
        following = message("next", priority=3, reply_to="me", join="j", headers=b'{"a":1}')
        outcome = settle(store, done(first, messages=(following,), keep=(QUEUE, "other")))
        others = store.claim(store.worker("w2"))
        if outcome is Settled.SETTLED:
            assert ids(others) == ["next"]
            return
        kept = kept_of(outcome)
        assert others == []
        assert content(kept.message) == content(following)
        assert (kept.owner, kept.lost, kept.redelivered, kept.begun, kept.note) == (
            first.owner,
            0,
            False,
            False,
            "",
        )
        assert settle(store, done(kept)) is Settled.SETTLED
        assert settle(store, done(kept)) is Settled.LOST

    def test_kept_one_after_the_other(self, store: StoreUnderTest) -> None:
        """keep: a chain of them, each fenced like every delivery."""
        delivery = self._one_running(store)
        for number in range(5):
            following = message(f"m{number}")
            outcome = settle(store, done(delivery, messages=(following,), keep=(QUEUE,)))
            delivery = kept_of(outcome)
        assert store.broker.begin([delivery]) == []
        assert settle(store, done(delivery)) is Settled.SETTLED

    def test_kept_is_told_again(self, store: StoreUnderTest) -> None:
        """recover: who never got the answer finds what was kept among what it holds."""
        first = self._one_running(store)
        outcome = settle(store, done(first, messages=(message("next"),), keep=(QUEUE,)))
        kept = kept_of(outcome)
        [held] = store.broker.recover(first.owner, first.owner, ())
        assert (content(held.message), held.tag) == (content(kept.message), kept.tag)
        assert settle(store, release(held)) is Settled.SETTLED
        assert ids(store.claim(store.worker("w2"))) == ["next"]

    def test_kept_comes_back(self, store: StoreUnderTest) -> None:
        """unregister: what was kept is others' when its owner is gone."""
        first = self._one_running(store)
        kept_of(settle(store, done(first, messages=(message("next"),), keep=(QUEUE,))))
        store.broker.unregister(first.owner.lease)
        assert ids(store.claim(store.worker("w2"))) == ["next"]

    def test_not_kept_while_others_wait(self, store: StoreUnderTest) -> None:
        """keep: never past a message that waits, in whichever of the queues, or is delayed."""
        for waiting in (
            message("x"),
            message("x", queue="other"),
            message("x", priority=9),
            message("x", due_at=store.now() + FAR),
        ):
            first = self._one_running(store)
            store.publish(waiting)
            outcome = settle(store, done(first, messages=(message("next"),), keep=(QUEUE, "other")))
            assert outcome is Settled.SETTLED
            store.claim_all(store.worker(), QUEUE, "other")
            if waiting.due_at is not None:
                return  # the last one, which stays

    def test_lost_keeps_nothing(self, store: StoreUnderTest) -> None:
        """keep: a settlement that is lost sends nothing."""
        first = self._one_running(store)
        assert settle(store, done(first)) is Settled.SETTLED
        again = done(first, messages=(message("next"),), keep=(QUEUE,))
        assert settle(store, again) is Settled.LOST
        assert store.claim(store.worker()) == []

    def _not_kept(self, store: StoreUnderTest, *following: Message) -> None:
        first = self._one_running(store)
        assert settle(store, done(first, messages=following, keep=(QUEUE,))) is Settled.SETTLED

    def test_not_kept_by_their_kind(self, store: StoreUnderTest) -> None:
        """keep: none of several, none that is due later, none for a queue that was not named."""
        owner = store.worker()
        self._not_kept(store, *messages("a", "b"))
        assert ids(store.claim(owner)) == ["a", "b"]
        self._not_kept(store, message("c", queue="other"))
        assert ids(store.claim(owner, 10, "other")) == ["c"]
        self._not_kept(store, message("d", due_at=store.now() + 5))
        assert store.claim(owner) == []

    def test_keyed_is_not_kept(self, store: StoreUnderTest) -> None:
        """keep: what may have been sent before goes the way on which that is found out."""
        if not store.capabilities.dedupe:
            pytest.skip("this broker does not remember dedupe keys")
        self._not_kept(store, message("a", dedupe_key="k"))
        assert ids(store.claim(store.worker())) == ["a"]
        self._not_kept(store, message("a", dedupe_key="k"))
        assert store.claim(store.worker()) == []

    def test_cancelled_is_not_kept(self, store: StoreUnderTest) -> None:
        """keep: a cancelled message is claimed, and flagged, as ever."""
        owner = store.worker()
        store.broker.cancel(owner, ["a"], store.now() + FAR)
        self._not_kept(store, message("a"))
        [delivery] = store.claim(owner)
        assert delivery.cancelled

    def test_paused_is_not_kept(self, store: StoreUnderTest) -> None:
        """keep: nothing of a paused queue runs."""
        first = self._one_running(store)
        store.admin.pause(QUEUE)
        outcome = settle(store, done(first, messages=(message("next"),), keep=(QUEUE,)))
        assert outcome is Settled.SETTLED
        assert store.claim(store.worker()) == []
        store.admin.pause(QUEUE, False)
        assert ids(store.claim(store.worker())) == ["next"]
