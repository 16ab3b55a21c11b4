"""What a driver's test gives to the suites: a new empty store, and time under their control."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pytest

from celeriac.contracts import (
    Broker,
    Capabilities,
    EventBus,
    QueueAdmin,
    ResultBackend,
    ScheduleStore,
)
from celeriac.drivers import (
    admin_of,
    one_store,
    open_broker,
    open_bus,
    open_results,
    open_schedules,
)
from celeriac.exceptions import NotCapable
from celeriac.message import Delivery, Message, Owner, Upkeep, Worker
from celeriac.testing.clock import FakeClock
from celeriac.testing.needs import skip_unless_capable
from celeriac.testing.samples import QUEUE

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which a background call of a test is given up."""


class Connection:
    """One independent way into the store: its parts are opened when they are first used."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.url = url
        self.options = options
        self._open: list[Any] = []

    @cached_property
    def broker(self) -> Broker:
        return self._opened(open_broker(self.url, self.options))

    @cached_property
    def results(self) -> ResultBackend:
        return self._opened(self._or_skip(open_results))

    @cached_property
    def bus(self) -> EventBus:
        return self._opened(self._or_skip(open_bus))

    @cached_property
    def schedules(self) -> ScheduleStore:
        store = open_schedules(self.url, self.options)
        if store is None:
            pytest.skip("this driver keeps no schedules")
        return self._opened(store)

    @cached_property
    def admin(self) -> QueueAdmin:
        try:
            return admin_of(self.broker)
        except NotCapable as reason:
            pytest.skip(str(reason))

    def _or_skip(self, make: Callable[[str, dict[str, Any]], T]) -> T:
        try:
            return make(self.url, self.options)
        except NotCapable as reason:
            pytest.skip(str(reason))

    def _opened(self, part: T) -> T:
        # An event bus has neither in its contract; one that has them is treated alike.
        if hasattr(part, "open"):
            part.open()
        self._open.append(part)
        return part

    def close(self) -> None:
        for part in reversed(self._open):
            if hasattr(part, "close"):
                part.close()
        self._open.clear()


class StoreUnderTest(Connection):
    """One new, empty store, and the first connection to it. A driver's test says where::

        class Files(StoreUnderTest):
            def new_url(self, folder: Path) -> str:
                return f"sqlite:///{folder}/test.db"

        class TestBroker(BrokerSuite):
            make = Files

    A driver that goes by a server's clock overrides ``advance`` to sleep, ``now`` to ask the
    server, and makes ``ttl`` and ``dedupe_window`` short.
    """

    ttl = 10.0  # of every lease
    dedupe_window = 100.0
    wake_within = 1.0  # seconds, of a busy machine, until a waiting call has noticed
    unreachable_url: str | None = None  # nothing can be opened there
    has_broker = True  # False: a result backend alone
    keeps_early_parts = False  # does an arrival count that comes before its join was opened?

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self._others: list[Connection] = []
        options = {"clock": self.clock, "dedupe_window": self.dedupe_window}
        super().__init__(self.new_url(folder), options)

    def new_url(self, folder: Path) -> str:
        """The URL of a store that does not exist yet; ``folder`` is empty and the test's own."""
        raise NotImplementedError

    @property
    def capabilities(self) -> Capabilities:
        return self.broker.capabilities

    @property
    def is_one_store(self) -> bool:
        """Can a settlement change records and joins too?"""
        try:
            return one_store(self.broker, open_results(self.url, self.options))
        except NotCapable:
            return False

    def need_one_store(self) -> None:
        if not self.is_one_store:
            pytest.skip("this broker keeps no results")

    def connect(self) -> Connection:
        """A second, independent connection to the same store."""
        other = Connection(self.url, self.options)
        self._others.append(other)
        return other

    def close(self) -> None:
        for other in self._others:
            other.close()
        super().close()

    # --- time

    def now(self) -> float:
        return self.clock()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def use_real_time(self) -> None:
        """Before anything is opened: for tests with other processes, which have no fake clock."""
        self.options = {name: value for name, value in self.options.items() if name != "clock"}
        self.clock.start_at(time.time())
        self.clock.run()

    def run_clock(self) -> None:
        """Let time flow, for tests in which something becomes due while a call waits."""
        self.clock.run()

    def pass_time(self, seconds: float, keep: Sequence[str] = ()) -> None:
        """Let time pass while the leases named are renewed in time."""
        step = self.ttl / 4
        while seconds > 0:
            self.advance(min(step, seconds))
            for lease in keep:
                assert self.broker.heartbeat(lease).alive
            seconds -= step

    # --- what most tests begin with

    def worker(self, lease: str = "w1", slot: int = 1, incarnation: int = 1) -> Owner:
        """Register a lease; the owner that stands for one process of this worker."""
        self.broker.register(Worker(lease=lease, ttl=self.ttl, name=f"{lease}@host"))
        return Owner(lease, slot, incarnation)

    def publish(self, *messages: Message) -> None:
        assert self.broker.publish(messages) == len(messages)

    def claim(self, owner: Owner, limit: int = 100, *queues: str, **more: Any) -> list[Delivery]:
        return self.broker.claim(owner, queues or (QUEUE,), limit, **more)

    def claim_all(self, owner: Owner, *queues: str) -> list[Delivery]:
        """Claim until there is nothing (what was lost before comes alone)."""
        claimed: list[Delivery] = []
        while batch := self.claim(owner, 100, *queues):
            claimed += batch
        return claimed

    def lose(self, lease: str, judge: Owner, upkeep: Upkeep | None = None) -> list[Delivery]:
        """Let a worker's lease lapse while the judge's is renewed; what maintain hands over."""
        self.pass_time(self.ttl * 1.5, keep=[judge.lease])
        assert lease != judge.lease
        return self.broker.maintain(judge, upkeep or Upkeep())


class Suite:
    """A suite of tests that hold for every driver. ``make`` gives a new store; see
    StoreUnderTest."""

    make: Callable[[Path], StoreUnderTest]

    @pytest.fixture
    def store(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[StoreUnderTest]:
        store = type(self).make(tmp_path)
        try:
            if store.has_broker:
                skip_unless_capable(request, store.capabilities)
            yield store
        finally:
            store.close()


def in_background(call: Callable[..., T], *args: Any) -> Future[T]:
    """Run it in a thread of its own that does not keep the interpreter from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def assert_waiting(future: Future[Any], seconds: float = 0.15) -> None:
    """The call has not returned, and doesn't within these seconds."""
    with contextlib.suppress(FutureTimeout):
        pytest.fail(f"the call should wait, but returned {future.result(seconds)!r}")
