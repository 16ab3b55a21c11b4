"""The driver of ``amqp://`` against the suites, on a real server."""

from __future__ import annotations

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


class TestQuorumBroker(Fields):
    make = OnQuorum

    @pytest.mark.skip(reason="quorum queues have no priorities before RabbitMQ 4")
    def test_best_priority_first(self, store: StoreUnderTest) -> None: ...


class TestQueueAdmin(QueueAdminSuite):
    make = OnRabbit


class TestKilled(KillSuite):
    make = Undescribed


class TestEventBus(EventBusSuite):
    make = Undescribed
