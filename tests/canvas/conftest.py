"""Workers for the canvas tests: one in this process on ``memory://``, real processes elsewhere.

A store is one line in STORES; its servers are what the tests of its driver start.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flow_tasks
import msgspec
import psutil
import pytest
from tests.drivers import rabbitmq_stage, redis_stage

from celeriac import Celeriac
from celeriac.drivers import memory
from celeriac.worker.options import WorkerOptions
from celeriac.worker.solo import Solo

HERE = Path(__file__).parent
PATIENCE = 30.0


_databases = itertools.cycle(range(15, 7, -1))


def redis_database() -> str:
    """The URL of an empty database on the server that all tests share."""
    url = redis_stage.shared_server().url.removesuffix("/0") + f"/{next(_databases)}"
    wire = redis_stage.Wire(url)
    wire("FLUSHDB")
    wire.close()
    return url


# Where the tests run, by name: broker and result backend, in a temporary directory.
STORES: dict[str, Callable[[Path], tuple[str, str]]] = {
    "memory": lambda path: (f"memory://flow-{os.getpid()}",) * 2,
    "sqlite": lambda path: (f"sqlite:///{path}/flow.db",) * 2,
    "redis": lambda path: (redis_database(),) * 2,
    "rabbitmq": lambda path: (rabbitmq_stage.shared_server().new_vhost(), redis_database()),
    "two stores": lambda path: (f"sqlite:///{path}/broker.db", f"sqlite:///{path}/results.db"),
}


class Flow:
    """A store, a worker on it, and what its tasks have noted."""

    def __init__(self, urls: tuple[str, str], path: Path) -> None:
        self.url, self.backend = urls
        self.path = path
        self.notes_file = path / "notes"
        self.app = flow_tasks.app
        self.app.conf.update(broker_url=self.url, result_backend=self.backend)
        self.app.close()
        os.environ["FLOW_NOTES"] = str(self.notes_file)
        self.solo: Solo | None = None
        self.thread: threading.Thread | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def __getattr__(self, name: str) -> Any:
        """A task by its name in flow_tasks."""
        return getattr(flow_tasks, name)

    # --- workers

    def start(self) -> None:
        if self.url.startswith("memory:"):
            self._start_here()
        else:
            self._start_process()

    def _start_here(self) -> None:
        options = WorkerOptions.from_conf(self.app.conf, app="flow", hostname="flow@here")
        options = msgspec.structs.replace(options, pool="solo", concurrency=1)
        self.solo = Solo(self.app, options)
        self.thread = threading.Thread(target=self.solo.run, name="flow-worker")
        self.thread.start()

    def _start_process(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "celeriac", "-A", "flow_tasks"),
                *("--result-backend", self.backend, "worker", "-c", "2", "-l", "warning"),
            ],
            cwd=HERE,
            env={**os.environ, "FLOW_URL": self.url, "FLOW_NOTES": str(self.notes_file)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        if self.solo is not None and self.thread is not None:
            self.solo.stop()
            self.thread.join(PATIENCE)
            assert not self.thread.is_alive()
            self.solo = self.thread = None
        if self.process is not None:
            self._end(self.process)
            self.process = None

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            for one in (*psutil.Process(process.pid).children(recursive=True), process):
                one.kill()
            process.wait(PATIENCE)
            raise

    def close(self) -> None:
        self.stop()
        self.app.close()
        os.environ.pop("FLOW_NOTES", None)
        if self.url.startswith("memory:"):
            memory.forget(self.url)

    # --- looking

    def get(self, sig: Any, **options: Any) -> Any:
        """The value of the workflow."""
        return sig.apply_async(**options).get(timeout=PATIENCE)

    def notes(self, word: str) -> Counter[str]:
        if not self.notes_file.exists():
            return Counter()
        lines = [line.partition(" ") for line in self.notes_file.read_text().splitlines()]
        return Counter(rest for first, _, rest in lines if first == word)

    def until(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
            time.sleep(0.01)

    def idle(self) -> None:
        """Wait until no message is left but dead letters."""

        def empty() -> bool:
            infos = self.app.admin().queues()
            return not any(one.waiting + one.delayed + one.in_flight for one in infos)

        self.until(empty, "the queues to be empty")

    def needs_messages_by_id(self) -> None:
        """Skips where no message that waits can be looked up (Capabilities.by_id)."""
        if not self.app.producer.broker.capabilities.by_id:
            pytest.skip("this broker does not find messages by their ids")

    def state(self, task_id: str) -> str:
        return str(Celeriac.AsyncResult(self.app, task_id).state)


@pytest.fixture(scope="module", params=list(STORES))
def flow(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flow]:
    """A store with a worker."""
    path = tmp_path_factory.mktemp("flow")
    made = Flow(STORES[request.param](path), path)
    made.start()
    yield made
    made.close()


@pytest.fixture(params=["memory", "sqlite", "redis", "rabbitmq"])
def still(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flow]:
    """A store of each kind, whose worker is started by the test."""
    made = Flow(STORES[request.param](tmp_path), tmp_path)
    yield made
    made.close()


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Flow]:
    """One on SQLite, for what does not depend on the store."""
    made = Flow(STORES["sqlite"](tmp_path), tmp_path)
    yield made
    made.close()
