"""An application as far as its broker and result backend go."""

from __future__ import annotations

import os
import threading
from typing import Any

from celeriac import drivers, signals
from celeriac.app import stores
from celeriac.app.configured import ConfiguredApp
from celeriac.contracts import Broker, EventBus, ResultBackend, ScheduleStore
from celeriac.producer import Producer


class ConnectedApp(ConfiguredApp):
    """Its drivers, and the producer of this process."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.on_after_fork = signals.Signal("on_after_fork")
        self._producer: Producer | None = None
        self._inherited: list[Producer] = []

    # --- drivers --------------------------------------------------------------------------------

    def make_broker(self) -> Broker:
        """A new, unopened broker."""
        return stores.make_broker(self)

    def make_results(self) -> ResultBackend | None:
        """A new, unopened result backend; None if there is none."""
        return stores.make_results(self)

    def make_schedules(self) -> ScheduleStore | None:
        """A new, unopened store for periodic tasks: the broker's, else the result backend's; None
        if neither has one."""
        return stores.make_schedules(self)

    def make_bus(self) -> EventBus | None:
        """A new event bus of the broker, if it has one."""
        return stores.make_bus(self)

    # --- the producer ---------------------------------------------------------------------------

    @property
    def producer(self) -> Producer:
        """What publishes and waits in this process."""
        producer = self._producer
        if producer is None or producer.pid != os.getpid():
            with self._lock:
                producer = self._producer
                if producer is None or producer.pid != os.getpid():
                    producer = self._producer = Producer(self)
        return producer

    def _after_fork(self) -> None:
        """In a forked child: a thread that held the lock does not exist here, and the connections
        are the parent's. They are kept unused: to close them could disturb the parent."""
        self._lock = threading.RLock()
        if self._producer is not None:
            self._inherited.append(self._producer)
        self._producer = None
        self.on_after_fork.send(sender=self)

    def results_or_raise(self) -> ResultBackend:
        """The open result backend. Raises as ``check_results``."""
        results = self.producer.results
        if results is None:
            raise stores.no_results()
        return results

    def check_results(self) -> None:
        """Raises NotImplementedError, as Celery does, if no result backend is configured."""
        if self.backend_url is None:
            raise stores.no_results()

    @property
    def backend(self) -> ResultBackend | None:
        return self.producer.results

    @property
    def reply_to(self) -> str:
        """Where results of tasks that this process sends are to go, if they are sent. Raises
        OperationalError."""
        url = self.backend_url
        if url is None or not drivers.sends_results(url):
            return ""
        return str(getattr(self.producer.results, "reply_to", ""))

    def close(self) -> None:
        """Let go of all connections."""
        if self._producer is not None and self._producer.pid == os.getpid():
            self._producer.close()
        self._producer = None
