"""The application of the interop tests, written once: Celery's processes run it with the real
celery package, ours with celeriac. Its tasks note what they do in a file."""

from __future__ import annotations

import importlib
import json
import os
import signal
import time
from typing import Any

SIDE = os.environ["INTEROP_SIDE"]
if SIDE not in ("celery", "celeriac"):
    raise ValueError(f"INTEROP_SIDE must be celery or celeriac, not {SIDE!r}")

package = importlib.import_module(SIDE)
exceptions = importlib.import_module(f"{SIDE}.exceptions")
chain, chord, group, signature = package.chain, package.chord, package.group, package.signature

app = package.Celery("shop")
conf = json.loads(os.environ["INTEROP_CONF"])
if "broadcast" in conf:  # the name of one
    made_by = "kombu.common" if SIDE == "celery" else "celeriac.routing"
    conf["task_queues"] = [importlib.import_module(made_by).Broadcast(conf.pop("broadcast"))]
app.conf.update(conf)


def note(*words: Any) -> None:
    """One line of JSON: the side, and the words."""
    line = json.dumps([SIDE, *words])
    fd = os.open(os.environ["INTEROP_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, line.encode() + b"\n")
    os.close(fd)


def _wait_for(path: str) -> None:
    deadline = time.monotonic() + 30
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path} did not come")
        time.sleep(0.01)


# --- what comes in


@app.task(name="shop.add")
def add(x: Any, y: Any) -> Any:
    return x + y


@app.task(name="shop.echo")
def echo(*args: Any, **kwargs: Any) -> Any:
    """What it was called with, and how the types are called here."""
    kinds = [type(arg).__name__ for arg in args]
    return {"args": list(args), "kwargs": kwargs, "kinds": kinds}


@app.task(name="shop.kinds")
def kinds(*args: Any) -> list[str]:
    return [type(arg).__name__ for arg in args]


_TOLD = (
    "id task args kwargs retries eta expires hostname root_id parent_id group group_index origin "
    "timelimit shadow ignore_result reply_to correlation_id replaced_task_nesting stamps "
    "stamped_headers lang argsrepr kwargsrepr"
).split()


@app.task(bind=True, name="shop.tell")
def tell(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Everything that the request says."""
    request = self.request
    told = {name: getattr(request, name, "missing") for name in _TOLD}
    told["colour"] = getattr(request, "colour", None)
    told["headers"] = dict(request.headers or {})
    told["delivery_info"] = dict(request.delivery_info)
    told["side"] = SIDE
    return told


@app.task(bind=True, name="shop.shout", ignore_result=True)
def shout(self: Any, word: str) -> None:
    note("shout", word, self.request.hostname)


@app.task(name="shop.count")
def count(key: Any) -> Any:
    """Noted each time it runs."""
    note("count", key)
    return key


@app.task(name="shop.total")
def total(values: list[Any]) -> Any:
    return sum(values)


@app.task(name="shop.only_celery" if SIDE == "celery" else "shop.only_celeriac")
def only_here(x: int) -> list[Any]:
    """A task that the other side does not know."""
    return [SIDE, x]


# --- time


@app.task(name="shop.hold")
def hold(key: str, until: str) -> str:
    """Runs until there is such a file."""
    note("start", key)
    _wait_for(until)
    note("end", key)
    return key


@app.task(bind=True, name="shop.hold_late", acks_late=True)
def hold_late(self: Any, key: str, until: str) -> list[Any]:
    """The same, taken from the queue only when it has run."""
    info = self.request.delivery_info
    note("start", key, bool(info.get("redelivered")), os.getpid())
    _wait_for(until)
    note("end", key)
    return [key, bool(info.get("redelivered"))]


@app.task(name="shop.sleep")
def sleep(seconds: float) -> str:
    try:
        time.sleep(seconds)
    except exceptions.SoftTimeLimitExceeded:
        return "interrupted"
    return "slept"


# --- how tasks end


class OutOfStock(Exception):
    """An exception that both sides can import."""

    def __init__(self, article: str, left: int = 0) -> None:
        super().__init__(article, left)
        self.article = article
        self.left = left


class Stubborn(Exception):
    """One whose arguments are not those that it is made of."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


@app.task(name="shop.fail")
def fail(how: str) -> None:
    if how == "plain":
        raise ValueError("boom", 42)
    if how == "custom":
        raise OutOfStock("tea", 3)
    if how == "stubborn":
        raise Stubborn(7, "no")
    if how == "unwritable":
        raise KeyError(object(), "told")
    if how == "local":

        class Local(Exception):
            pass

        raise Local("nobody can import this")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "nested":
        try:
            raise LookupError("inner")
        except LookupError as inner:
            raise RuntimeError("outer") from inner
    raise AssertionError(how)


@app.task(name="shop.unwritable")
def unwritable() -> Any:
    return object()


@app.task(bind=True, name="shop.insist", max_retries=10)
def insist(self: Any, times: int, queues: list[str]) -> list[Any]:
    """Tries so often; each try in the next of the queues."""
    request = self.request
    note("try", request.id, request.retries)
    if request.retries < times:
        queue = queues[request.retries % len(queues)]
        raise self.retry(countdown=0.05, exc=OutOfStock("tea", request.retries), queue=queue)
    return [SIDE, request.id, request.retries, request.root_id, request.parent_id, request.eta]


@app.task(bind=True, name="shop.give_up", max_retries=1)
def give_up(self: Any) -> None:
    raise self.retry(countdown=0.01, exc=OutOfStock("all"))


@app.task(bind=True, name="shop.wait_between", max_retries=3)
def wait_between(self: Any, until: str) -> str:
    """In RETRY until there is such a file."""
    if not os.path.exists(until):
        raise self.retry(countdown=0.3, exc=OutOfStock("tea", 1), max_retries=None)
    return "at last"


@app.task(name="shop.ignored")
def ignored() -> None:
    note("ignored")
    raise exceptions.Ignore


@app.task(name="shop.rejected", acks_late=True)
def rejected() -> None:
    note("rejected")
    raise exceptions.Reject("no good", requeue=False)


@app.task(bind=True, name="shop.progress")
def progress(self: Any, until: str) -> str:
    self.update_state(state="PROGRESS", meta={"done": 7, "of": [1, 2]})
    _wait_for(until)
    return "ended"


@app.task(name="shop.tracked", track_started=True)
def tracked(until: str) -> str:
    _wait_for(until)
    return "ended"


@app.task(name="shop.quiet", ignore_result=True)
def quiet(wrong: bool = False) -> str:
    note("quiet", wrong)
    if wrong:
        raise ValueError("quiet")
    return "never told"


# --- what follows


@app.task(bind=True, name="shop.spawn")
def spawn(self: Any, queue: str) -> str:
    """Sends another task; its id."""
    return str(tell.apply_async((1,), queue=queue).id)


@app.task(name="shop.follow")
def follow(*args: Any) -> list[Any]:
    note("follow", *args)
    return list(args)


@app.task(name="shop.errback")
def errback(task_id: str) -> None:
    note("errback", task_id)


@app.task(name="shop.errback_in_place")
def errback_in_place(request: Any, exc: Any, traceback: Any) -> None:
    note("errback_in_place", request.id, type(exc).__name__)


@app.task(bind=True, name="shop.instead")
def instead(self: Any, x: int, y: int, queue: str) -> Any:
    """Replaced by another call."""
    raise self.replace(add.si(x, y).set(queue=queue))
