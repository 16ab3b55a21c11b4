"""Publishing and waiting for many callers at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from core_stage import MakeApp, Stage, messages_of, read

from celeriac import Celeriac
from celeriac.exceptions import OperationalError
from celeriac.message import Message
from celeriac.producer import Producer


class SlowBroker:
    """Each publish takes as long as ``gate`` is shut, and notes what it was given."""

    store = "slow://"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Event()
        self.at_once = 0
        self.errors: list[BaseException] = []
        self._busy = threading.Lock()

    def open(self) -> None: ...

    def close(self) -> None: ...

    def publish(self, messages: Sequence[Message], joins: Sequence[Any] = ()) -> int:
        assert self._busy.acquire(blocking=False), "two callers use the connection at once"
        try:
            self.inside.set()
            assert self.gate.wait(20)
            if self.errors:
                raise self.errors.pop(0)
            self.batches.append([message.id for message in messages])
            return len(messages)
        finally:
            self._busy.release()


@pytest.fixture
def broker(app: Celeriac, monkeypatch: pytest.MonkeyPatch) -> SlowBroker:
    made = SlowBroker()
    monkeypatch.setattr(app, "make_broker", lambda: made)
    app.close()
    return made


@pytest.fixture
def producer(app: Celeriac, broker: SlowBroker) -> Producer:
    return app.producer


def message(task_id: str) -> Message:
    return Message(id=task_id, run=task_id, queue="q", headers=b"{}", body=b"")


def wait_until(condition: Callable[[], Any], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.001)


# --- threads ----------------------------------------------------------------------------------


def test_threads_that_find_it_busy_share_the_next_batch(
    producer: Producer, broker: SlowBroker
) -> None:
    broker.gate.clear()
    with ThreadPoolExecutor(21) as pool:
        first = pool.submit(producer.publish, [message("first")])
        assert broker.inside.wait(20)
        others = [pool.submit(producer.publish, [message(str(n))]) for n in range(20)]
        wait_until(lambda: len(producer._waiting) == 20)
        assert not any(one.done() for one in others)
        broker.gate.set()
        for one in (first, *others):
            one.result(timeout=20)
    assert broker.batches[0] == ["first"]
    assert len(broker.batches) == 2
    assert sorted(broker.batches[1], key=int) == [str(n) for n in range(20)]
    assert (producer._waiting, producer._sending) == ([], False)


def test_many_threads_lose_nothing(app: Celeriac, producer: Producer, broker: SlowBroker) -> None:
    job = app.task(name="job")(lambda n: None)

    def send(n: int) -> list[str]:
        return [job.delay(n).id for _ in range(50)]

    with ThreadPoolExecutor(8) as pool:
        sent = [task_id for ids in pool.map(send, range(8)) for task_id in ids]
    arrived = [task_id for batch in broker.batches for task_id in batch]
    assert len(arrived) == 400
    assert sorted(arrived) == sorted(sent)


def test_who_waits_is_not_overtaken_for_ever(producer: Producer, broker: SlowBroker) -> None:
    """A thread that publishes in a loop must not keep the others from their turn."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            producer.publish([message("loop")])

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        for n in range(50):
            producer.publish([message(f"other {n}")])
    finally:
        stop.set()
        thread.join(20)
    arrived = [task_id for batch in broker.batches for task_id in batch]
    assert [one for one in arrived if one.startswith("other")] == [f"other {n}" for n in range(50)]


def test_waiting_for_a_turn_is_bounded(
    app: Celeriac, producer: Producer, broker: SlowBroker
) -> None:
    app.conf.broker_publish_timeout = 0.05
    broker.gate.clear()
    thread = threading.Thread(target=producer.publish, args=([message("slow")],))
    thread.start()
    assert broker.inside.wait(20)
    with pytest.raises(OperationalError, match="broker_publish_timeout"):
        producer.publish([message("withdrawn")])
    broker.gate.set()
    thread.join(20)
    producer.publish([message("after")])
    assert broker.batches == [["slow"], ["after"]]


def test_taken_along_and_not_finished_in_time(
    app: Celeriac, producer: Producer, broker: SlowBroker
) -> None:
    app.conf.broker_publish_timeout = 0.1
    gates = [threading.Event(), threading.Event()]
    publish = broker.publish

    def stepwise(messages: Sequence[Message], joins: Sequence[Any] = ()) -> int:
        assert gates[min(len(broker.batches), 1)].wait(20)
        return publish(messages, joins)

    broker.publish = stepwise  # type: ignore[method-assign]
    errors: list[Any] = []

    def attempt(name: str) -> None:
        try:
            producer.publish([message(name)])
            errors.append(None)
        except OperationalError as exc:
            errors.append(str(exc))

    first = threading.Thread(target=attempt, args=("first",))
    first.start()
    wait_until(lambda: producer._sending)
    others = [threading.Thread(target=attempt, args=(name,)) for name in ("leads", "follows")]
    others[0].start()
    wait_until(lambda: len(producer._waiting) == 1)
    others[1].start()
    wait_until(lambda: len(producer._waiting) == 2)
    gates[0].set()  # the second batch begins, and hangs
    others[1].join(20)
    assert errors[0] is None
    assert "is not known" in errors[1]
    gates[1].set()
    others[0].join(20)
    first.join(20)
    assert sorted(broker.batches[1]) == ["follows", "leads"]


def test_a_batch_that_fails_fails_for_all_of_it(
    app: Celeriac, producer: Producer, broker: SlowBroker
) -> None:
    app.conf.task_publish_retry = False
    broker.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(producer.publish, [message("first")])
        assert broker.inside.wait(20)
        others = [pool.submit(producer.publish, [message(str(n))]) for n in range(3)]
        wait_until(lambda: len(producer._waiting) == 3)
        broker.errors = [OperationalError("down"), OperationalError("down")]
        broker.gate.set()
        for one in (first, *others):
            with pytest.raises(OperationalError, match="down"):
                one.result(timeout=20)
    producer.publish([message("again")])
    assert broker.batches == [["again"]]


def test_a_batch_that_is_refused_is_tried_one_by_one(
    producer: Producer, broker: SlowBroker
) -> None:
    publish = broker.publish

    def picky(messages: Sequence[Message], joins: Sequence[Any] = ()) -> int:
        if any(one.id == "bad" for one in messages) and broker.batches:
            raise ValueError("refused")
        return publish(messages, joins)

    broker.publish = picky  # type: ignore[method-assign]
    broker.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(producer.publish, [message("first")])
        assert broker.inside.wait(20)
        others = {
            name: pool.submit(producer.publish, [message(name)]) for name in ("a", "bad", "b")
        }
        wait_until(lambda: len(producer._waiting) == 3)
        broker.gate.set()
        first.result(timeout=20)
        others["a"].result(timeout=20)
        others["b"].result(timeout=20)
        with pytest.raises(ValueError, match="refused"):
            others["bad"].result(timeout=20)
    assert sorted(broker.batches) == [["a"], ["b"], ["first"]]


def test_an_interrupted_leader_does_not_say_that_the_others_were_sent(
    producer: Producer, broker: SlowBroker
) -> None:
    """Ctrl-C in the thread that sends for all: nobody may believe that his message is there."""
    broker.gate.clear()
    outcome: dict[str, Any] = {}

    def attempt(name: str) -> None:
        try:
            producer.publish([message(name)])
            outcome[name] = "sent"
        except BaseException as exc:
            outcome[name] = type(exc)

    threads = [threading.Thread(target=attempt, args=(name,)) for name in ("first", "a", "b")]
    threads[0].start()
    assert broker.inside.wait(20)
    for count, thread in enumerate(threads[1:], 1):
        thread.start()
        wait_until(lambda count=count: len(producer._waiting) == count)
    publish = broker.publish

    def interrupted(messages: Sequence[Message], joins: Sequence[Any] = ()) -> int:
        raise KeyboardInterrupt

    broker.publish = interrupted  # type: ignore[method-assign]
    broker.gate.set()
    for thread in threads:
        thread.join(20)
    assert outcome == {"first": "sent", "a": KeyboardInterrupt, "b": OperationalError}
    broker.publish = publish  # type: ignore[method-assign]
    producer.publish([message("goes on")])


def test_one_who_is_interrupted_while_waiting_passes_the_turn_on(
    producer: Producer, broker: SlowBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.gate.clear()
    thread = threading.Thread(target=producer.publish, args=([message("first")],))
    thread.start()
    assert broker.inside.wait(20)

    def interrupted(ticket: Any, patience: float) -> None:
        with producer._door:
            ticket.leads = True  # its turn has come just now
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(producer, "_await_turn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            producer.publish([message("interrupted")])
    broker.gate.set()
    thread.join(20)
    producer.publish([message("goes on")])
    assert broker.batches == [["first"], ["goes on"]]


# --- errors and retries -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "options", "failures", "tries"),
    [
        ({}, {}, 3, 4),
        ({}, {}, 4, None),
        ({"task_publish_retry": False}, {}, 1, None),
        ({}, {"retry": False}, 1, None),
        ({"task_publish_retry": False}, {"retry": True}, 3, 4),
        ({}, {"retry": True, "retry_policy": {"max_retries": 1}}, 1, 2),
        ({}, {"retry_policy": {"max_retries": 1}}, 2, None),
    ],
)
def test_publishing_is_retried_as_the_policy_says(
    app: Celeriac,
    broker: SlowBroker,
    settings: dict[str, Any],
    options: dict[str, Any],
    failures: int,
    tries: int | None,
) -> None:
    policy = {"max_retries": 3, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    app.conf.update(settings, task_publish_retry_policy=policy)
    job = app.task(name="job")(lambda: None)

    async def asynchronous() -> None:
        await job.aapply_async(**options)

    for send in (
        lambda: job.apply_async(**options),
        lambda: asyncio.run(asynchronous()),
        lambda: job.delay_many([()], **options),
    ):
        broker.batches.clear()
        broker.errors = [OperationalError("down") for _ in range(failures)]
        if tries is None:
            with pytest.raises(OperationalError, match="down"):
                send()
        else:
            send()
            assert len(broker.batches) == 1
        assert broker.errors == []


def test_retrying_ends_within_the_time(app: Celeriac, broker: SlowBroker) -> None:
    app.conf.broker_publish_timeout = 0.2
    app.conf.task_publish_retry_policy = {"max_retries": None, "interval_start": 0.05}
    broker.errors = [OperationalError("down") for _ in range(1000)]
    begun = time.monotonic()
    with pytest.raises(OperationalError, match="down"):
        app.send_task("job")
    assert time.monotonic() - begun < 5
    assert len(broker.errors) > 900


def test_callers_with_a_policy_of_their_own_keep_it_in_a_batch(
    app: Celeriac, producer: Producer, broker: SlowBroker
) -> None:
    app.conf.task_publish_retry_policy = {"max_retries": 0}
    broker.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(producer.publish, [message("first")])
        assert broker.inside.wait(20)
        usual = [pool.submit(producer.publish, [message(name)]) for name in ("a", "b")]
        wait_until(lambda: len(producer._waiting) == 2)
        stubborn = pool.submit(
            producer.publish,
            [message("c")],
            policy=app.dispatcher.policy({"retry_policy": {"max_retries": 5}}),
        )
        wait_until(lambda: len(producer._waiting) == 3)
        down = [OperationalError("down") for _ in range(3)]
        publish = broker.publish

        def falling(messages: Sequence[Message], joins: Sequence[Any] = ()) -> int:
            if down:
                raise down.pop()
            return publish(messages, joins)

        broker.publish = falling  # type: ignore[method-assign]
        broker.gate.set()
        first.result(timeout=20)
        for one in usual:
            with pytest.raises(OperationalError):
                one.result(timeout=20)
        stubborn.result(timeout=20)
    assert broker.batches == [["first"], ["c"]]


def test_a_broker_that_cannot_be_opened_is_tried_again_next_time(
    app: Celeriac, broker: SlowBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.conf.task_publish_retry = False
    failing = [True]

    def open_() -> None:
        if failing:
            raise OperationalError("cannot be reached")

    monkeypatch.setattr(broker, "open", open_)
    with pytest.raises(OperationalError, match="reached"):
        app.send_task("job")
    failing.clear()
    app.send_task("job")
    assert len(broker.batches) == 1


# --- coroutines -------------------------------------------------------------------------------


def test_a_thousand_coroutines_send_and_wait(app: Celeriac) -> None:
    @app.task
    def double(n: int) -> int:
        return n * 2

    app.finalize()
    stage = Stage(app)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            if not stage.run():
                time.sleep(0.001)

    async def one(n: int) -> int:
        return await (await double.adelay(n))

    async def main() -> list[int]:
        return await asyncio.wait_for(asyncio.gather(*(one(n) for n in range(1000))), 60)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert asyncio.run(main()) == [n * 2 for n in range(1000)]
    finally:
        stop.set()
        thread.join(20)
    assert app.producer._async_waiter is not None
    assert app.producer._async_waiter._futures == {}


def test_coroutines_share_round_trips(app: Celeriac, broker: SlowBroker) -> None:
    job = app.task(name="job")(lambda n: None)

    async def main() -> list[str]:
        results = await asyncio.gather(*(job.adelay(n) for n in range(300)))
        return [result.id for result in results]

    broker.gate.clear()
    threading.Timer(0.05, broker.gate.set).start()
    ids = asyncio.run(main())
    assert [task_id for batch in broker.batches for task_id in batch] == ids
    assert len(broker.batches) < 100


def test_the_loop_is_not_blocked_while_publishing(app: Celeriac, broker: SlowBroker) -> None:
    job = app.task(name="job")(lambda: None)
    broker.gate.clear()

    async def main() -> None:
        sending = asyncio.create_task(job.adelay())
        for _ in range(5):
            await asyncio.sleep(0.005)
        assert not sending.done()
        broker.gate.set()
        await asyncio.wait_for(sending, 20)

    asyncio.run(main())


def test_one_refused_message_does_not_harm_the_other_coroutines(
    app: Celeriac, broker: SlowBroker
) -> None:
    publish = broker.publish

    def picky(messages: Sequence[Message], joins: Sequence[Any] = ()) -> int:
        if any(read(one).args == [3] for one in messages):
            raise ValueError("refused")
        return publish(messages, joins)

    broker.publish = picky  # type: ignore[method-assign]
    job = app.task(name="job")(lambda n: None)

    async def main() -> list[Any]:
        calls = (job.adelay(n) for n in range(6))
        return await asyncio.gather(*calls, return_exceptions=True)

    outcome = asyncio.run(main())
    assert [isinstance(one, ValueError) for one in outcome] == [n == 3 for n in range(6)]


def test_results_wake_their_coroutine_at_once(app: Celeriac) -> None:
    """One that is asked for while others are waited for must not wait for their next look."""
    backend = app.backend
    assert backend is not None

    async def main() -> float:
        old = asyncio.create_task(app.AsyncResult("never").aget(timeout=30))
        await asyncio.sleep(0.05)
        slowest = 0.0
        for n in range(50):
            begun = time.monotonic()
            backend.put([app.records.write(str(n), "r", "SUCCESS", n)])
            assert await app.AsyncResult(str(n)).aget(timeout=30) == n
            slowest = max(slowest, time.monotonic() - begun)
        old.cancel()
        return slowest

    assert asyncio.run(main()) < 0.9


def test_several_loops_at_once(app: Celeriac) -> None:
    backend = app.backend
    assert backend is not None

    async def one(n: int) -> Any:
        return await app.AsyncResult(str(n % 3)).aget(timeout=30)

    def run(n: int) -> Any:
        return asyncio.run(one(n))

    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(run, n) for n in range(6)]
        for n in range(3):
            backend.put([app.records.write(str(n), "r", "SUCCESS", n)])
        assert [one.result(timeout=30) for one in waiting] == [0, 1, 2, 0, 1, 2]


def test_errors_of_the_backend_reach_the_coroutine(
    app: Celeriac, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def open(self) -> None:
            raise OperationalError("no backend here")

    monkeypatch.setattr(app, "make_results", Broken)
    app.close()

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(OperationalError, match="no backend"):
                await app.AsyncResult("a").aget(timeout=30)

    asyncio.run(main())


def test_a_cancelled_coroutine_leaves_nothing_behind(app: Celeriac) -> None:
    async def main() -> None:
        waiting = asyncio.create_task(app.AsyncResult("never").aget())
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        waiter = app.producer._async_waiter
        assert waiter is not None
        assert waiter._futures == {}

    asyncio.run(main())


def test_closing_ends_what_waits_and_threads(app: Celeriac) -> None:
    job = app.task(name="job")(lambda: None)

    async def main() -> None:
        await job.adelay()
        waiting = asyncio.create_task(app.AsyncResult("never").aget())
        await asyncio.sleep(0.01)
        producer = app.producer
        publisher, waiter = producer._async_publisher, producer._async_waiter
        assert publisher is not None
        assert waiter is not None
        await asyncio.to_thread(app.close)
        with pytest.raises(OperationalError, match="closed"):
            await waiting
        with pytest.raises(OperationalError, match="closed"):
            await publisher.publish([], (), None)
        with pytest.raises(OperationalError, match="closed"):
            await waiter.wait("x", 1)
        assert not publisher._thread.is_alive()
        assert not waiter._thread.is_alive()
        await job.adelay()  # and it goes on with new ones

    asyncio.run(main())
    assert len(messages_of(app)) == 2


def test_a_closed_loop_is_no_error_for_the_helpers(app: Celeriac, broker: SlowBroker) -> None:
    job = app.task(name="job")(lambda: None)
    broker.gate.clear()

    async def main() -> None:
        asyncio.create_task(job.adelay())  # noqa: RUF006
        await asyncio.sleep(0.01)

    asyncio.run(main())
    broker.gate.set()
    wait_until(lambda: broker.batches)

    async def again() -> None:
        await asyncio.wait_for(job.adelay(), 20)

    asyncio.run(again())
    assert len(broker.batches) == 2


def test_no_thread_without_need(make_app: MakeApp) -> None:
    before = threading.active_count()
    app = make_app()
    job = app.task(name="job")(lambda: None)
    job.delay()
    job.delay_many([()] * 3)
    assert threading.active_count() == before
