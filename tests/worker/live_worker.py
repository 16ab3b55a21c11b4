"""Whole workers, by their command line, on a temporary SQLite file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from celeriac import Celeriac
from celeriac.message import MessageState, Peeked

HERE = Path(__file__).parent
PATIENCE = 20.0


class Stage:
    """A database, workers on it, and what their tasks have noted (live_tasks.py)."""

    def __init__(self, path: Path, **conf: Any) -> None:
        self.path = path
        self.pool = ""  # set by tests that go through all of them
        self.notes_file = path / "notes"
        self.url = f"sqlite:///{path}/live.db"
        self.conf = conf
        self.env = {
            **os.environ,
            "LIVE_URL": self.url,
            "LIVE_CONF": json.dumps(conf),
            "LIVE_NOTES": str(self.notes_file),
        }
        self.app = Celeriac("live", broker=self.url, set_as_current=False, **conf)
        self.workers: list[subprocess.Popen[bytes]] = []

    # --- workers

    def start(self, *options: str, log: str = "log", app: str = "live_tasks:app") -> Any:
        """Start a worker; does not wait for it."""
        command = [sys.executable, "-m", "celeriac", "-A", app, "worker", "-l", "info"]
        with open(self.path / log, "ab") as file:
            process = subprocess.Popen(
                [*command, *options],
                cwd=HERE,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self.workers.append(process)
        return process

    def ready(self, *options: str, log: str = "log") -> subprocess.Popen[bytes]:
        """Start a worker; it takes messages."""
        before = self.log(log).count(" ready.")
        process = self.start(*options, log=log)

        def up() -> bool:
            assert process.poll() is None, self.log(log)
            return self.log(log).count(" ready.") > before

        self.until(up, "the worker to be ready")
        return process

    def stop(self, process: subprocess.Popen[bytes], timeout: float = PATIENCE) -> int:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        return process.wait(timeout)

    def end(self) -> None:
        """No process is left behind."""
        for process in self.workers:
            if process.poll() is None:
                children = psutil.Process(process.pid).children(recursive=True)
                for one in (*children, process):
                    try:
                        one.kill()
                    except psutil.NoSuchProcess:
                        pass
                process.wait(10)
        self.app.close()

    # --- tasks

    def send(self, name: str, *args: Any, **options: Any) -> Any:
        return self.app.send_task(f"live_tasks.{name}", args, **options)

    def run(self, name: str, *args: Any, **options: Any) -> Any:
        """The result of the task."""
        return self.send(name, *args, **options).get(timeout=PATIENCE)

    def sig(self, name: str, *args: Any, **options: Any) -> Any:
        return self.app.signature(f"live_tasks.{name}", args, **options)

    # --- looking

    def until(self, condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() >= deadline:
                last = "\n".join(self.log().splitlines()[-30:])
                raise AssertionError(f"not within {timeout} s: {what}\n{last}")
            time.sleep(0.01)

    def log(self, name: str = "log") -> str:
        path = self.path / name
        return path.read_text() if path.exists() else ""

    def notes(self, *words: Any) -> list[list[Any]]:
        """What was noted that begins with these words: each with the process and the time."""
        if not self.notes_file.exists():
            return []
        found = [json.loads(line) for line in self.notes_file.read_text().splitlines()]
        return [note for note in found if note[: len(words)] == list(words)]

    def noted(self, *words: Any, times: int = 1) -> list[Any]:
        """Wait for it to be noted so often; the last of them."""
        self.until(lambda: len(self.notes(*words)) >= times, f"{words} to be noted")
        return self.notes(*words)[times - 1]

    def find(self, task_id: str) -> list[Peeked]:
        return self.app.admin().find([task_id])

    def dead(self, task_id: str) -> Peeked:
        """Wait for the task to be a dead letter."""
        self.until(
            lambda: [one.state for one in self.find(task_id)] == [MessageState.DEAD],
            "it to be dead",
        )
        return self.find(task_id)[0]

    def gone(self, task_id: str) -> None:
        """Wait until no message of the task is left."""
        self.until(lambda: not self.find(task_id), "its message to be gone")

    def idle(self) -> None:
        def nothing() -> bool:
            queues = self.app.admin().queues()
            return not any(q.waiting + q.delayed + q.in_flight for q in queues)

        self.until(nothing, "the queues to be empty")
