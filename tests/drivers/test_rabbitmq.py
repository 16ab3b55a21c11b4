"""The driver of ``amqp://`` against the suites, on a real server."""

from __future__ import annotations

import os

import pytest
from tests.drivers.rabbitmq_stage import OnQuorum, OnRabbit, Undescribed

from celeriac.message import Message
from celeriac.testing import BrokerSuite, EventBusSuite, KillSuite, QueueAdminSuite, StoreUnderTest


class Fields(BrokerSuite):
    def test_every_field_comes_back(self, store: StoreUnderTest) -> None:
        """As the suite's, but for the exchange: here it must exist."""
        sent = Message(
            id="ïd-é-☃-𝄞",
            run="run-☃",
            queue="celery",
            headers='{"lang":"py","☃":"𝄞"}'.encode(),
            body=bytes(range(256)),
            content_type="application/x-python-serialize",
            content_encoding="binary",
            routing_key="celery",
            priority=5,
            reply_to="reply-to-☃",
            delivery_mode=1,
            expires_at=store.now() + 1234.5,
            join="jöin",
        )
        store.publish(sent)
        [delivery] = store.claim(store.worker())
        assert delivery.message == sent


class TestBroker(Fields):
    make = OnRabbit


# They wait for delays, which are the same for every kind of queue.
DELAYS = frozenset(
    """
    test_due_one_takes_its_place_when_due test_one_id_does_not_lengthen_another test_defer
    test_defer_again_and_again test_id_is_no_key_while_in_flight_or_delayed test_follow_ups
    test_delayed_waits_in_the_store test_dead_letters_by_count
    """.split()
)


class TestQuorumBroker(Fields):
    make = OnQuorum

    @pytest.fixture(autouse=True)
    def _in_full(self, request: pytest.FixtureRequest) -> None:
        if request.node.name in DELAYS and os.environ.get("CELERIAC_FAULTS") != "full":
            pytest.skip("on quorum queues with the full counts only")

    @pytest.mark.skip(reason="quorum queues have no priorities before RabbitMQ 4")
    def test_best_priority_first(self, store: StoreUnderTest) -> None: ...

    @pytest.mark.skip(reason="quorum queues have no priorities before RabbitMQ 4")
    def test_due_before_anybody_looked(self, store: StoreUnderTest) -> None: ...


class TestQueueAdmin(QueueAdminSuite):
    make = OnRabbit


class TestKilled(KillSuite):
    make = Undescribed


class TestEventBus(EventBusSuite):
    make = Undescribed
