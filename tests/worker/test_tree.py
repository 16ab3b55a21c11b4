"""Whole workers, by their command line, on SQLite: what the process tree promises to messages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from celeriac import Celeriac

APP = """
import os, time
from celeriac import Celeriac
app = Celeriac("shop", broker="sqlite:///{path}/shop.db", worker_lease=2.0)

def note(*words):
    with open("{path}/notes", "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

@app.task(name="pid")
def pid():
    return os.getpid()

@app.task(name="slow")
def slow(key, seconds):
    note("start", key)
    time.sleep(seconds)
    note("end", key)
    return key
"""


class Workers:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.processes: list[subprocess.Popen[bytes]] = []
        (path / "shop.py").write_text(APP.format(path=path))
        self.app = Celeriac("shop", broker=f"sqlite:///{path}/shop.db", set_as_current=False)

    def start(self, *options: str, app: str = "shop") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celeriac", "-A", app, "worker", "-l", "info", *options]
        with open(self.path / "log", "ab") as log:
            process = subprocess.Popen(
                command, cwd=self.path, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def ready(self, *options: str, app: str = "shop", times: int = 1) -> subprocess.Popen[bytes]:
        process = self.start("-c", "1", *options, app=app)
        self.until(lambda: self.text().count(" ready.") >= times)
        return process

    def send(self, name: str, *args: Any) -> Any:
        return self.app.send_task(name, args)

    def notes(self) -> list[str]:
        try:
            return (self.path / "notes").read_text().splitlines()
        except FileNotFoundError:
            return []

    def text(self) -> str:
        return (self.path / "log").read_text()

    def until(self, condition: Callable[[], object], seconds: float = 15.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.text()
            time.sleep(0.01)

    def end(self) -> None:
        self.app.close()
        for process in self.processes:
            children = psutil.Process(process.pid).children() if process.poll() is None else []
            process.kill()
            process.wait(10)
            psutil.wait_procs(children, timeout=10)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    made = Workers(tmp_path)
    yield made
    made.end()


def test_a_broker_that_cannot_be_opened_ends_the_start(workers: Workers) -> None:
    (workers.path / "shop.db").write_text("this is no database, but a text of some length " * 50)
    process = workers.start()
    assert process.wait(15) == 1
    assert "shop.db" in workers.text()
    assert "Traceback" not in workers.text()


def test_sighup_starts_the_same_process_anew(workers: Workers) -> None:
    process = workers.ready()
    first = workers.send("pid").get(timeout=10)
    process.send_signal(signal.SIGHUP)
    workers.until(lambda: workers.text().count(" ready.") >= 2)
    assert process.poll() is None
    assert workers.send("pid").get(timeout=10) != first
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_an_application_with_threads_is_spawned_and_told_why(workers: Workers) -> None:
    (workers.path / "threaded.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), name='meter', daemon=True).start()\n"
        "from shop import app\n"
    )
    process = workers.ready(app="threaded:app")
    assert workers.send("pid").get(timeout=15) != process.pid
    assert "spawned" in workers.text()
    assert "meter" in workers.text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_a_task_longer_than_the_lease_runs_once_even_if_the_agent_dies(workers: Workers) -> None:
    process = workers.ready()
    result = workers.send("slow", "a", 5.0)
    workers.until(lambda: workers.notes() == ["start a"])
    agent = psutil.Process(process.pid).children()[0]
    assert agent.num_threads() > 1
    agent.kill()
    assert result.get(timeout=15) == "a"
    assert workers.notes() == ["start a", "end a"]


def test_a_killed_runners_task_runs_again_within_a_second(workers: Workers) -> None:
    process = workers.ready()
    result = workers.send("slow", "a", 1.0)
    workers.until(lambda: workers.notes() == ["start a"])
    runner = psutil.Process(process.pid).children()[1]
    killed = time.monotonic()
    runner.kill()
    workers.until(lambda: workers.notes() == ["start a", "start a"])
    assert time.monotonic() - killed < 1.0
    assert result.get(timeout=10) == "a"


def test_a_killed_workers_task_is_taken_over_by_another(workers: Workers) -> None:
    first = workers.ready()
    result = workers.send("slow", "a", 2.5)
    workers.until(lambda: workers.notes() == ["start a"])
    workers.ready("-n", "other@%h", times=2)
    children = psutil.Process(first.pid).children()
    os.kill(first.pid, signal.SIGKILL)
    killed = time.monotonic()
    gone, left = psutil.wait_procs(children, timeout=5)
    assert len(gone) == 2
    assert not left
    workers.until(lambda: workers.notes() == ["start a", "start a"])
    assert time.monotonic() - killed < 2.0 + 5.0
    assert result.get(timeout=10) == "a"


def test_after_the_grace_period_the_task_goes_back_uncounted(workers: Workers) -> None:
    process = workers.ready("--grace", "0.2")
    result = workers.send("slow", "a", 60.0)
    workers.until(lambda: workers.notes() == ["start a"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    from celeriac import drivers
    from celeriac.message import MessageState

    with_broker = workers.app.make_broker()
    with_broker.open()
    try:
        (found,) = drivers.admin_of(with_broker).find([result.id])
    finally:
        with_broker.close()
    assert (found.state, found.lost) == (MessageState.WAITING, 0)


def test_a_running_task_can_be_terminated(workers: Workers) -> None:
    workers.ready()
    result = workers.send("slow", "a", 60.0)
    workers.until(lambda: workers.notes() == ["start a"])
    result.revoke(terminate=True)
    workers.until(lambda: result.state == "REVOKED", 3.0)
    assert workers.send("pid").get(timeout=10)
