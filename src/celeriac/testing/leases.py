"""Leases: who is here, what a dead process held, and what a clean exit gives back."""

from __future__ import annotations

from itertools import chain

from celeriac.message import Owner, Settled, Upkeep, Worker
from celeriac.testing.harness import StoreUnderTest, Suite
from celeriac.testing.samples import done, ids, message, messages

SETTLED, LOST = Settled.SETTLED, Settled.LOST


class LeaseTests(Suite):
    def test_heartbeat(self, store: StoreUnderTest) -> None:
        """heartbeat: is the lease still ours; nothing was cancelled."""
        assert not store.broker.heartbeat("w1").alive
        store.worker("w1")
        pulse = store.broker.heartbeat("w1")
        assert pulse.alive
        assert pulse.cancelled == ()

    def test_heartbeat_does_not_register(self, store: StoreUnderTest) -> None:
        """heartbeat: renews the lease only if it is still there."""
        for _ in range(2):
            assert not store.broker.heartbeat("nobody").alive

    def test_renewed_lease_lives(self, store: StoreUnderTest) -> None:
        """Promise 3: leases are renewed while a task runs: it is not run twice for being long."""
        owner, judge = store.worker("w1"), store.worker("judge")
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        for _ in range(10):
            store.pass_time(store.ttl / 2, keep=["w1", "judge"])
            assert store.broker.maintain(judge, Upkeep()) == []
        assert store.claim(judge) == []
        assert store.broker.settle([done(delivery)]) == [SETTLED]

    def test_register_renews(self, store: StoreUnderTest) -> None:
        """register: takes or renews the lease that the worker names: its deliveries stay."""
        owner, judge = store.worker("w1"), store.worker("judge")
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        for _ in range(8):
            store.pass_time(store.ttl / 2, keep=["judge"])
            store.worker("w1")
            assert store.broker.maintain(judge, Upkeep()) == []
        assert store.broker.settle([done(delivery)]) == [SETTLED]

    def test_each_lease_has_its_own_length(self, store: StoreUnderTest) -> None:
        """Worker: ``ttl`` is how long the lease lasts."""
        judge = store.worker("judge")
        store.broker.register(Worker(lease="long", ttl=store.ttl * 10))
        owner = Owner("long", 1, 1)
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        store.lose("w1", judge)
        store.lose("w1", judge)
        assert store.broker.settle([done(delivery)]) == [SETTLED]

    def test_unregister(self, store: StoreUnderTest) -> None:
        """unregister: what its owners still hold returns to the front, not counted as lost but
        marked as redelivered."""
        one = store.worker("w1", slot=1)
        two = Owner("w1", 2, 1)
        store.publish(*messages("a", "b", "c", "d"))
        held = store.claim(one, 2) + store.claim(two, 1)
        store.broker.unregister("w1")
        assert not store.broker.heartbeat("w1").alive
        assert store.broker.settle([done(d) for d in held]) == [LOST] * 3
        again = store.claim(store.worker("w2"))
        assert sorted(ids(again[:3])) == ["a", "b", "c"]
        assert ids(again[:3]).index("a") < ids(again[:3]).index("b")
        assert ids(again[3:]) == ["d"]
        assert [d.lost for d in again] == [0] * 4
        assert [d.redelivered for d in again] == [True, True, True, False]

    def test_unregister_leaves_others_alone(self, store: StoreUnderTest) -> None:
        """unregister: only what the owners of this lease hold."""
        store.worker("w1")
        other = store.worker("w11")
        store.publish(message("a"))
        [delivery] = store.claim(other)
        store.broker.unregister("w1")
        store.broker.unregister("never there")
        assert store.broker.settle([done(delivery)]) == [SETTLED]

    def test_unregister_keeps_the_mark(self, store: StoreUnderTest) -> None:
        """unregister: the mark of begin stays; the next claim shows it (at most once)."""
        owner = store.worker("w1")
        store.publish(message("a"), message("b"))
        first, _ = store.claim(owner)
        store.broker.begin([first])
        store.broker.unregister("w1")
        assert [d.begun for d in store.claim_all(store.worker("w2"))] == [True, False]

    # --- recover

    def test_recover(self, store: StoreUnderTest) -> None:
        """recover: moves to the new owner what the dead one held, in order; only the one that was
        running counts as lost."""
        dead = store.worker("w1", incarnation=1)
        new = Owner("w1", 1, 2)
        store.publish(*messages("a", "b", "c", "d"))
        deliveries = store.claim(dead, 3)
        recovered = store.broker.recover(dead, new, [deliveries[1].tag])
        assert ids(recovered) == ["a", "b", "c"]
        assert [d.lost for d in recovered] == [0, 1, 0]
        assert [d.owner for d in recovered] == [new] * 3
        assert [d.tag for d in recovered] == [d.tag for d in deliveries]
        assert recovered[1].redelivered
        assert store.broker.settle([done(d) for d in recovered]) == [SETTLED] * 3
        assert ids(store.claim(new)) == ["d"]

    def test_recover_nothing_running(self, store: StoreUnderTest) -> None:
        """recover: a process that died between two tasks has lost none."""
        dead = store.worker("w1")
        store.publish(*messages("a", "b"))
        store.claim(dead)
        recovered = store.broker.recover(dead, Owner("w1", 1, 2), ())
        assert [(d.message.id, d.lost) for d in recovered] == [("a", 0), ("b", 0)]

    def test_recover_unknown_tag(self, store: StoreUnderTest) -> None:
        """recover: what was running had been settled already: none is counted."""
        dead = store.worker("w1")
        store.publish(*messages("a", "b"))
        first, _ = store.claim(dead)
        store.broker.settle([done(first)])
        recovered = store.broker.recover(dead, Owner("w1", 1, 2), [first.tag])
        assert [(d.message.id, d.lost) for d in recovered] == [("b", 0)]

    def test_recover_what_one_holds_itself(self, store: StoreUnderTest) -> None:
        """recover: equal owners: what it holds, nothing changed."""
        owner = store.worker("w1", incarnation=1)
        store.publish(*messages("a", "b", "c"))
        first, _ = store.claim(owner, 2)
        again = store.broker.recover(owner, owner, [first.tag])
        assert [(d.message.id, d.lost, d.redelivered) for d in again] == [
            ("a", 0, False),
            ("b", 0, False),
        ]
        assert store.broker.recover(owner, owner, ()) == again
        assert store.broker.recover(Owner("w1", 7, 1), Owner("w1", 7, 1), ()) == []
        assert store.broker.settle([done(d) for d in again]) == [SETTLED] * 2

    def test_recover_takes_each_once(self, store: StoreUnderTest) -> None:
        """Rule: recover takes a delivery at most once."""
        dead = store.worker("w1")
        store.publish(message("a"))
        [delivery] = store.claim(dead)
        assert len(store.broker.recover(dead, Owner("w1", 1, 2), [delivery.tag])) == 1
        assert store.broker.recover(dead, Owner("w1", 1, 3), [delivery.tag]) == []

    def test_recover_leaves_other_slots_alone(self, store: StoreUnderTest) -> None:
        """recover: what ``dead`` held, not another process of the same worker."""
        store.worker("w1")
        owners = [Owner("w1", 1, 1), Owner("w1", 2, 1), Owner("w1", 11, 1)]
        store.publish(*messages("a", "b", "c"))
        held = [store.claim(owner, 1)[0] for owner in owners]
        assert ids(store.broker.recover(owners[0], Owner("w1", 1, 2), ())) == ["a"]
        assert store.broker.settle([done(d) for d in held]) == [LOST, SETTLED, SETTLED]

    def test_recover_counts_up(self, store: StoreUnderTest) -> None:
        """Promise 4: every process that dies while running a message is counted."""
        owner = store.worker("w1", incarnation=0)
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        for incarnation in range(1, 5):
            new = Owner("w1", 1, incarnation)
            [delivery] = store.broker.recover(delivery.owner, new, [delivery.tag])
            assert delivery.lost == incarnation

    def test_recover_from_another_connection(self, store: StoreUnderTest) -> None:
        """recover: what was claimed on one connection is recovered on another."""
        dead, other = store.worker("w1"), store.connect()
        store.publish(message("a"))
        [delivery] = store.claim(dead)
        [recovered] = other.broker.recover(dead, Owner("w1", 1, 2), [delivery.tag])
        assert recovered.lost == 1
        assert store.broker.settle([done(delivery)]) == [LOST]
        assert store.broker.settle([done(recovered)]) == [SETTLED]

    # --- lost ones are claimed alone

    def test_lost_one_is_claimed_alone(self, store: StoreUnderTest) -> None:
        """Promise 4: a message lost once is claimed alone: in front of others."""
        judge = self._lost(store, "lost")
        store.publish(*messages("a", "b"))
        assert self._batches(store, judge) == [["lost"], ["a", "b"]]

    def test_lost_one_behind_others(self, store: StoreUnderTest) -> None:
        """Promise 4: a message lost once is claimed alone: behind others."""
        best = store.capabilities.highest_priority
        judge = self._lost(store, "lost", priority=9 - best)
        store.publish(*messages("a", "b", priority=best))
        batches = self._batches(store, judge)
        assert ["lost"] in batches
        assert sorted(chain(*batches)) == ["a", "b", "lost"]

    def test_lost_one_amid_others(self, store: StoreUnderTest) -> None:
        """Promise 4: a message lost once is claimed alone: amid others, which keep their order."""
        best = store.capabilities.highest_priority
        judge = self._lost(store, "lost", priority=abs(best - 3))
        store.publish(*messages("a", "b", priority=best))
        store.publish(*messages("c", "d", priority=9 - best))
        batches = self._batches(store, judge)
        assert ["lost"] in batches
        assert [id for id in list(chain(*batches)) if id != "lost"] == ["a", "b", "c", "d"]

    def test_lost_one_in_another_queue(self, store: StoreUnderTest) -> None:
        """Promise 4: alone means alone in the claim, whatever the queues."""
        judge = self._lost(store, "lost", queue="second")
        store.publish(*messages("a", queue="first"), *messages("b", queue="third"))
        batches = self._batches(store, judge, "first", "second", "third")
        assert ["lost"] in batches
        assert sorted(chain(*batches)) == ["a", "b", "lost"]

    def test_two_lost_ones(self, store: StoreUnderTest) -> None:
        """Promise 4: batch-mates of a lost lease are each claimed alone."""
        judge = self._lost(store, "x", "y", "z")
        assert self._batches(store, judge) == [["x"], ["y"], ["z"]]

    def test_released_lost_one_stays_lost(self, store: StoreUnderTest) -> None:
        """Promise 4: releasing and deferring neither count nor forget."""
        judge = self._lost(store, "lost")
        store.publish(message("a"))
        [delivery] = store.claim(judge)
        store.broker.unregister(judge.lease)
        judge = store.worker("judge")
        [delivery] = store.claim(judge)
        assert (delivery.message.id, delivery.lost, delivery.redelivered) == ("lost", 1, True)

    def _lost(self, store: StoreUnderTest, *names: str, **fields: str | int) -> Owner:
        """Publish, claim and lose these; who may claim now."""
        dead, judge = store.worker("dead"), store.worker("judge")
        store.publish(*messages(*names, **fields))
        assert ids(store.claim(dead, 100, str(fields.get("queue", "celery")))) == list(names)
        assert store.lose("dead", judge) == []
        return judge

    def _batches(self, store: StoreUnderTest, owner: Owner, *queues: str) -> list[list[str]]:
        batches = []
        while batch := store.claim(owner, 100, *queues):
            batches.append(ids(batch))
        return batches
