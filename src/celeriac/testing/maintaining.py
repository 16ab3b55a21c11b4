"""Maintaining: dead workers' messages, what became due, and what is kept no longer."""

from __future__ import annotations

from celeriac.message import Delivery, MessageState, Owner, Settled, Upkeep
from celeriac.testing.harness import StoreUnderTest, Suite
from celeriac.testing.samples import bury, done, ids, message, messages, record

SETTLED, LOST = Settled.SETTLED, Settled.LOST


class MaintainTests(Suite):
    def test_due_ones_up(self, store: StoreUnderTest) -> None:
        """maintain: due messages up: they wait, no longer delayed."""
        owner = store.worker()
        store.publish(message("a", due_at=store.now() + 5), message("b", due_at=store.now() + 50))
        store.advance(6)
        assert store.broker.maintain(owner, Upkeep()) == []
        assert ids(store.admin.peek("celery", MessageState.WAITING)) == ["a"]
        assert ids(store.admin.peek("celery", MessageState.DELAYED)) == ["b"]

    def test_dead_lease(self, store: StoreUnderTest) -> None:
        """maintain: messages of dead leases back to the front, each counted as lost."""
        dead, judge = store.worker("dead"), store.worker("judge")
        store.publish(*messages("a", "b", "c"))
        held = store.claim(dead, 2)
        assert store.lose("dead", judge) == []
        again = store.claim_all(judge)
        assert ids(again) == ["a", "b", "c"]
        assert [d.lost for d in again] == [1, 1, 0]
        assert [d.redelivered for d in again] == [True, True, False]
        assert store.broker.settle([done(d) for d in held]) == [LOST, LOST]
        assert not store.broker.heartbeat("dead").alive

    def test_not_before_it_lapsed(self, store: StoreUnderTest) -> None:
        """maintain: a lease that is younger than its ttl is not dead."""
        judge = store.worker("judge")
        store.pass_time(store.ttl * 2, keep=["judge"])
        owner = store.worker("w1")
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        store.pass_time(store.ttl * 0.9, keep=["judge"])
        assert store.broker.maintain(judge, Upkeep()) == []
        assert store.claim(judge) == []
        assert store.broker.settle([done(delivery)]) == [SETTLED]

    def test_takes_each_once(self, store: StoreUnderTest) -> None:
        """Rule: maintain takes a delivery at most once."""
        dead, judge = store.worker("dead"), store.worker("judge")
        second = store.worker("second")
        store.publish(message("a"))
        store.claim(dead)
        store.pass_time(store.ttl * 1.5, keep=["judge", "second"])
        for owner in (judge, second, judge):
            assert store.broker.maintain(owner, Upkeep()) == []
        [delivery] = store.claim_all(judge)
        assert delivery.lost == 1

    def test_recover_after_maintain(self, store: StoreUnderTest) -> None:
        """Rule: recover and maintain each take a delivery at most once, whichever comes first:
        maintain."""
        dead, judge = store.worker("dead"), store.worker("judge")
        store.publish(message("a"))
        [delivery] = store.claim(dead)
        store.lose("dead", judge)
        store.worker("dead")
        assert store.broker.recover(dead, Owner("dead", 1, 2), [delivery.tag]) == []
        [again] = store.claim_all(judge)
        assert again.lost == 1

    def test_maintain_after_recover(self, store: StoreUnderTest) -> None:
        """Rule: recover and maintain each take a delivery at most once, whichever comes first:
        recover."""
        dead, judge = store.worker("dead"), store.worker("judge")
        store.publish(message("a"))
        [delivery] = store.claim(dead)
        [recovered] = store.broker.recover(dead, Owner("dead", 1, 2), [delivery.tag])
        assert recovered.lost == 1
        store.pass_time(store.ttl * 1.5, keep=["judge", "dead"])
        assert store.broker.maintain(judge, Upkeep()) == []
        assert store.broker.settle([done(recovered)]) == [SETTLED]

    # --- who may judge

    def test_judge_needs_a_lease_of_its_own(self, store: StoreUnderTest) -> None:
        """maintain: a judge that registered just now judges nobody yet."""
        dead = store.worker("dead")
        store.publish(message("a"))
        [delivery] = store.claim(dead)
        store.advance(store.ttl * 3)
        judge = store.worker("judge")
        assert store.broker.maintain(judge, Upkeep()) == []
        assert store.claim(judge) == []
        store.pass_time(store.ttl * 0.75, keep=["judge"])
        store.broker.maintain(judge, Upkeep())
        assert store.claim(judge) == []
        store.pass_time(store.ttl * 0.5, keep=["judge"])
        store.broker.maintain(judge, Upkeep())
        assert [d.lost for d in store.claim(judge)] == [1]
        assert store.broker.settle([done(delivery)]) == [LOST]

    def test_outage_of_everybody_reruns_nothing(self, store: StoreUnderTest) -> None:
        """Rule: an outage or a suspended laptop re-runs nothing."""
        owner, judge = store.worker("w1"), store.worker("judge")
        store.pass_time(store.ttl * 2, keep=["w1", "judge"])
        store.publish(message("a"))
        [delivery] = store.claim(owner)
        store.advance(store.ttl * 50)
        assert store.broker.maintain(judge, Upkeep()) == []
        assert store.broker.heartbeat("judge").alive
        assert store.broker.maintain(judge, Upkeep()) == []
        assert store.broker.heartbeat("w1").alive
        for _ in range(4):
            store.pass_time(store.ttl, keep=["w1", "judge"])
            assert store.broker.maintain(judge, Upkeep()) == []
        assert store.claim(judge) == []
        assert store.broker.settle([done(delivery)]) == [SETTLED]

    def test_judge_with_a_gap(self, store: StoreUnderTest) -> None:
        """Rule: a worker judges others only after it has renewed without a gap for one whole
        lease: registering again does not bridge one."""
        owner, judge = store.worker("w1"), store.worker("judge")
        store.pass_time(store.ttl * 3, keep=["w1", "judge"])
        store.publish(message("a"))
        store.claim(owner)
        store.advance(store.ttl * 1.5)
        store.worker("judge")
        assert store.broker.maintain(judge, Upkeep()) == []
        assert store.claim(judge) == []
        store.pass_time(store.ttl * 1.25, keep=["judge"])
        store.broker.maintain(judge, Upkeep())
        assert [d.lost for d in store.claim(judge)] == [1]

    def test_unregistered_judge(self, store: StoreUnderTest) -> None:
        """maintain: who has no lease judges nobody; the rest is done."""
        dead = store.worker("dead")
        store.publish(message("a"), message("b", due_at=store.now() + 1))
        store.claim(dead)
        store.advance(store.ttl * 3)
        assert store.broker.maintain(Owner("nobody", 1, 1), Upkeep()) == []
        assert ids(store.admin.peek("celery", MessageState.WAITING)) == ["b"]

    # --- over the limit

    def test_over_the_limit_is_handed_over(self, store: StoreUnderTest) -> None:
        """Promise 4: a message that kills its worker is tried ``max_deliveries`` times, then
        handed to the maintainer, to be settled."""
        judge = store.worker("judge")
        store.pass_time(store.ttl * 1.5, keep=["judge"])
        store.publish(message("poison"), message("healthy"))
        upkeep = Upkeep(max_deliveries=3)
        handed: list[Delivery] = []
        for turn in range(3):
            assert handed == []
            dead = store.worker(f"dead{turn}")
            [delivery] = store.claim(dead, 1)
            assert (delivery.message.id, delivery.lost) == ("poison", turn)
            handed = store.lose(dead.lease, judge, upkeep)
        [poison] = handed
        assert (poison.message.id, poison.lost, poison.owner) == ("poison", 3, judge)
        assert poison.redelivered
        assert store.broker.maintain(judge, upkeep) == []
        assert ids(store.claim(judge)) == ["healthy"]
        assert store.broker.settle([bury(poison, "lost 3 times")]) == [SETTLED]
        assert ids(store.admin.peek("celery", MessageState.DEAD)) == ["poison"]

    def test_limit_of_one(self, store: StoreUnderTest) -> None:
        """Upkeep: with ``max_deliveries`` 1 nothing is tried again."""
        dead, judge = store.worker("dead"), store.worker("judge")
        store.publish(*messages("a", "b"))
        store.claim(dead)
        handed = store.lose("dead", judge, Upkeep(max_deliveries=1))
        assert [(d.message.id, d.lost) for d in handed] == [("a", 1), ("b", 1)]
        assert store.claim(judge) == []

    def test_begun_is_handed_over(self, store: StoreUnderTest) -> None:
        """Promise 2: marked "not again": handed over to be settled, not run again."""
        dead, judge = store.worker("dead"), store.worker("judge")
        store.publish(*messages("a", "b"))
        first, _ = store.claim(dead)
        store.broker.begin([first])
        handed = store.lose("dead", judge)
        assert [(d.message.id, d.begun) for d in handed] == [("a", True)]
        assert [(d.message.id, d.begun) for d in store.claim(judge)] == [("b", False)]
        assert store.broker.settle([done(handed[0])]) == [SETTLED]

    def test_what_was_handed_over_is_lost_again(self, store: StoreUnderTest) -> None:
        """A message is in its queue or in flight, never in neither: what the judge was handed is
        with the next one when the judge dies."""
        dead, judge = store.worker("dead"), store.worker("judge")
        heir = store.worker("heir")
        store.publish(message("a"))
        store.broker.begin(store.claim(dead))
        store.pass_time(store.ttl * 1.5, keep=["judge", "heir"])
        [handed] = store.broker.maintain(judge, Upkeep())
        [again] = store.lose("judge", heir)
        assert (again.message.id, again.owner, again.begun) == ("a", heir, True)
        assert store.broker.settle([done(handed)]) == [LOST]
        assert store.broker.settle([done(again)]) == [SETTLED]

    # --- retention

    def test_dead_letters_by_age(self, store: StoreUnderTest) -> None:
        """Upkeep: dead letters are kept for dead_expires seconds; None keeps them."""
        owner = store.worker()
        self._bury(store, owner, "old")
        store.advance(60)
        self._bury(store, owner, "new")
        store.advance(60)
        store.broker.maintain(owner, Upkeep(dead_expires=None, dead_max=None))
        assert ids(store.admin.peek(None, MessageState.DEAD)) == ["new", "old"]
        store.broker.maintain(owner, Upkeep(dead_expires=90))
        assert ids(store.admin.peek(None, MessageState.DEAD)) == ["new"]

    def test_dead_letters_by_count(self, store: StoreUnderTest) -> None:
        """Upkeep: of dead letters the latest dead_max are kept; None keeps them."""
        owner = store.worker()
        for number in range(5):
            self._bury(store, owner, f"d{number}")
            store.advance(1)
        store.broker.maintain(owner, Upkeep(dead_max=None))
        assert len(store.admin.peek(None, MessageState.DEAD)) == 5
        store.broker.maintain(owner, Upkeep(dead_max=2))
        assert ids(store.admin.peek(None, MessageState.DEAD)) == ["d4", "d3"]
        store.broker.maintain(owner, Upkeep(dead_max=0))
        assert store.admin.peek(None, MessageState.DEAD) == []

    def test_expired_results_are_gone(self, store: StoreUnderTest) -> None:
        """maintain: expired results are gone: there is nothing left for ``purge``."""
        store.need_one_store()
        owner = store.worker()
        old = record("old", expires_at=store.now() + 5)
        store.results.put([old, record("new", expires_at=store.now() + 50), record("kept")])
        store.advance(6)
        store.broker.maintain(owner, Upkeep())
        assert store.results.purge() == 0
        assert [r is not None for r in store.results.get(["old", "new", "kept"])] == [
            False,
            True,
            True,
        ]

    def test_waiting_messages_are_kept(self, store: StoreUnderTest) -> None:
        """maintain: nothing that waits, is delayed or in flight is ever removed."""
        owner = store.worker()
        store.publish(message("in flight"))
        [delivery] = store.claim(owner)
        store.publish(message("waiting", expires_at=store.now() + 1))
        store.publish(message("delayed", due_at=store.now() + 10_000_000))
        store.advance(1_000_000)
        store.broker.heartbeat("w1")
        store.broker.maintain(owner, Upkeep(dead_expires=1, dead_max=0))
        states = {p.message.id: p.state for p in store.admin.find(["waiting", "delayed"])}
        assert states == {"waiting": MessageState.WAITING, "delayed": MessageState.DELAYED}
        assert store.broker.settle([done(delivery)]) == [SETTLED]

    def _bury(self, store: StoreUnderTest, owner: Owner, id: str) -> None:
        store.publish(message(id))
        assert store.broker.settle([bury(d) for d in store.claim(owner)]) == [SETTLED]
