"""The application that the fault tests run: every run of a task is written down by the task itself,
in a file that nothing else writes."""

from __future__ import annotations

import os
import time

from celeriac import Celeriac

app = Celeriac("bombed")
app.conf.update(
    broker_url=os.environ["BOMBED_URL"],
    worker_lease=float(os.environ.get("BOMBED_LEASE", "2")),
    task_max_deliveries=int(os.environ.get("BOMBED_MAX_DELIVERIES", "10")),
)

_ledger = -1


def note(word: str, task_id: str) -> None:
    """One line, in one write: ``word id pid monotonic-time``."""
    global _ledger
    if _ledger < 0:
        path = os.environ["BOMBED_LEDGER"]
        _ledger = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(_ledger, f"{word} {task_id} {os.getpid()} {time.monotonic():.6f}\n".encode())


@app.task(bind=True)
def work(self, seconds: float) -> float:
    note("start", self.request.id)
    time.sleep(seconds)
    note("done", self.request.id)
    return seconds


@app.task(bind=True, acks_late=False)
def once(self, seconds: float) -> float:
    note("start", self.request.id)
    time.sleep(seconds)
    note("done", self.request.id)
    return seconds


@app.task(bind=True)
def poison(self) -> None:
    note("start", self.request.id)
    os.kill(os.getpid(), 9)
