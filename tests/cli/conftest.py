"""A project of a user's in a temporary directory, and the real ``celeriac`` command in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.message import Owner, Settlement, Verdict, Worker

TASKS = """\
import time

from celeriac import Celeriac

app = Celeriac("shop", broker="sqlite:///shop.db")


@app.task
def add(x, y):
    return x + y


@app.task
def fail(text):
    raise ValueError(text)


@app.task
def nap(seconds):
    with open("napping", "w"):
        time.sleep(seconds)


@app.task
def echo(**kwargs):
    return kwargs


@app.task(queue="mail")
def send(to):
    return to
"""

COMMAND = str(Path(sys.executable).with_name("celeriac"))
PATIENCE = 60.0
_OURS = ("CELERIAC_", "CELERY_", "APP", "BROKER_URL", "RESULT_BACKEND", "CONFIG_MODULE", "NO_COLOR")


class Project:
    """The directory, and what is done in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"sqlite:///{directory}/shop.db"
        self._workers: list[subprocess.Popen[bytes]] = []
        self._apps: list[Celeriac] = []

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def run(
        self, *args: str, command: Sequence[str] = (COMMAND,), answer: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``celeriac ARGS`` to its end."""
        return subprocess.run(
            [*command, *args],
            cwd=self.directory,
            env=_environment(environment),
            input=answer,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def good(self, *args: str, **more: Any) -> str:
        """What ``celeriac -A tasks ARGS`` prints; it must end well."""
        done = self.run("-A", "tasks", *args, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def bad(self, *args: str, code: int = 1, **more: Any) -> str:
        """The error of ``celeriac ARGS``, which must have no traceback."""
        done = self.run(*args, **more)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback (most" not in done.stderr
        return done.stderr

    def json(self, *args: str) -> Any:
        return json.loads(self.good(*args, "--json"))

    def start_worker(self, *args: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start ``celeriac -A tasks worker ARGS`` and wait until it is ready."""
        ready = self.log().count(" ready.")
        with open(self.directory / "worker.log", "ab") as log:
            worker = subprocess.Popen(
                [COMMAND, "-A", "tasks", "worker", "-l", "info", *args],
                cwd=self.directory,
                env=_environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._workers.append(worker)
        self.wait_until(lambda: self.log().count(" ready.") > ready or worker.poll() is not None)
        assert worker.poll() is None, self.log()
        return worker

    def log(self) -> str:
        path = self.directory / "worker.log"
        return path.read_text() if path.exists() else ""

    def stop(self, worker: subprocess.Popen[bytes]) -> int:
        worker.terminate()
        return worker.wait(PATIENCE)

    def app(self) -> Celeriac:
        """The project's store from here; its tasks are not known."""
        app = Celeriac("shop", broker=self.url, set_as_current=False)
        self._apps.append(app)
        return app

    def alive(self) -> int:
        if not (self.directory / "shop.db").exists():
            return 0
        with self.app() as app:
            return sum(worker.alive for worker in app.admin().workers())

    def bury(self, *ids: str, queue: str = "celery", reason: str = "broken") -> None:
        """Make dead letters of calls of tasks.add with these ids."""
        with self.app() as app:
            for task_id in ids:
                app.send_task("tasks.add", [1, 2], task_id=task_id, queue=queue)
            broker = app.producer.broker
            broker.register(Worker(lease="undertaker", ttl=60.0))
            claimed = broker.claim(Owner("undertaker", 0, 1), [queue], 100)
            broker.settle(
                [
                    Settlement(delivery=one, verdict=Verdict.BURY, reason=reason)
                    if one.message.id in ids
                    else Settlement(delivery=one, verdict=Verdict.RELEASE)
                    for one in claimed
                ]
            )
            broker.unregister("undertaker")

    def wait_until(self, condition: Callable[[], Any], patience: float = PATIENCE / 2) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline, "it has not happened"
            time.sleep(0.02)

    def close(self) -> None:
        for app in self._apps:
            app.close()
        for worker in self._workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGQUIT)
                try:
                    worker.wait(PATIENCE / 4)
                except subprocess.TimeoutExpired:
                    worker.kill()
                    worker.wait(PATIENCE)


def _environment(more: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, **more}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    project.write("tasks.py", TASKS)
    yield project
    project.close()
