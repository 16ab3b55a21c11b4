"""The driver of ``redis://`` against the suites, on a real server."""

from __future__ import annotations

import pytest
from tests.drivers.redis_stage import OnServer

from celeriac.testing import (
    BrokerSuite,
    EventBusSuite,
    KillSuite,
    QueueAdminSuite,
    ResultBackendSuite,
    ScheduleStoreSuite,
    StoreUnderTest,
)
from celeriac.testing.machine import machine_for
from celeriac.testing.samples import record


class TestBroker(BrokerSuite):
    make = OnServer


class TestResultBackend(ResultBackendSuite):
    make = OnServer

    def test_purge(self, store: StoreUnderTest) -> None:
        """purge: the server has removed what has expired by itself: nothing is left to count."""
        store.results.put([record("a", expires_at=store.now() + 5), record("b")])
        store.advance(6)
        assert store.results.purge() == 0
        assert store.results.get(["a", "b"]) == [None, record("b")]


class TestQueueAdmin(QueueAdminSuite):
    make = OnServer


class TestScheduleStore(ScheduleStoreSuite):
    make = OnServer


class TestEventBus(EventBusSuite):
    make = OnServer


class TestKilled(KillSuite):
    make = OnServer


@pytest.mark.timeout(300)
class TestMachine(machine_for(OnServer)):  # type: ignore[misc]
    pass
