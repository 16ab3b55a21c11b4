"""Cancelling: what has not started is handed back, what runs is told, what comes later is known."""

from __future__ import annotations

import pytest

from celeriac.exceptions import LeaseLost
from celeriac.message import Cancelled, Owner, Pulse, Settled, Upkeep, Worker
from celeriac.testing.harness import StoreUnderTest, Suite
from celeriac.testing.samples import bury, defer, done, ids, message, messages, release

FAR = 1000.0


class CancelTests(Suite):
    def test_waiting_and_delayed_are_handed_back(self, store: StoreUnderTest) -> None:
        """cancel: waiting and delayed messages are handed to the owner, to be settled."""
        owner, client = store.worker(), store.worker("client")
        store.publish(*messages("a", "b", "c"), message("d", due_at=store.now() + 50))
        store.publish(message("e", due_at=store.now() + 50), message("a", queue="other"))
        handed = store.broker.cancel(client, ["a", "d", "never sent"], store.now() + FAR)
        assert sorted(ids(handed)) == ["a", "a", "d"]
        assert {d.owner for d in handed} == {client}
        assert all(d.cancelled for d in handed)
        assert [d.lost for d in handed] == [0, 0, 0]
        assert ids(store.claim(owner, 10, "celery", "other")) == ["b", "c"]
        assert store.broker.settle([done(d) for d in handed]) == [Settled.SETTLED] * 3
        store.advance(60)
        assert ids(store.claim(owner, 10, "celery", "other")) == ["e"]

    def test_nothing_to_cancel(self, store: StoreUnderTest) -> None:
        """cancel: ids that are nowhere, or none at all."""
        client = store.worker("client")
        assert store.broker.cancel(client, [], store.now() + FAR) == []
        assert store.broker.cancel(client, ["x"], store.now() + FAR) == []

    def test_handed_back_once(self, store: StoreUnderTest) -> None:
        """cancel: what one caller was handed another is not."""
        client, other = store.worker("client"), store.worker("other")
        store.publish(message("a"))
        assert ids(store.broker.cancel(client, ["a", "a"], store.now() + FAR)) == ["a"]
        assert store.broker.cancel(other, ["a"], store.now() + FAR) == []

    def test_paused_queue(self, store: StoreUnderTest) -> None:
        """cancel: a paused queue keeps nobody from cancelling."""
        client = store.worker("client")
        store.publish(message("a"))
        store.admin.pause("celery")
        assert ids(store.broker.cancel(client, ["a"], store.now() + FAR)) == ["a"]

    def test_dead_letters_stay(self, store: StoreUnderTest) -> None:
        """cancel: what is dead waits for a person, not for a cancellation."""
        owner = store.worker()
        store.publish(message("a"))
        store.broker.settle([bury(d) for d in store.claim(owner)])
        assert store.broker.cancel(owner, ["a"], store.now() + FAR) == []
        assert ids(store.admin.find(["a"])) == ["a"]

    def test_running_shows_in_the_heartbeat(self, store: StoreUnderTest) -> None:
        """heartbeat: which running ids were cancelled, with the wish to terminate; those of this
        worker only; at every heartbeat until they are settled."""
        owner, other = store.worker("w1"), store.worker("w2")
        client = store.worker("client")
        store.publish(*messages("a", "b", "c"))
        first, second = store.claim(owner, 2)
        [third] = store.claim(other)
        until = store.now() + FAR
        connection = store.connect().broker
        assert connection.cancel(client, ["a"], until) == []
        assert connection.cancel(client, ["c"], until, terminate=True, signal="SIGUSR1") == []
        pulse = Pulse(alive=True, cancelled=(Cancelled(id="a", terminate=False, signal="SIGTERM"),))
        assert store.broker.heartbeat("w1") == pulse
        assert store.broker.heartbeat("w1") == pulse
        asked = Cancelled(id="c", terminate=True, signal="SIGUSR1")
        assert store.broker.heartbeat("w2") == Pulse(alive=True, cancelled=(asked,))
        assert store.broker.heartbeat("client") == Pulse(alive=True)
        assert (
            store.broker.settle([done(d) for d in (first, second, third)]) == [Settled.SETTLED] * 3
        )
        assert store.broker.heartbeat("w1") == Pulse(alive=True)

    def test_twice_in_flight_is_told_once(self, store: StoreUnderTest) -> None:
        """Pulse: ids, so that one that is in flight twice is named once."""
        owner = store.worker()
        store.publish(*messages("a", "a"))
        store.claim(owner)
        store.broker.cancel(owner, ["a"], store.now() + FAR)
        assert [c.id for c in store.broker.heartbeat("w1").cancelled] == ["a"]

    def test_sent_again(self, store: StoreUnderTest) -> None:
        """Promise 9: a cancelled id stays cancelled, also when sent again, until ``until``."""
        if not store.capabilities.durable_cancel:
            pytest.skip("this broker does not remember cancellations")
        owner = store.worker()
        store.broker.cancel(owner, ["a"], store.now() + 50)
        for _ in range(2):
            store.publish(message("a"), message("b"))
            deliveries = store.claim(owner)
            assert [(d.message.id, d.cancelled) for d in deliveries] == [("a", True), ("b", False)]
            store.broker.settle([done(d) for d in deliveries])
            store.advance(20)
        store.advance(20)
        store.publish(message("a"))
        assert [d.cancelled for d in store.claim(owner)] == [False]

    def test_maintain_keeps_and_forgets(self, store: StoreUnderTest) -> None:
        """maintain: a cancellation is kept until its time, and forgotten after it."""
        owner = store.worker()
        store.broker.cancel(owner, ["a", "b"], store.now() + 50)
        store.broker.cancel(owner, ["b"], store.now() + 500)
        for late, cancelled in [(40, [True, True]), (60, [False, True])]:
            store.advance(late)
            store.broker.maintain(owner, Upkeep())
            store.publish(*messages("a", "b"))
            deliveries = store.claim(owner)
            assert [d.cancelled for d in deliveries] == cancelled
            store.broker.settle([done(d) for d in deliveries])

    def test_until_has_passed(self, store: StoreUnderTest) -> None:
        """cancel: what is cancelled until a time that has passed is handed back all the same, but
        not remembered."""
        owner = store.worker()
        store.publish(message("a"))
        assert ids(store.broker.cancel(owner, ["a"], store.now() - 1)) == ["a"]
        store.publish(message("a"))
        assert [d.cancelled for d in store.claim(owner)] == [False]

    def test_survives_reopening(self, store: StoreUnderTest) -> None:
        """Promise 9: a cancelled id stays cancelled across restarts."""
        if not store.capabilities.durable_cancel:
            pytest.skip("this broker does not remember cancellations")
        other = store.connect()
        other.broker.register(Worker(lease="client", ttl=store.ttl))
        other.broker.cancel(Owner("client", 1, 1), ["a"], store.now() + FAR)
        other.broker.unregister("client")
        other.close()
        another = store.connect()
        another.broker.publish([message("a")])
        assert [d.cancelled for d in another.broker.claim(store.worker(), ["celery"], 9)] == [True]

    def test_again_never_takes_back(self, store: StoreUnderTest) -> None:
        """cancel: cancelling again never shortens ``until`` nor takes ``terminate`` back."""
        owner = store.worker()
        store.publish(message("a"))
        store.claim(owner)
        store.broker.cancel(owner, ["a"], store.now() + 50, terminate=True, signal="SIGKILL")
        store.broker.cancel(owner, ["a"], store.now() + 5)
        store.advance(8)
        asked = Cancelled(id="a", terminate=True, signal="SIGKILL")
        assert store.broker.heartbeat("w1").cancelled == (asked,)

    def test_again_can_ask_for_more(self, store: StoreUnderTest) -> None:
        """cancel: what was cancelled can be terminated afterwards, and for longer."""
        owner = store.worker()
        store.publish(message("a"))
        store.claim(owner)
        store.broker.cancel(owner, ["a"], store.now() + 5)
        store.broker.cancel(owner, ["a"], store.now() + 50, terminate=True, signal="SIGINT")
        store.advance(8)
        asked = Cancelled(id="a", terminate=True, signal="SIGINT")
        assert store.broker.heartbeat("w1").cancelled == (asked,)

    def test_one_id_does_not_lengthen_another(self, store: StoreUnderTest) -> None:
        """cancel: of several ids each keeps its own time."""
        owner = store.worker()
        store.broker.cancel(owner, ["a"], store.now() + 50)
        store.broker.cancel(owner, ["a", "b"], store.now() + 5)
        store.advance(8)
        store.publish(*messages("a", "b"))
        assert [d.cancelled for d in store.claim(owner)] == [True, False]

    def test_comes_back_flagged(self, store: StoreUnderTest) -> None:
        """Delivery: its id was cancelled: whichever way it comes back to be claimed."""
        owner = store.worker()
        store.publish(*messages("a", "b", "c"))
        deliveries = store.claim(owner)
        store.broker.cancel(owner, ["a", "b", "c"], store.now() + FAR)
        new = Owner("w1", 1, 2)
        recovered = store.broker.recover(owner, new, [deliveries[2].tag])
        assert [d.cancelled for d in recovered] == [True] * 3
        store.broker.settle([release(recovered[0]), defer(recovered[1], None)])
        store.broker.unregister("w1")
        assert [d.cancelled for d in store.claim_all(store.worker())] == [True] * 3

    def test_lease_of_the_caller(self, store: StoreUnderTest) -> None:
        """cancel: raises LeaseLost if the owner's lease is gone, and nothing is changed."""
        store.publish(message("a"))
        with pytest.raises(LeaseLost, match="nobody"):
            store.broker.cancel(Owner("nobody", 0, 1), ["a"], store.now() + FAR)
        assert [d.cancelled for d in store.claim(store.worker())] == [False]

    def test_caller_dies(self, store: StoreUnderTest) -> None:
        """A message is in its queue or in flight, never in neither: what a caller that died was
        handed comes back, still cancelled."""
        client, judge = store.worker("client"), store.worker("judge")
        store.publish(message("a"))
        [handed] = store.broker.cancel(client, ["a"], store.now() + FAR)
        assert store.lose("client", judge) == []
        [delivery] = store.claim(judge)
        assert (delivery.message.id, delivery.cancelled) == ("a", True)
        assert store.broker.settle([done(handed)]) == [Settled.LOST]
