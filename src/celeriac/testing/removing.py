"""Changing queues by hand: reviving, deleting, purging."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.exceptions import LeaseLost
from celeriac.message import (
    Completes,
    Delivery,
    MessageState,
    Owner,
    Removed,
    Settled,
    Settlement,
)
from celeriac.testing.harness import StoreUnderTest
from celeriac.testing.looking import AdminTests
from celeriac.testing.samples import (
    arrival,
    bury,
    content,
    defer,
    done,
    ids,
    join,
    message,
    messages,
)

WAITING, DELAYED = MessageState.WAITING, MessageState.DELAYED
IN_FLIGHT, DEAD = MessageState.IN_FLIGHT, MessageState.DEAD


class RemoveTests(AdminTests):
    def test_revive(self, store: StoreUnderTest) -> None:
        """revive: dead letters back to the end of their queues, due now, as a new run each,
        counted as never lost."""
        dead, owner = store.worker("dead"), store.worker("w1")
        sent = message("a", body=b"\x00body", priority=3)
        store.publish(sent)
        store.claim(dead)
        store.lose("dead", owner)
        [lost] = store.claim(owner)
        assert lost.lost == 1
        store.broker.begin([lost])
        store.broker.settle([defer(lost, None, note="a note")])
        store.broker.settle([bury(d) for d in store.claim(owner)])
        store.publish(message("b", priority=3))
        assert store.admin.revive(["a", "unknown"]) == 1
        assert store.admin.peek(None, DEAD) == []
        b, again = store.claim(owner)
        assert ids([b, again]) == ["b", "a"]
        assert again.message.run not in ("", sent.run)
        assert content(again.message) == content(type(sent)(**_fields(sent, again.message.run)))
        assert (again.lost, again.redelivered, again.begun, again.note) == (0, False, False, "")
        assert store.admin.revive(["a"]) == 0

    def test_revive_twice_the_same_id(self, store: StoreUnderTest) -> None:
        """revive: each dead letter of the id, a new run each."""
        owner = store.worker()
        self._bury(store, "a")
        self._bury(store, "a")
        assert store.admin.revive(["a", "a"]) == 2
        runs = {d.message.run for d in store.claim(owner)}
        assert len(runs) == 2
        assert "run-of-a" not in runs

    def test_revive_passes_its_key(self, store: StoreUnderTest) -> None:
        """Rule: a revived dead letter must pass, whatever keys were seen."""
        self._bury(store, "a", dedupe_key="k")
        assert store.admin.revive(["a"]) == 1
        assert ids(store.claim(store.worker())) == ["a"]

    def test_revive_only_the_dead(self, store: StoreUnderTest) -> None:
        """revive: what waits, is delayed or in flight is left alone."""
        owner = store.worker()
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        store.publish(message("a"), message("a", due_at=store.now() + 50))
        assert store.admin.revive(["a"]) == 0
        assert store.broker.settle([done(delivery)]) == [Settled.SETTLED]
        assert [d.message.run for d in store.claim(owner)] == ["run-of-a"]

    def test_revive_wakes(self, store: StoreUnderTest) -> None:
        """revive: to where a waiting worker finds it, on another connection too."""
        owner = store.worker()
        self._bury(store, "a")
        store.connect().admin.revive(["a"])
        assert ids(store.claim(owner, wait=5)) == ["a"]

    # --- removing

    def test_delete(self, store: StoreUnderTest) -> None:
        """delete: removes waiting, delayed and dead messages of these ids, not those in flight,
        nor others."""
        self._bury(store, "a")
        owner = store.worker()
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        store.publish(message("a"), message("b"), message("a", due_at=store.now() + 5))
        removed = store.admin.delete(owner, ["a", "unknown"])
        self._settle_parts(store, removed)
        assert removed.count + len(removed.parts) == 3
        assert [p.state for p in store.admin.find(["a"])] == [IN_FLIGHT]
        store.advance(10)
        assert ids(store.claim(owner)) == ["b"]
        assert store.broker.settle([done(delivery)]) == [Settled.SETTLED]
        assert store.admin.delete(owner, ["a"]) == Removed(count=0)

    def test_purge(self, store: StoreUnderTest) -> None:
        """purge: removes the waiting and delayed messages of the queue, not those in flight or
        dead, nor another queue's."""
        self._bury(store, "dead")
        owner = store.worker()
        store.publish(message("flying"))
        store.claim(owner)
        store.publish(*messages("a", "b"), message("c", due_at=store.now() + 5))
        store.publish(message("elsewhere", queue="other"))
        removed = store.admin.purge(owner, "celery")
        self._settle_parts(store, removed)
        assert removed.count + len(removed.parts) == 3
        [info, other] = store.admin.queues()
        assert (info.waiting, info.delayed, info.in_flight, info.dead) == (0, 0, 1, 1)
        assert other.waiting == 1
        assert store.admin.purge(owner, "celery") == Removed(count=0)
        assert store.admin.purge(owner, "never there") == Removed(count=0)

    def test_purge_of_a_paused_queue(self, store: StoreUnderTest) -> None:
        """purge: a paused queue can be emptied, and stays paused."""
        owner = store.worker()
        store.publish(*messages("a", "b"))
        store.admin.pause("celery")
        removed = store.admin.purge(owner, "celery")
        self._settle_parts(store, removed)
        assert removed.count + len(removed.parts) == 2
        assert [(q.waiting, q.paused) for q in store.admin.queues()] == [(0, True)]

    @pytest.mark.parametrize("how", ["delete", "purge"])
    def test_parts_of_joins_are_handed_back(self, store: StoreUnderTest, how: str) -> None:
        """delete and purge: what belongs to a join is held by the caller's owner now, and settled
        by it: a chord always completes or fails."""
        owner, client = store.worker(), store.worker("client")
        batch = [
            message("p0", join="join"),
            message("p1", join="join", due_at=store.now() + 50),
            message("plain"),
        ]
        store.broker.publish(batch, [join(size=2)])
        removed = self._remove(store, how, client, ["p0", "p1", "plain"])
        parts = [d for d in removed.parts if d.message.join is not None]
        assert sorted(ids(parts)) == ["p0", "p1"]
        assert removed.count + len(removed.parts) == 3
        assert {d.owner for d in removed.parts} == {client}
        assert store.claim(owner) == []
        assert self._fail(store, parts) == ["body"]

    def test_dead_letters_are_no_parts(self, store: StoreUnderTest) -> None:
        """Removed: dead letters are never parts: their joins were told when they were buried."""
        owner = store.worker()
        self._bury(store, "a", join="join")
        assert store.admin.delete(owner, ["a"]) == Removed(count=1)

    @pytest.mark.parametrize("how", ["delete", "purge"])
    def test_lease_of_the_caller(self, store: StoreUnderTest, how: str) -> None:
        """delete and purge: raise LeaseLost if the owner's lease is gone; nothing is changed."""
        store.publish(message("a", join="join"), message("b"))
        with pytest.raises(LeaseLost, match="nobody"):
            self._remove(store, how, Owner("nobody", 1, 1), ["a", "b"])
        assert ids(store.claim(store.worker())) == ["a", "b"]

    def test_caller_dies(self, store: StoreUnderTest) -> None:
        """What a caller that died was handed comes back."""
        client, judge = store.worker("client"), store.worker("judge")
        store.publish(message("a", join="join"))
        assert ids(store.admin.purge(client, "celery").parts) == ["a"]
        assert store.lose("client", judge) == []
        assert ids(store.claim(judge)) == ["a"]

    # --- helpers

    def _remove(self, store: StoreUnderTest, how: str, owner: Owner, ids: list[str]) -> Removed:
        if how == "delete":
            return store.admin.delete(owner, ids)
        return store.admin.purge(owner, "celery")

    def _settle_parts(self, store: StoreUnderTest, removed: Removed) -> None:
        """A driver may hand over more than parts of joins: what needs a record."""
        answers = store.broker.settle([done(d) for d in removed.parts])
        assert answers == [Settled.SETTLED] * len(removed.parts)

    def _fail(self, store: StoreUnderTest, parts: list[Delivery]) -> list[str]:
        """Settle them as failed parts of their join; what follows the join."""
        for index, delivery in enumerate(parts):
            settlement = Settlement(delivery=delivery, arrivals=(arrival(index, state="REVOKED"),))
            [answer] = store.broker.settle([settlement])
            if isinstance(answer, Completes):
                settlement = Settlement(
                    delivery=delivery,
                    arrivals=settlement.arrivals,
                    tokens={answer.join: answer.token},
                    messages=(message("body"),),
                )
                assert store.broker.settle([settlement]) == [Settled.SETTLED]
        return ids(store.claim_all(store.worker("w9")))


def _fields(sent: Any, run: str) -> dict[str, Any]:
    fields = {name: getattr(sent, name) for name in sent.__struct_fields__}
    return {**fields, "run": run}
