"""The application of the tests with whole workers. Tasks note what they do in a file."""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import signal
import threading
import time
from typing import Any

from celeriac import Celeriac, Task, signals
from celeriac.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celeriac.utils.log import get_task_logger

app = Celeriac("live")
app.conf.update(
    {
        "broker_url": os.environ.get("LIVE_URL", "memory://"),
        "worker_lease": 2.0,
        **json.loads(os.environ.get("LIVE_CONF", "{}")),
    }
)
logger = get_task_logger(__name__)
place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="nowhere")


def note(*words: Any) -> None:
    """One line of JSON: the words, the process, and the monotonic time."""
    line = json.dumps([*words, os.getpid(), time.monotonic()])
    fd = os.open(os.environ["LIVE_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, line.encode() + b"\n")
    os.close(fd)


# --- where and how a task runs


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
async def aadd(x: int, y: int) -> int:
    await asyncio.sleep(0)
    return x + y


@app.task(bind=True)
def tell(self: Task, key: str, seconds: float) -> list[Any]:
    """What this run knows of itself, after others ran beside it."""
    place.set(key)
    time.sleep(seconds)
    request = self.request
    return [place.get(), request.id, request.args[0], request.retries, app.current_task.name]


@app.task(bind=True)
async def atell(self: Task, key: str, seconds: float) -> list[Any]:
    place.set(key)
    await asyncio.sleep(seconds)
    request = self.request
    return [place.get(), request.id, request.args[0], request.retries, app.current_task.name]


@app.task
def nap(key: str, seconds: float) -> int:
    note("start", key)
    time.sleep(seconds)
    note("end", key)
    return os.getpid()


@app.task
async def anap(key: str, seconds: float) -> int:
    note("start", key)
    await asyncio.sleep(seconds)
    note("end", key)
    return os.getpid()


@app.task
def where() -> list[Any]:
    return [os.getpid(), threading.current_thread() is threading.main_thread()]


@app.task
def fail(text: str) -> None:
    raise ValueError(text)


@app.task
async def afail(text: str) -> None:
    raise ValueError(text)


@app.task
async def give_up() -> None:
    """Ends as if it had been cancelled, though nobody asked for that."""
    raise asyncio.CancelledError("by itself")


# --- limits


@app.task
def tidy(seconds: float) -> str:
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        return "tidied"
    return "finished"


@app.task
async def atidy(seconds: float) -> str:
    try:
        await asyncio.sleep(seconds)
    except (SoftTimeLimitExceeded, asyncio.CancelledError):
        return "tidied"
    return "finished"


class Slow(Task):
    """Notes how it ends."""

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note("on_failure", type(exc).__name__)


@app.task(base=Slow)
def sleep(seconds: float) -> None:
    note("start", "sleep")
    time.sleep(seconds)


@app.task(base=Slow)
async def asleep(seconds: float) -> None:
    note("start", "sleep")
    await asyncio.sleep(seconds)


class Heavy:
    """A result that takes long to be written."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __json__(self) -> str:
        time.sleep(self.seconds)
        return "heavy"


@app.task
def heavy(seconds: float) -> Heavy:
    return Heavy(seconds)


kept: list[bytes] = []


@app.task
def grow(mib: int) -> int:
    kept.append(os.urandom(mib * 1024 * 1024))
    return os.getpid()


@app.task(rate_limit="20/s")
def limited(key: str) -> None:
    note("limited", key)


# --- how a task ends


@app.task
def ignored() -> None:
    note("ignored")
    raise Ignore


@app.task
def rejected(requeue_while: str) -> str:
    """Put back while there is such a file; buried without a name."""
    note("rejected")
    if not requeue_while:
        raise Reject("no good")
    if os.path.exists(requeue_while):
        raise Reject("not yet", requeue=True)
    return "taken"


@app.task(bind=True)
def custom(self: Task, until: str) -> str:
    self.update_state(state="PROGRESS", meta={"done": 7})
    while not os.path.exists(until):
        time.sleep(0.01)
    return "ended"


@app.task(track_started=True)
def tracked(until: str) -> str:
    while not os.path.exists(until):
        time.sleep(0.01)
    return "ended"


@app.task
def unwritable() -> Any:
    return object()


class Unwritable(Exception):
    """Its argument cannot be written."""


@app.task
def fail_unwritable() -> None:
    raise Unwritable(object())


@app.task(ignore_result=True)
def quiet(wrong: bool) -> int:
    note("quiet", wrong)
    if wrong:
        raise ValueError("quiet")
    return 1


@app.task(ignore_result=True, store_errors_even_if_ignored=True)
def quiet_but(wrong: bool) -> int:
    if wrong:
        raise ValueError("quiet")
    note("quiet_but", wrong)
    return 1


@app.task(bind=True, max_retries=3)
def insist(self: Task, times: int) -> list[Any]:
    request = self.request
    note("insist", request.id, request.retries, request.delivery_info["queue"], request.run)
    if request.retries < times:
        raise self.retry(countdown=0.01, exc=ConnectionError("again"))
    return [request.id, request.retries]


@app.task(autoretry_for=(ConnectionError,), max_retries=2, default_retry_delay=0.01)
def unlucky() -> None:
    raise ConnectionError("no luck")


# --- what follows


@app.task
def follow(*args: Any) -> list[Any]:
    note("follow", *args)
    return list(args)


@app.task
def old_errback(task_id: str) -> None:
    note("old_errback", task_id)


@app.task
def new_errback(request: Any, exc: Any, traceback: Any) -> None:
    note("new_errback", request.id, type(exc).__name__, "Traceback" in traceback)


# --- handlers and signals


class Told(Task):
    """Notes every handler that is called."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note("before_start", args)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        note("on_success", retval)

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note("on_failure", repr(exc))

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note("on_retry", repr(exc))

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        note("after_return", status)


@app.task(base=Told, bind=True, max_retries=1)
def told(self: Task, how: str) -> str:
    if how == "retry" and not self.request.retries:
        raise self.retry(countdown=0.01, exc=OSError("once"))
    if how == "fail":
        raise ValueError(how)
    return how


@app.task(base=Told, bind=True)
async def atold(self: Task, how: str) -> str:
    await asyncio.sleep(0)
    if how == "fail":
        raise ValueError(how)
    return how


@app.task
def watched(wrong: bool) -> None:
    """Signals are noted for this one."""
    if wrong:
        raise ValueError("watched")


def _noted(name: str) -> Any:
    def receiver(sender: Any = None, **kwargs: Any) -> None:
        request = kwargs.get("request")
        task = getattr(sender, "name", None) or getattr(request, "task", None)
        if str(task).endswith((".watched", ".anap", ".nap")):
            note("signal", name, str(task).rpartition(".")[2])

    return receiver


for _name in (
    "task_received",
    "task_prerun",
    "task_postrun",
    "task_success",
    "task_failure",
    "task_revoked",
):
    getattr(signals, _name).connect(_noted(_name), weak=False)


@signals.task_unknown.connect
def _unknown(name: str = "", id: str = "", **_: Any) -> None:
    note("signal", "task_unknown", name, id)


@signals.worker_process_init.connect
def _init(**_: Any) -> None:
    note("signal", "worker_process_init", "")


# --- logging, processes


@app.task
def say(text: str) -> None:
    logger.info("said %s", text)
    print("printed", text)


@app.task(acks_late=False)
def once(key: str, seconds: float) -> int:
    note("start", key)
    time.sleep(seconds)
    note("end", key)
    return os.getpid()


@app.task
def die(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


@app.task
def name_of(how: str) -> str:
    """A file name that is not Unicode, as os.fsdecode gives it."""
    name = os.fsdecode(b"caf\xe9")
    if how == "return":
        return name
    if how == "raise":
        raise ValueError(name)
    if how == "reject":
        raise Reject(name)
    if how == "link":
        app.send_task("live_tasks.follow", (name,))
    logger.warning("found %s", name)
    return "logged"
