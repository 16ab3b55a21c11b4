"""The driver of ``sqlite://`` against the suites."""

from __future__ import annotations

from pathlib import Path

from celeriac.testing import (
    BrokerSuite,
    Connection,
    EventBusSuite,
    KillSuite,
    QueueAdminSuite,
    ResultBackendSuite,
    ScheduleStoreSuite,
    StoreUnderTest,
)
from celeriac.testing.machine import machine_for


class OnFile(StoreUnderTest):
    unreachable_url = "sqlite:////there/is/no/such/directory/celeriac.db"

    def new_url(self, folder: Path) -> str:
        return f"sqlite:///{folder}/test.db"

    def connect(self) -> Connection:
        """One process shares a connection, unless the options differ: here they do."""
        url = f"{self.url}?timeout={5 + len(self._others) % 10}"
        other = Connection(url, self.options)
        self._others.append(other)
        return other


class TestBroker(BrokerSuite):
    make = OnFile


class TestResultBackend(ResultBackendSuite):
    make = OnFile


class TestQueueAdmin(QueueAdminSuite):
    make = OnFile


class TestScheduleStore(ScheduleStoreSuite):
    make = OnFile


class TestEventBus(EventBusSuite):
    make = OnFile


class TestKilled(KillSuite):
    make = OnFile


TestMachine = machine_for(OnFile)
