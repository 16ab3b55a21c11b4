"""The driver of ``memory://`` against the suites."""

from __future__ import annotations

from pathlib import Path

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


class InMemory(StoreUnderTest):
    def new_url(self, folder: Path) -> str:
        return f"memory://{folder}"


class TestBroker(BrokerSuite):
    make = InMemory


class TestResultBackend(ResultBackendSuite):
    make = InMemory


class TestQueueAdmin(QueueAdminSuite):
    make = InMemory


class TestScheduleStore(ScheduleStoreSuite):
    make = InMemory


class TestEventBus(EventBusSuite):
    make = InMemory


class TestKilled(KillSuite):
    make = InMemory


TestMachine = machine_for(InMemory)
