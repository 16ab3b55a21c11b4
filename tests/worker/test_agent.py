"""The agent against a broker in memory that can be cut off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from celeriac import Celeriac, drivers, signals, states
from celeriac.drivers.memory import forget
from celeriac.exceptions import CorruptStore, LeaseLost, NotCapable, OperationalError
from celeriac.message import Message, Owner, Worker
from celeriac.worker.agent import Agent
from celeriac.worker.control import Failed, Leave, Line, Registered, Stalled, Terminate, Word
from celeriac.worker.options import WorkerOptions
from celeriac.worker.slots import SlotState, SlotTable
from celeriac.worker.watchdog import LOOK_EVERY, PATIENCE, Watchdog

URL = "memory://agent-tests"
LEASE = "celery@test.1"


class Cut:
    """Any driver object, behind a wire that can be cut."""

    def __init__(self, inner: Any, world: World) -> None:
        self._inner = inner
        self._world = world

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value) or name == "close":
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._world.error is not None:
                raise self._world.error
            return value(*args, **kwargs)

        return call


class World:
    """An application, an agent in a thread, and both ends of the line."""

    def __init__(self, **options: Any) -> None:
        self.error: Exception | None = None
        self.made = 0
        self.app: Any = Celeriac("agent", broker=URL, set_as_current=False)
        self.task = self.app.task(name="shop.send")(lambda: None)
        self.broker = self.app.make_broker()
        self.broker.open()
        self.results = self.app.make_results()
        self.results.open()
        make = self.app.make_broker

        def make_cut() -> Cut:
            self.made += 1
            return Cut(make(), self)

        self.app.make_broker = make_cut
        values: dict[str, Any] = {
            "app": "",
            "hostname": "celery@test",
            "lease_name": LEASE,
            "queues": ["celery"],
            "lease": 0.6,
            "heartbeat_interval": 0.1,
            "startup_patience": 0.3,
        }
        self.options = WorkerOptions(**(values | options))
        self.table = SlotTable.create(2, 0)
        self.words: list[Word] = []
        self.start()

    def start(self) -> None:
        self.table.next_agent_incarnation()
        self.line, theirs = Line.pair()
        self.code: int | None = None
        agent = Agent(self.app, self.options, self.table, theirs)

        def run() -> None:
            self.code = agent.run()

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def heard(self, kind: type) -> list[Any]:
        self.words += self.line.hear()
        return [word for word in self.words if isinstance(word, kind)]

    def stop(self) -> int | None:
        self.error = None
        self.line.say(Leave())
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.line.close()
        return self.code

    def owner(self) -> Owner:
        return Owner(LEASE, 0, 1)

    def has_lease(self) -> bool:
        try:
            self.broker.claim(self.owner(), ["nothing"], 1)
        except LeaseLost:
            return False
        return True


def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**options: Any) -> World:
        made.append(World(**options))
        return made[-1]

    yield make
    for one in made:
        one.stop()
        one.broker.close()
        one.results.close()
        one.app.close()
        one.table.close()
    forget(URL)


def started(world: Callable[..., World], **options: Any) -> World:
    one = world(**options)
    until(lambda: one.heard(Registered))
    return one


def test_it_keeps_the_lease_and_gives_it_back(world: Callable[..., World]) -> None:
    one = started(world)
    assert one.table.lease_epoch == 1
    begin = time.monotonic()
    while time.monotonic() < begin + 1.5:  # more than two leases
        assert one.has_lease()
        assert time.monotonic() - one.table.agent_beat < 1.0
        time.sleep(0.02)
    assert one.stop() == 0
    assert not one.has_lease()


def test_nothing_of_it_is_left(world: Callable[..., World]) -> None:
    """A thread that still waits at a socket would keep whatever file has its number next."""
    one = started(world)
    before = [thread for thread in threading.enumerate() if thread.name == "celeriac-line"]
    assert one.stop() == 0
    assert before
    assert not any(thread.is_alive() for thread in before)


def test_heartbeats_are_told(world: Callable[..., World]) -> None:
    beats = threading.Semaphore(0)

    def beat(**_: Any) -> None:
        beats.release()

    signals.heartbeat_sent.connect(beat)
    try:
        one = started(world)
        assert all(beats.acquire(timeout=20) for _ in range(3))
        assert one.stop() == 0
    finally:
        signals.heartbeat_sent.disconnect(beat)


def test_a_broker_that_is_down_at_the_start(world: Callable[..., World]) -> None:
    one = world(startup_patience=0.0)
    one.error = OperationalError("Cannot reach sqlite:///x: start it.")
    one.stop()
    one.error = OperationalError("Cannot reach sqlite:///x: start it.")
    one.table.words[5] = 0  # no lease was ever registered
    one.start()
    one.thread.join(5)
    assert one.code == 1
    assert [word.text for word in one.heard(Failed)] == ["Cannot reach sqlite:///x: start it."]


@pytest.mark.parametrize("error", [CorruptStore("not ours"), NotCapable("cannot")])
def test_what_waiting_does_not_mend_is_not_waited_for(
    world: Callable[..., World], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = world(startup_patience=60.0)
    one.stop()
    one.error = error
    one.table.words[5] = 0
    one.start()
    one.thread.join(5)
    assert one.code == 1
    assert [word.text for word in one.heard(Failed)] == [str(error)]


def test_an_outage_is_survived_with_a_new_connection(
    world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    one = started(world)
    made = one.made
    one.error = OperationalError("The wire is cut.")
    until(lambda: one.made >= made + 2)
    beat = one.table.agent_beat
    until(lambda: one.table.agent_beat > beat)  # alive, though it can do nothing
    one.error = None
    until(lambda: "is back" in caplog.text)
    assert caplog.text.count("The wire is cut.") == 1
    assert caplog.text.count("is back") == 1
    until(one.has_lease)


def test_a_lost_lease_is_registered_anew(world: Callable[..., World]) -> None:
    one = started(world)
    one.broker.unregister(LEASE)
    until(lambda: one.table.lease_epoch == 2)
    assert one.has_lease()
    assert len(one.heard(Registered)) == 1


def test_a_second_agent_goes_on_with_the_lease(world: Callable[..., World]) -> None:
    one = started(world)
    one.line.close()  # as if the process was gone: it ends without giving anything back
    one.thread.join(5)
    assert one.has_lease()
    one.start()
    begin = time.monotonic()
    until(lambda: time.monotonic() > begin + 1.0)
    assert one.has_lease()
    assert one.table.lease_epoch == 1


def message(task_id: str) -> Message:
    headers = (
        f'{{"id": "{task_id}", "task": "shop.send", "lang": "py", "root_id": "{task_id}"}}'
    ).encode()
    return Message(
        id=task_id,
        run=task_id,
        queue="celery",
        headers=headers,
        body=b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]',
    )


def test_a_request_to_terminate_reaches_the_supervisor_soon(world: Callable[..., World]) -> None:
    one = started(world, lease=30.0, heartbeat_interval=10.0)
    one.broker.publish([message("a")])
    one.broker.claim(one.owner(), ["celery"], 1)
    one.app.revoke("a", terminate=True, signal="SIGKILL")
    until(lambda: one.heard(Terminate), 1.0)
    assert one.heard(Terminate)[0] == Terminate("a", "SIGKILL")


def test_what_dead_workers_left_for_good_is_settled(world: Callable[..., World]) -> None:
    """A message that was begun at most once, by a worker whose lease has ended."""
    one = started(world)
    one.broker.publish([message("a")])
    one.broker.register(Worker(lease="dead", ttl=0.1))
    deliveries = one.broker.claim(Owner("dead", 0, 1), ["celery"], 1)
    assert one.broker.begin(deliveries) == []
    until(lambda: one.results.get(["a"])[0] is not None)
    assert one.results.get(["a"])[0].state == states.FAILURE


def test_what_a_dead_agent_was_handed_is_settled_by_the_next(world: Callable[..., World]) -> None:
    one = started(world)
    one.broker.publish([message("a")])
    agents = Owner(LEASE, -1, one.table.agent_incarnation)
    assert one.broker.begin(one.broker.claim(agents, ["celery"], 1)) == []
    one.line.close()
    one.thread.join(5)
    one.start()
    until(lambda: one.results.get(["a"])[0] is not None)
    assert one.results.get(["a"])[0].state == states.FAILURE


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def watch(world: World, clock: Clock, seconds: float) -> list[str]:
    """Look at the worker for a while, each second."""
    said = []
    dog = world.dog  # type: ignore[attr-defined]
    end = clock.now + seconds
    while clock.now < end:
        clock.now += 1.0
        if text := dog.look(clock.now):
            said.append(text)
    return said


@pytest.fixture
def watched(world: Callable[..., World]) -> tuple[World, Clock]:
    one = started(world, queues=["celery"])
    clock = Clock()
    one.dog = Watchdog(one.table, ["celery"], clock=clock)  # type: ignore[attr-defined]
    one.dog.use(one.broker)  # type: ignore[attr-defined]
    for slot in one.table.slots():
        slot.set_state(SlotState.IDLE)
    return one, clock


def test_work_that_nobody_claims_is_noticed(watched: tuple[World, Clock]) -> None:
    one, clock = watched
    assert watch(one, clock, 300.0) == []  # nothing waits
    one.broker.publish([message("a")])
    said = watch(one, clock, PATIENCE + 2 * LOOK_EVERY)
    assert len(said) == 1
    assert "1 message(s) wait" in said[0]


def test_a_worker_that_works_is_left_alone(watched: tuple[World, Clock]) -> None:
    one, clock = watched
    one.broker.publish([message("a")])
    slot = one.table.slot(0)
    for _ in range(20):
        slot.count(claimed=1)
        assert watch(one, clock, LOOK_EVERY) == []
    slot.start(1, "long", "a", 0.0)
    assert watch(one, clock, 600.0) == []


def test_a_paused_queue_is_no_work(watched: tuple[World, Clock]) -> None:
    one, clock = watched
    one.broker.publish([message("a")])
    drivers.admin_of(one.broker).pause("celery")
    assert watch(one, clock, 300.0) == []
    assert not one.heard(Stalled)
