"""What runs a scheduler: it goes on through errors, and ends when told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac, signals
from celeriac.beat import EmbeddedService, Scheduler, Service
from celeriac.exceptions import ImproperlyConfigured, OperationalError


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celeriac]:
    app = Celeriac("service", broker=f"sqlite:///{tmp_path}/q.db", set_as_current=False)
    yield app
    app.close()


class Scripted(Scheduler):
    """Does what it is told, one step a tick."""

    steps: list[Callable[[], float]] = []
    ticks = 0
    closed = False

    def __init__(self, *args: Any, schedule_filename: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        step = self.steps[min(self.ticks, len(self.steps) - 1)]
        type(self).ticks += 1
        return step()

    def should_sync(self) -> bool:
        return False

    def close(self) -> None:
        type(self).closed = True


def scripted(*steps: Callable[[], float]) -> Any:
    return type("Here", (Scripted,), {"steps": list(steps)})


def failing(error: Exception) -> Callable[[], float]:
    def step() -> float:
        raise error

    return step


def run_until(service: Service, condition: Callable[[], bool]) -> None:
    thread = threading.Thread(target=service.start)
    thread.start()
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    service.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert condition()


def test_it_goes_on_through_errors(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    cls = scripted(
        failing(OperationalError("broker away")),
        failing(OperationalError("broker away")),
        failing(ZeroDivisionError("a mistake")),
        failing(ImproperlyConfigured("a later mistake")),
        lambda: 0.01,
    )
    run_until(Service(app, scheduler_cls=cls), lambda: cls.ticks > 6)
    assert cls.closed
    assert caplog.text.count("broker away") == 1, "an outage is said once"
    assert "sent again after" in caplog.text
    assert "a mistake" in caplog.text


def test_a_scheduler_that_cannot_be_made_yet(app: Celeriac) -> None:
    made = []

    class Late(Scripted):
        steps = [lambda: 0.01]

        def setup_schedule(self) -> None:
            made.append(1)
            if len(made) < 3:
                raise OperationalError("not yet")

    run_until(Service(app, scheduler_cls=Late), lambda: Late.ticks > 1)
    assert len(made) == 3


def test_a_wrong_schedule_ends_it(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    app.conf.beat_schedule = {"a": {"task": "t"}}
    with pytest.raises(ImproperlyConfigured, match="periodic task 'service:a': it has no 'sched"):
        Service(app).start()
    thread = EmbeddedService(app)
    thread.start()
    thread.join(10)
    assert "Periodic tasks are not sent" in caplog.text
    thread.stop()


def test_stopping_does_not_wait_for_the_next_run(app: Celeriac) -> None:
    cls = scripted(lambda: 3600.0)
    service = Service(app, scheduler_cls=cls)
    begun = time.monotonic()
    run_until(service, lambda: cls.ticks > 0)
    assert time.monotonic() - begun < 5


def test_stopped_before_it_begins(app: Celeriac) -> None:
    service = Service(app, scheduler_cls=scripted(lambda: 1.0))
    service.stop()
    service.start()


def test_signals(app: Celeriac) -> None:
    heard: list[str] = []

    def init(**_: Any) -> None:
        heard.append("init")

    def embedded(**_: Any) -> None:
        heard.append("embedded")

    signals.beat_init.connect(init)
    signals.beat_embedded_init.connect(embedded)
    try:
        cls = scripted(lambda: 0.01)
        run_until(Service(app, scheduler_cls=cls), lambda: cls.ticks > 1)
        assert heard == ["init"]
        thread = EmbeddedService(app, scheduler_cls=cls)
        thread.start()
        deadline = time.monotonic() + 10
        while len(heard) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        thread.stop()
        assert heard == ["init", "init", "embedded"]
        assert not thread.is_alive()
    finally:
        signals.beat_init.disconnect(init)
        signals.beat_embedded_init.disconnect(embedded)


def test_sends_for_real(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "celeriac.beat")
    app.conf.beat_schedule = {"a": {"task": "t", "schedule": 0.05}}
    run_until(Service(app), lambda: sum(q.waiting for q in app.admin().queues()) >= 5)
    assert "Scheduler: Sending due task a (t)" in caplog.text
