"""RabbitMQ with results elsewhere: what comes again is not run again, what was sent twice once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.drivers.rabbitmq_stage import shared_server

from celeriac import Celeriac
from celeriac.message import Delivery, Owner, Settled, Settlement
from celeriac.settling import Settling
from celeriac.worker.executor import Executor, Job
from celeriac.worker.options import WorkerOptions

OWNER = Owner("w1", 1, 1)


class Worker:
    """One process of a worker, step by step."""

    def __init__(self, app: Celeriac) -> None:
        self.broker: Any = app.make_broker()
        self.results: Any = app.make_results()
        self.broker.open()
        self.results.open()
        options = WorkerOptions(app="x", hostname="w1@h", lease_name="w1", queues=["celery"])
        self.executor = Executor(app, options, self.broker, self.results)
        self.settling = Settling(self.broker, self.results, follow=self.executor.follow)

    def claim(self, wait: float = 5.0) -> Delivery:
        [delivery] = self.broker.claim(OWNER, ["celery"], 1, wait=wait)
        return delivery  # type: ignore[no-any-return]

    def die(self) -> None:
        self.broker._line.connection._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.broker.close()
        self.results.close()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celeriac]:
    url = shared_server().new_vhost()
    backend = f"sqlite:///{tmp_path}/results.db"
    app = Celeriac("split", broker=url, backend=backend, set_as_current=False)

    @app.task(name="double")
    def double(number: int) -> int:
        return number * 2

    yield app
    app.close()


@pytest.fixture
def pair(app: Celeriac) -> Iterator[tuple[Worker, Worker]]:
    workers = Worker(app), Worker(app)
    yield workers
    for worker in workers:
        worker.close()


def test_an_outcome_that_is_stored_is_not_run_again(
    app: Celeriac, pair: tuple[Worker, Worker]
) -> None:
    """Killed after the record and before the rest: what follows is sent from the record."""
    first, second = pair
    double = app.tasks["double"]
    sent = double.apply_async((2,), link=double.s())
    job = first.executor.admit(first.claim())
    assert isinstance(job, Job)
    settlement = first.executor.run(job)
    first.results.put(settlement.records)
    first.die()
    again = second.claim()
    assert (again.lost, again.redelivered) == (1, True)
    repeated = second.executor.admit(again)
    assert isinstance(repeated, Settlement)
    assert [message.id for message in repeated.messages] == [settlement.messages[0].id]
    assert second.settling.settle([repeated]) == [Settled.SETTLED]
    job = second.executor.admit(second.claim())
    assert isinstance(job, Job)
    assert list(job.request.args) == [4]
    assert second.settling.settle([second.executor.run(job)]) == [Settled.SETTLED]
    assert app.AsyncResult(sent.id).get(timeout=5) == 4
    assert app.AsyncResult(settlement.messages[0].id).get(timeout=5) == 8


def test_what_was_published_twice_runs_once(app: Celeriac, pair: tuple[Worker, Worker]) -> None:
    """Killed after what follows was published and before the acknowledgement: the second message
    of the key is a repeat; the first one, when it comes again, is not."""
    first, second = pair
    double = app.tasks["double"]
    double.apply_async((2,), link=double.s())
    job = first.executor.admit(first.claim())
    assert isinstance(job, Job)
    settlement = first.executor.run(job)
    first.results.put(settlement.records)
    keyed = [
        type(message)(
            **{
                **{name: getattr(message, name) for name in message.__struct_fields__},
                "dedupe_key": f"{job.delivery.message.run}/{message.id}",
            }
        )
        for message in settlement.messages
    ]
    first.broker.publish(keyed)
    first.die()
    follower = second.claim()
    assert isinstance(second.executor.admit(follower), Job)
    second.die()  # and comes again
    repeated = second.executor.admit(second.claim())
    seen: list[str] = []
    for _ in range(3):
        if isinstance(repeated, Job):
            seen.append("run")
            repeated = second.executor.run(repeated)
        else:
            seen.append("repeated" if repeated.messages else "dropped")
        assert second.settling.settle([repeated]) == [Settled.SETTLED]
        if len(seen) < 3:
            repeated = second.executor.admit(second.claim())
    assert sorted(seen) == ["dropped", "repeated", "run"]
    assert second.broker.claim(OWNER, ["celery"], 1, wait=0.7) == []
