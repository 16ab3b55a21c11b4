"""Running messages of an application on ``memory://`` without a worker, and looking at them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celeriac import Celeriac
from celeriac.message import Delivery, Message, Owner, Settlement, Worker
from celeriac.protocol.reading import decode
from celeriac.protocol.task import TaskMessage
from celeriac.settling import Settling
from celeriac.signals import Signal
from celeriac.worker.executor import Executor
from celeriac.worker.options import WorkerOptions

MakeApp = Callable[..., Celeriac]


class Clock:
    """Real time, and what was jumped ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    def jump_to(self, when: float) -> None:
        self.ahead = max(self.ahead, when - time.time())


class Stage:
    """Takes messages from the store and runs them, one after the other, as a runner would.

    Its clock says what is due; ``run(due=True)`` moves it to the next message's time."""

    def __init__(self, app: Celeriac, queues: tuple[str, ...] = ("celery",)) -> None:
        self.app = app
        self.queues = queues
        self.clock = Clock()
        app.conf.broker_transport_options = {"clock": self.clock}
        app.producer.close()
        self.broker = app.producer.broker
        self.results = app.producer.results
        options = WorkerOptions.from_conf(app.conf, app="stage", hostname="celery@stage")
        self.owner = Owner("stage", 0, 1)
        self.broker.register(Worker(lease="stage", ttl=1e9))
        self.executor = Executor(app, options, self.broker, self.results)
        self.settling = Settling(self.broker, self.results)

    def claim(self) -> list[Delivery]:
        return self.broker.claim(self.owner, self.queues, 1)

    def one(self) -> Settlement:
        """Run the next message; there must be one. Its settlement, already settled."""
        (delivery,) = self.claim()
        return self.take(delivery)

    def take(self, delivery: Delivery) -> Settlement:
        job = self.executor.admit(delivery)
        if not isinstance(job, Settlement):
            assert self.executor.begin(job)
            job = self.executor.run(job)
        self.settling.settle([job])
        return job

    def run(self, *, due: bool = True) -> int:
        """Run all messages, those that follow too; delayed ones as if their time had come. How
        many were run."""
        count = 0
        while True:
            deliveries = self.claim()
            if not deliveries and due:
                delayed = self.broker.kept.next_due()  # type: ignore[attr-defined]
                if delayed is not None:
                    self.clock.jump_to(delayed)
                    deliveries = self.claim()
            if not deliveries:
                return count
            self.take(deliveries[0])
            count += 1
            assert count < 1000, "the messages do not come to an end"


def messages_of(app: Celeriac) -> list[Message]:
    """What the application's store holds, in the order of publishing."""
    kept = app.producer.broker.kept  # type: ignore[attr-defined]
    return [entry.message for entry in kept.entries.values()]


def read(message: Message) -> TaskMessage:
    """A message as its worker would read it, whatever its content type."""
    return decode(message, frozenset((message.content_type,)))


class Heard(list[dict[str, Any]]):
    """What a signal said, one dictionary for each time."""

    def __init__(self, signal: Signal, **connect: Any) -> None:
        super().__init__()

        def receive(**named: Any) -> None:
            self.append(named)

        self.receive = receive
        signal.connect(receive, weak=False, **connect)
