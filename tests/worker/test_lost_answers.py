"""A runner and its broker, whose answers come late or never."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.drivers.redis_stage import shared_server

from celeriac import Celeriac, drivers, states
from celeriac.drivers.memory import forget
from celeriac.drivers.memory.broker import MemoryBroker
from celeriac.exceptions import OperationalError
from celeriac.message import Delivery, Owner, Settled, Settlement, Verdict, Worker
from celeriac.settling import Settling
from celeriac.testing.samples import message
from celeriac.worker import keeper, pools
from celeriac.worker.options import WorkerOptions
from celeriac.worker.pools import asyncio as asyncio_pool
from celeriac.worker.pools import threads as threads_pool
from celeriac.worker.settler import Settler
from celeriac.worker.slots import SlotTable, Stopping

URL = "memory://lost-answers"
LEASE = "celery@test.1"


class Deaf:
    """A broker whose answers to some calls are lost after they were carried out."""

    def __init__(self, inner: Any, lost: Counter[str]) -> None:
        self._inner = inner
        self._lost = lost

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            answer = value(*args, **kwargs)
            if self._lost[name] and answer:
                self._lost[name] -= 1
                raise OperationalError(f"the answer to {name} was lost")
            return answer

        return call


class World:
    """An application and one runner of a pool, in a thread."""

    def __init__(self, pool: str, url: str = URL) -> None:
        self.lost: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        self.go = threading.Event()
        self.app: Any = Celeriac("deaf", broker=url, backend=url, set_as_current=False)
        self._make_tasks()
        make = self.app.make_broker
        self.app.make_broker = lambda: Deaf(make(), self.lost)
        options = WorkerOptions(
            app="", hostname="celery@test", lease_name=LEASE, queues=["celery"], lease=60.0
        )
        options.pool, options.concurrency = pool, 1 if pool == "processes" else 3
        self.table = SlotTable.create(options.concurrency, 0)
        self.app.producer.broker.register(Worker(lease=LEASE, ttl=60.0))
        self.table.bump_lease_epoch()
        runner = pools.runner_class(pool)(self.app, options, self.table, 0, 1, None)
        self.thread = threading.Thread(target=runner.run)
        self.thread.start()

    def _make_tasks(self) -> None:
        @self.app.task(name="count", bind=True)
        def count(task: Any) -> None:
            self.runs[task.request.id] += 1

        @self.app.task(name="lose", bind=True)
        def lose(task: Any) -> None:
            """Nobody hears that this task was settled."""
            self.runs[task.request.id] += 1
            self.lost["settle"] = 2

        @self.app.task(name="once", bind=True, acks_late=False)
        def once(task: Any) -> None:
            self.runs[task.request.id] += 1

        @self.app.task(name="hold", bind=True)
        def hold(task: Any) -> None:
            self.runs[task.request.id] += 1
            assert self.go.wait(20)

    def send(self, name: str, times: int = 1) -> list[Any]:
        return [self.app.send_task(name) for _ in range(times)]

    def end(self) -> None:
        self.go.set()
        self.table.stop(Stopping.WARM)
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.app.close()
        forget(URL)


@pytest.fixture(params=["processes", "threads", "asyncio"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(request.param)
    yield made
    made.end()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_a_claim_took_whose_answer_was_lost(world: World) -> None:
    """It goes back, and runs once; what runs in other threads all that time is left alone."""
    (held,) = world.send("hold")
    until(lambda: world.runs[held.id] == 1)
    world.lost["claim"] = 2
    if world.table.size == 1:
        world.go.set()
    results = world.send("count", 20)
    for result in results:
        result.get(timeout=10)
    world.go.set()
    held.get(timeout=10)
    assert world.lost["claim"] == 0
    assert world.runs == Counter(result.id for result in (held, *results))


def test_a_task_whose_begin_is_not_answered_is_run_once(world: World) -> None:
    """It was marked "not again" and had not started: that is taken back."""
    begin: list[Any] = []
    inner = world.app.make_broker()._inner
    real = type(inner).begin

    def deaf(self: Any, deliveries: Any) -> Any:
        answer = real(self, deliveries)
        begin.append(deliveries)
        if len(begin) == 1:
            raise OperationalError("the answer to begin was lost")
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(inner), "begin", deaf)
        (result,) = world.send("once")
        assert result.get(timeout=10) is None
    assert len(begin) == 2
    assert world.runs[result.id] == 1


def test_a_step_that_was_kept_and_nobody_was_told() -> None:
    """It is this process's by now, which does not know: it goes back, and runs once."""
    server = shared_server()
    server.call("FLUSHALL")
    world = World("processes", server.url)
    try:
        lose, step = world.app.tasks["lose"].si(), world.app.tasks["count"].si()
        assert (lose | step | step).apply_async().get(timeout=20) is None
        assert world.lost["settle"] == 0
        assert list(world.runs.values()) == [1, 1, 1]
    finally:
        world.end()


def test_a_settlement_that_is_not_answered_stands(world: World) -> None:
    world.lost["settle"] = 1
    results = world.send("count", 5)
    for result in results:
        assert result.get(timeout=10) is None
    assert set(world.runs.values()) == {1}
    admin = drivers.admin_of(world.app.producer.broker._inner)
    until(lambda: not any(queue.in_flight for queue in admin.queues()))


@pytest.mark.parametrize("pool", ["processes", "threads", "asyncio"])
def test_the_broker_is_tended_while_all_slots_are_taken(
    pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tended: list[float] = []
    monkeypatch.setattr(
        MemoryBroker, "tend", lambda _: tended.append(time.monotonic()), raising=False
    )
    monkeypatch.setattr(keeper, "IDLE", 0.2)
    monkeypatch.setattr(keeper, "TEND_EVERY", 0.2)
    for module in (threads_pool, asyncio_pool):
        monkeypatch.setattr(module, "WAIT", 0.2)
    world = World(pool)
    held = world.send("hold", world.table.size)
    until(lambda: len(tended) >= 3)
    assert world.runs == Counter(one.id for one in held)
    world.end()


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_the_last_task_ends_while_the_broker_is_tended(
    pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner that is told to stop tends to its broker till all has ended, and ends well."""
    tended, settling, settle = threading.Event(), threading.Event(), MemoryBroker.settle

    def slow(broker: MemoryBroker, settlements: Any) -> Any:
        settling.set()
        time.sleep(0.2)
        return settle(broker, settlements)

    def tend(broker: MemoryBroker) -> None:
        time.sleep(0.1)
        tended.set()

    monkeypatch.setattr(MemoryBroker, "tend", tend, raising=False)
    monkeypatch.setattr(MemoryBroker, "settle", slow)
    world = World(pool)
    (hold,) = world.send("hold")
    until(lambda: world.runs[hold.id] == 1)
    world.go.set()
    assert settling.wait(10)
    world.end()
    assert tended.is_set()


class Failing:
    """A way to the stores: what comes of each call, in order; after these all goes well."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = [*errors, *[None] * 9]

    def settle(self, batch: list[Settlement]) -> list[Settled]:
        if error := self.errors.pop(0):
            raise error
        return [Settled.SETTLED] * len(batch)


@pytest.mark.parametrize(
    "errors",
    [
        [OperationalError("away")],
        [OperationalError("away"), ValueError("odd")],
        # Odd, so one by one: the one that may have kept something comes first.
        [ValueError("odd"), OperationalError("away")],
        [ValueError("odd"), OperationalError("away"), None, OperationalError("away")],
    ],
)
def test_what_may_have_been_kept_is_not_forgotten(errors: list[Exception | None]) -> None:
    """Whatever else happens to its batch: the next claim asks for it."""
    settler = Settler(Failing(*errors), lambda: False)  # type: ignore[arg-type]
    for number, keep in enumerate([("celery",), ()]):
        one = Delivery(message=message(), owner=Owner(LEASE, 0, 1), tag=number)
        settler.add(Settlement(delivery=one, keep=keep), 0.0)
    settler.flush()
    assert settler.unsure


class Choosy:
    """A way to the stores that refuses a text."""

    def __init__(self) -> None:
        self.stored: list[Settlement] = []

    def settle(self, batch: list[Settlement]) -> list[Any]:
        for one in batch:
            "".join(str(record.state) for record in one.records).encode()
        self.stored += batch
        return ["settled"] * len(batch)


def test_a_settlement_that_cannot_be_stored_holds_up_no_other() -> None:
    """Its message is kept as a dead letter, the others of its batch are settled."""
    app: Any = Celeriac("choosy", broker=URL, set_as_current=False)
    app.task(name="count")(lambda: None)
    for _ in range(3):
        app.send_task("count")
    broker = app.make_broker()
    broker.open()
    with app.operating() as owner:
        fine, odd, also = broker.claim(owner, ["celery"], 3)
        record = app.records.write("x", "x", states.SUCCESS, None)
        bad = type(record)(id="x", run="x", state="\udce9", ready=True, payload=b"")
        choosy = Choosy()
        settler = Settler(choosy, lambda: False)  # type: ignore[arg-type]
        for delivery, records in ((fine, ()), (odd, (bad,)), (also, (record,))):
            settler.add(Settlement(delivery=delivery, records=records), 0.0)
        settler.flush()
        verdicts = [one.verdict for one in choosy.stored]
        assert verdicts == [Verdict.DONE, Verdict.BURY, Verdict.DONE]
        assert "UnicodeEncodeError" in choosy.stored[1].reason
        assert Settling(broker, None).settle(choosy.stored)
    app.close()
    assert drivers.one_store(broker, app.make_results())
    broker.close()
    forget(URL)
