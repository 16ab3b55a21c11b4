"""The driver of ``memory://`` against the suites."""

from __future__ import annotations

from pathlib import Path

from celeriac.testing import BrokerSuite, StoreUnderTest


class InMemory(StoreUnderTest):
    def new_url(self, folder: Path) -> str:
        return f"memory://{folder}"


class TestBroker(BrokerSuite):
    make = InMemory
