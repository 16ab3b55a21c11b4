"""What schedulers do differently where the broker can neither be asked nor remembers anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

import pytest
from tests.drivers import rabbitmq_stage, redis_stage

from celeriac import Celeriac
from celeriac.beat import SharedScheduler
from celeriac.message import Message
from celeriac.testing import FakeClock
from celeriac.testing.samples import record


class Watched(SharedScheduler):
    """Nobody can look into the queues: it tells what it has put there."""

    def publish(self, messages: Sequence[Message]) -> None:
        super().publish(messages)
        self.sent = [*getattr(self, "sent", []), *(json.loads(one.headers) for one in messages)]


Make = Callable[[str], tuple[Watched, FakeClock]]


@pytest.fixture
def make(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Make]:
    """A scheduler with one entry, every ten seconds, that must not overlap itself."""
    made: list[Watched] = []
    monkeypatch.chdir(tmp_path_factory.mktemp("beat"))

    def make(backend: str) -> tuple[Watched, FakeClock]:
        broker = rabbitmq_stage.shared_server().new_vhost()
        app = Celeriac("rabbit", broker=broker, backend=backend, set_as_current=False)
        app.conf.beat_schedule = {"e": {"task": "t", "schedule": 10.0, "overlap": "skip"}}
        clock = FakeClock(1_700_000_000.0)
        scheduler = Watched(app, clock=clock, elapsed=clock)
        scheduler._stepped_back = 0.0
        made.append(scheduler)
        return scheduler, clock

    yield make
    for scheduler in made:
        scheduler.close()
        scheduler.app.close()


def pass_time(scheduler: Watched, clock: FakeClock, turns: int) -> None:
    for _ in range(turns):
        clock.advance(10)
        scheduler.tick()


def test_overlap_goes_by_the_results(make: Make) -> None:
    server = redis_stage.shared_server()
    server.call("FLUSHALL")
    scheduler, clock = make(server.url)
    pass_time(scheduler, clock, 3)
    (first,) = scheduler.sent
    assert first["ignore_result"] is False, "nothing would tell that it is over"
    results = scheduler.app.producer.results
    assert results is not None
    results.put([record(str(first["id"]))])
    pass_time(scheduler, clock, 3)
    assert len(scheduler.sent) == 2
    # A run that is lost does not stop its entry for ever.
    clock.advance(86_400)
    scheduler.tick()
    assert len(scheduler.sent) == 3


def test_overlap_cannot_be_kept_without_results(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler, clock = make("rpc://")
    pass_time(scheduler, clock, 3)
    assert "overlap is always allowed" in caplog.text
    assert len(scheduler.sent) == 3
    assert {one["ignore_result"] for one in scheduler.sent} == {True}, (
        "the scheduler reads no results"
    )
