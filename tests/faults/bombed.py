"""The application that the fault tests run: every run of a task is written down by the task itself,
in a file that nothing else writes."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import time

from celeriac import Celeriac
from celeriac.routing import Broadcast

app = Celeriac("bombed")
app.conf.update(
    broker_url=os.environ["BOMBED_URL"],
    worker_lease=float(os.environ.get("BOMBED_LEASE", "2")),
    worker_heartbeat_interval=float(os.environ.get("BOMBED_LEASE", "2")) / 3,
    broker_connection_retry_on_startup=not os.environ.get("BOMBED_IMPATIENT"),
    task_max_deliveries=int(os.environ.get("BOMBED_MAX_DELIVERIES", "10")),
)
if os.environ.get("BOMBED_BROADCAST"):
    app.conf.task_queues = [Broadcast(os.environ["BOMBED_BROADCAST"])]

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


@app.task(bind=True)
async def awork(self, seconds: float) -> float:
    note("start", self.request.id)
    await asyncio.sleep(seconds)
    note("done", self.request.id)
    return seconds


@app.task(bind=True)
def pid(self, seconds: float) -> int:
    """As ``work``, but each run has another result."""
    note("start", self.request.id)
    time.sleep(seconds)
    note("done", self.request.id)
    return os.getpid()


@app.task(bind=True, ignore_result=True)
def hear(self, number: int) -> None:
    """A broadcast: each worker's run is another."""
    note("start", f"{number}/{self.request.hostname}")
    time.sleep(0.005)
    note("done", f"{number}/{self.request.hostname}")


@app.task
def after(key: str) -> None:
    """Follows another task."""
    note("after", key)


@app.task(bind=True, acks_late=False)
def once(self, seconds: float) -> float:
    note("start", self.request.id)
    time.sleep(seconds)
    note("done", self.request.id)
    return seconds


@app.task(bind=True)
def poison(self, bait: str) -> str:
    """Kills its process as long as there is a file ``bait``."""
    note("start", self.request.id)
    if os.path.exists(bait):
        os.kill(os.getpid(), 9)
    note("done", self.request.id)
    return "harmless"


@app.task(bind=True)
def grip(self, seconds: float) -> None:
    """Holds the interpreter's lock all that time, in C."""
    note("start", self.request.id)
    ctypes.PyDLL(None).usleep(ctypes.c_uint(int(seconds * 1e6)))
    note("done", self.request.id)


@app.task(bind=True)
def backtrack(self, seconds: float) -> None:
    """Holds it with regular expressions that go through all that cannot match."""
    note("start", self.request.id)
    until = time.monotonic() + seconds
    length = 20
    while time.monotonic() < until:
        began = time.monotonic()
        re.match("(a+)+$", "a" * length + "b")
        if time.monotonic() - began < seconds / 8:
            length += 1
    note("done", self.request.id)


@app.task(bind=True)
def big(self, size: int) -> str:
    note("start", self.request.id)
    note("done", self.request.id)
    return os.urandom(size // 2).hex()


@app.task
def weigh(ballast: str) -> int:
    return len(ballast)


@app.task(bind=True, max_retries=3)
def stubborn(self, countdown: float) -> int:
    """Succeeds at the third try. Notes when each try is due."""
    note("start", self.request.id)
    if self.request.retries < 2:
        note(f"due={time.monotonic() + countdown:.6f}", self.request.id)
        raise self.retry(countdown=countdown)
    note("done", self.request.id)
    return self.request.retries


@app.task(bind=True)
def litter(self) -> None:
    """Leaves a process without a parent, which ends a little later."""
    if not os.fork():
        if not os.fork():
            time.sleep(0.2)
        os._exit(0)
    os.wait()
    note("done", self.request.id)


def _sum(value: object) -> float:
    if isinstance(value, list):
        return sum(_sum(one) for one in value)
    return value if isinstance(value, int | float) else 0


@app.task(bind=True)
def node(self, given: object, number: int, seconds: float) -> float:
    """A task of a workflow: the sum of all that it is given, and its own number."""
    note("start", self.request.id)
    time.sleep(seconds)
    note("done", self.request.id)
    return _sum(given) + number
