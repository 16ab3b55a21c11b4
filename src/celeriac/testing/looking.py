"""Looking at queues: counts, pausing, and messages wherever they are."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.message import (
    MessageState,
    Owner,
    Peeked,
    QueueInfo,
    Removed,
    Settled,
    Upkeep,
    Worker,
)
from celeriac.testing.harness import StoreUnderTest, Suite
from celeriac.testing.samples import (
    bury,
    defer,
    done,
    ids,
    message,
    messages,
    release,
)

WAITING, DELAYED = MessageState.WAITING, MessageState.DELAYED
IN_FLIGHT, DEAD = MessageState.IN_FLIGHT, MessageState.DEAD


class AdminTests(Suite):
    """What both halves begin with."""

    def _bury(self, store: StoreUnderTest, id: str, reason: str = "broken", **fields: Any) -> None:
        owner = store.worker("undertaker")
        store.publish(message(id, queue="celery", **fields))
        settlements = [bury(d, reason) for d in store.claim(owner)]
        assert store.broker.settle(settlements) == [Settled.SETTLED]

    def _fill(self, store: StoreUnderTest, state: MessageState, count: int) -> None:
        """So many messages in the state, several of them equal in what orders them."""
        owner = store.worker()
        due_at = store.now() + 50 if state is DELAYED else None
        best = store.capabilities.highest_priority
        store.publish(
            *(
                message(f"t{n}", due_at=due_at, priority=best if n % 4 == 0 else 9 - best)
                for n in range(count)
            )
        )
        if state in (IN_FLIGHT, DEAD):
            deliveries = store.claim(owner)
            if state is DEAD:
                store.broker.settle([bury(d) for d in deliveries])


class LookTests(AdminTests):
    def test_queues(self, store: StoreUnderTest) -> None:
        """queues: every queue that holds something or is paused, by name, with its counts."""
        owner = store.worker()
        assert store.admin.queues() == []
        first_at = store.now()
        store.publish(*messages("dead", "f1", "f2"))
        store.broker.settle([bury(d) for d in store.claim(owner, 1)])
        store.claim(owner, 2)
        store.advance(5)
        second_at = store.now()
        store.publish(*messages("w1", "w2", "w3"))
        store.publish(*messages("d1", "d2", due_at=store.now() + 50))
        store.publish(message("b", queue="b-queue"))
        store.advance(5)
        store.publish(message("w4"))
        store.admin.pause("a-queue")
        [a, b, c] = store.connect().admin.queues()
        assert a == QueueInfo(
            name="a-queue", waiting=0, delayed=0, in_flight=0, dead=0, paused=True
        )
        assert (b.name, b.waiting, b.paused) == ("b-queue", 1, False)
        assert (c.name, c.waiting, c.delayed, c.in_flight, c.dead) == ("celery", 4, 2, 2, 1)
        assert c.oldest_at is not None
        assert first_at < c.oldest_at
        assert c.oldest_at == pytest.approx(second_at, abs=1)

    def test_empty_queue_is_gone(self, store: StoreUnderTest) -> None:
        """queues: one that holds nothing (any more) and is not paused is not listed."""
        owner = store.worker()
        store.publish(message("a"))
        store.admin.pause("celery")
        store.admin.pause("celery", False)
        store.broker.settle([done(d) for d in store.claim(owner)])
        assert store.admin.queues() == []

    def test_pause_and_resume(self, store: StoreUnderTest) -> None:
        """pause: let nobody claim from the queue, or let them again; publishing goes on; pausing
        is remembered, and pausing twice is pausing."""
        owner, other = store.worker(), store.connect()
        store.publish(message("a"))
        other.admin.pause("celery")
        other.admin.pause("celery")
        other.close()
        store.publish(message("b"))
        assert store.claim(owner) == []
        assert [(q.name, q.paused, q.waiting) for q in store.admin.queues()] == [
            ("celery", True, 2)
        ]
        store.admin.pause("celery", False)
        store.admin.pause("celery", False)
        assert ids(store.claim(owner)) == ["a", "b"]

    def test_workers(self, store: StoreUnderTest) -> None:
        """workers: every lease that is registered, by name, with how many messages its owners
        hold; one that has lapsed is there until it is collected, not alive."""
        assert store.admin.workers() == []
        second, first = store.worker("w2"), store.worker("w1")
        since = store.now()
        store.broker.register(
            Worker(lease="w3", ttl=store.ttl, name="a@host", hostname="host", pid=42)
        )
        store.publish(*messages("a", "b", "c"))
        store.claim(first, 1)
        store.claim(Owner("w1", 2, 1), 1)
        infos = store.connect().admin.workers()
        assert [(w.name, w.lease, w.in_flight) for w in infos] == [
            ("a@host", "w3", 0),
            ("w1@host", "w1", 2),
            ("w2@host", "w2", 0),
        ]
        assert (infos[0].hostname, infos[0].pid) == ("host", 42)
        assert all(w.alive for w in infos)
        assert infos[1].expires_at == pytest.approx(since + store.ttl, abs=1)
        assert infos[1].since == pytest.approx(since, abs=1)
        store.broker.unregister("w3")
        store.pass_time(store.ttl * 1.5, keep=[second.lease])
        assert [(w.lease, w.alive, w.in_flight) for w in store.admin.workers()] == [
            ("w1", False, 2),
            ("w2", True, 0),
        ]
        store.broker.maintain(second, Upkeep())
        assert [w.lease for w in store.admin.workers()] == ["w2"]

    # --- looking

    def test_peek_waiting(self, store: StoreUnderTest) -> None:
        """peek: waiting messages in claim order, with the message whole and when it was
        published; nothing is changed."""
        best = store.capabilities.highest_priority
        at = store.now()
        sent = [message("low", priority=9 - best), message("high", priority=best)]
        store.publish(*sent, message("elsewhere", queue="other"))
        for _ in range(2):
            peeked = store.admin.peek("celery", WAITING)
            assert [p.message for p in peeked] == [sent[1], sent[0]]
            for one in peeked:
                assert (one.state, one.lost, one.reason) == (WAITING, 0, "")
                assert one.at == pytest.approx(at, abs=1)
        again = store.claim(store.worker())
        assert ids(again) == ["high", "low"]
        assert not any(d.redelivered for d in again)

    def test_peek_what_came_back(self, store: StoreUnderTest) -> None:
        """peek: what was released is where it will be claimed."""
        owner = store.worker()
        store.publish(*messages("a", "b", "c", "d"))
        first, second, third = store.claim(owner, 3)
        store.broker.settle([release(first), release(second), defer(third, None)])
        peeked = ids(store.admin.peek("celery", WAITING))
        assert peeked == ["a", "b", "d", "c"] == ids(store.claim(owner))

    def test_peek_delayed(self, store: StoreUnderTest) -> None:
        """peek: delayed ones in the order in which they are due, deferred ones among them."""
        owner = store.worker()
        now = store.now()
        store.publish(message("deferred"), message("b", due_at=now + 30))
        store.publish(message("a", due_at=now + 10))
        store.broker.settle([defer(d, now + 20) for d in store.claim(owner)])
        peeked = store.admin.peek("celery", DELAYED)
        assert ids(peeked) == ["a", "deferred", "b"]
        assert {p.state for p in peeked} == {DELAYED}
        assert [p.message.due_at for p in peeked[::2]] == [now + 10, now + 30]

    def test_peek_in_flight(self, store: StoreUnderTest) -> None:
        """peek: what workers hold just now, with its losses."""
        dead, judge = store.worker("dead"), store.worker("judge")
        store.publish(*messages("a", "b"))
        store.claim(dead, 1)
        store.lose("dead", judge)
        [delivery] = store.claim(judge, 1)
        [peeked] = store.admin.peek("celery", IN_FLIGHT)
        assert (peeked.message.id, peeked.state, peeked.lost) == ("a", IN_FLIGHT, 1)
        assert ids(store.admin.peek("celery", WAITING)) == ["b"]
        assert store.broker.settle([done(delivery)]) == [Settled.SETTLED]

    def test_peek_dead(self, store: StoreUnderTest) -> None:
        """peek: dead ones, the latest first, with the reason and when they were buried."""
        self._bury(store, "a", "reason ☃")
        store.advance(10)
        at = store.now()
        self._bury(store, "b", "why not")
        latest, oldest = store.admin.peek("celery", DEAD)
        assert (latest.message.id, latest.reason, latest.state) == ("b", "why not", DEAD)
        assert (oldest.message.id, oldest.reason) == ("a", "reason ☃")
        assert latest.at == pytest.approx(at, abs=1)
        assert oldest.at == pytest.approx(at - 10, abs=1)

    @pytest.mark.parametrize("state", list(MessageState))
    @pytest.mark.parametrize("queue", ["celery", None])
    def test_paging(self, store: StoreUnderTest, state: MessageState, queue: str | None) -> None:
        """peek: up to ``limit``; ``cursor`` of the last is passed as ``after`` for more: every
        message once, in the same order as in one page."""
        self._fill(store, state, 25)
        whole = store.admin.peek(queue, state, limit=100)
        assert len(whole) == 25
        assert {p.state for p in whole} == {state}
        pages: list[Peeked] = []
        after = ""
        for _ in range(4):
            page = store.admin.peek(queue, state, limit=10, after=after)
            pages += page
            if len(page) < 10:
                break
            after = page[-1].cursor
        assert ids(pages) == ids(whole)
        assert store.admin.peek(queue, state, limit=10, after=whole[-1].cursor) == []

    def test_paging_while_others_go(self, store: StoreUnderTest) -> None:
        """peek: a cursor says where to go on, also if its own message is gone by then."""
        owner = store.worker()
        store.publish(*messages(*"abcdef"))
        page = store.admin.peek("celery", WAITING, limit=3)
        store.broker.settle([done(d) for d in store.claim(owner, 3)])
        store.publish(message("g"))
        rest = store.admin.peek("celery", WAITING, limit=10, after=page[-1].cursor)
        assert ids(rest) == ["d", "e", "f", "g"]

    def test_paging_while_the_dead_are_deleted(self, store: StoreUnderTest) -> None:
        """peek: so that all dead letters can be gone through and deleted, page by page."""
        self._fill(store, DEAD, 7)
        owner, after = store.worker(), ""
        seen: list[str] = []
        while page := store.admin.peek(None, DEAD, limit=3, after=after):
            seen += ids(page)
            after = page[-1].cursor
            assert store.admin.delete(owner, ids(page)) == Removed(count=len(page))
        assert sorted(seen) == [f"t{number}" for number in range(7)]

    def test_all_queues(self, store: StoreUnderTest) -> None:
        """peek: queue None: all."""
        store.publish(message("a", queue="one"), message("b", queue="two"))
        assert sorted(ids(store.admin.peek(None, WAITING))) == ["a", "b"]
        assert store.admin.peek("three", WAITING) == []

    def test_find(self, store: StoreUnderTest) -> None:
        """find: the messages with these task ids, wherever they are."""
        self._bury(store, "dead", "reason")
        owner = store.worker()
        store.publish(message("flying"))
        store.claim(owner)
        store.publish(message("waiting"), message("twice", queue="other"))
        store.publish(message("delayed", due_at=store.now() + 50), message("twice"))
        names = ["dead", "flying", "unknown", "waiting", "delayed", "twice"]
        found = store.connect().admin.find(names)
        assert sorted((p.message.id, p.state.value) for p in found) == sorted(
            [
                ("dead", "dead"),
                ("delayed", "delayed"),
                ("flying", "in flight"),
                ("twice", "waiting"),
                ("twice", "waiting"),
                ("waiting", "waiting"),
            ]
        )
        assert store.admin.find([]) == []
