"""Suites that every driver must pass, shipped so that drivers made elsewhere can be held to them.

A driver's own test is ten lines::

    from celeriac.testing import BrokerSuite, QueueAdminSuite, ResultBackendSuite, StoreUnderTest

    class Files(StoreUnderTest):
        def new_url(self, folder):
            return f"sqlite:///{folder}/test.db"

    class TestBroker(BrokerSuite):
        make = Files

The suites need pytest; ``celeriac.testing.machine`` needs hypothesis too. Names are imported when
they are first asked for, so that the fake clock can be had without either.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac.testing.admin import QueueAdminSuite
    from celeriac.testing.broker import BrokerSuite
    from celeriac.testing.bus import EventBusSuite
    from celeriac.testing.clock import FakeClock
    from celeriac.testing.harness import Connection, StoreUnderTest, Suite
    from celeriac.testing.kill import KillSuite
    from celeriac.testing.results import ResultBackendSuite
    from celeriac.testing.schedules import ScheduleStoreSuite

__all__ = [
    "BrokerSuite",
    "Connection",
    "EventBusSuite",
    "FakeClock",
    "KillSuite",
    "QueueAdminSuite",
    "ResultBackendSuite",
    "ScheduleStoreSuite",
    "StoreUnderTest",
    "Suite",
]

_HOME = {
    "BrokerSuite": "broker",
    "Connection": "harness",
    "EventBusSuite": "bus",
    "FakeClock": "clock",
    "KillSuite": "kill",
    "QueueAdminSuite": "admin",
    "ResultBackendSuite": "results",
    "ScheduleStoreSuite": "schedules",
    "StoreUnderTest": "harness",
    "Suite": "harness",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
