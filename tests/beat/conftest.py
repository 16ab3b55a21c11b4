"""Schedulers on a clock that the tests move, and what they have sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.drivers import redis_stage

from celeriac import Celeriac
from celeriac.beat import SharedScheduler
from celeriac.drivers import memory
from celeriac.message import Message, MessageState
from celeriac.testing import FakeClock

START = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


class Stage:
    """An application on one store, any number of schedulers for it, and time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = FakeClock(START)
        self.drift = 0.0  # by how much the clock was set
        self.app = self.new_app()
        self._schedulers: list[SharedScheduler] = []
        self._apps = [self.app]

    def new_app(self, name: str = "shop", **entries: Any) -> Celeriac:
        app = Celeriac(
            name,
            broker=self.url,
            backend=self.url,
            result_expires=None,  # so that there is no clean-up among the entries
            broker_transport_options={"clock": self.clock},
            result_backend_transport_options={"clock": self.clock},
            set_as_current=False,
        )
        app.conf.beat_schedule = entries
        return app

    def scheduler(self, cls: Any = SharedScheduler, /, **entries: Any) -> SharedScheduler:
        """One more, started now, with these entries in its code."""
        app = self.new_app(**entries)
        self._apps.append(app)
        made: SharedScheduler = cls(
            app, clock=self.clock, elapsed=lambda: self.clock() - self.drift + 1e6
        )
        made._stepped_back = 0.0
        self._schedulers.append(made)
        return made

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    def set_clock(self, seconds: float) -> None:
        """Set the clock without letting time pass."""
        self.clock.advance(seconds)
        self.drift += seconds

    def run(self, scheduler: SharedScheduler, seconds: float, step: float = 0.5) -> None:
        """Let time pass, the scheduler ticking."""
        for _ in range(round(seconds / step)):
            self.advance(step)
            scheduler.tick()

    def messages(self) -> list[Message]:
        """What waits, in the order in which it was sent."""
        return [one.message for one in self.app.admin().peek(None, MessageState.WAITING, 10_000)]

    def sent(self) -> list[tuple[str, float]]:
        """Entry and nominal time, in seconds since the start, of all that was sent."""
        found = []
        for message in self.messages():
            headers = json.loads(message.headers)
            nominal = _instant(headers["beat_nominal"]) - START
            found.append((headers["beat_entry"], round(nominal, 3)))
        return found

    def close(self) -> None:
        for scheduler in self._schedulers:
            scheduler.close()
        for app in self._apps:
            app.close()


def _instant(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def new_url(store: str, folder: Path) -> str:
    """An empty store."""
    if store == "memory":
        return f"memory://{folder}"
    if store == "sqlite":
        return f"sqlite:///{folder}/q.db"
    server = redis_stage.shared_server()
    server.call("FLUSHALL")
    return server.url


@pytest.fixture(params=["memory", "sqlite", "redis"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    url = new_url(request.param, tmp_path)
    stage = Stage(url)
    yield stage
    stage.close()
    if request.param == "memory":
        memory.forget(url)
