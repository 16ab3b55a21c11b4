"""The application of the canvas tests, in the test's process and in workers. What its tasks do is
noted in a file: one line each, ``word id``."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from celeriac import Celeriac, signature
from celeriac.exceptions import Ignore, Reject

app = Celeriac("flow", broker=os.environ.get("FLOW_URL", "memory://flow"), set_as_current=False)
app.conf.update(worker_heartbeat_interval=0.5, **json.loads(os.environ.get("FLOW_CONF", "{}")))


def note(word: str, value: Any) -> None:
    path = os.environ.get("FLOW_NOTES")
    if path:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, f"{word} {value}\n".encode())
        os.close(fd)


def flat(value: Any) -> Any:
    """The sum of everything in it."""
    return sum(flat(one) for one in value) if isinstance(value, list) else value or 0


@app.task(name="c")
def const(value: Any) -> Any:
    return value


@app.task(name="add")
def add(x: Any, y: int) -> int:
    return flat(x) + y


@app.task(name="pair")
def pair(value: Any) -> list[Any]:
    return [value, 1]


@app.task(name="ident")
def ident(*args: Any, **kwargs: Any) -> Any:
    return args[0] if len(args) == 1 and not kwargs else [list(args), kwargs]


@app.task(name="boom")
def boom(*args: Any) -> None:
    raise ValueError("boom", 42)


@app.task(name="silent", ignore_result=True)
def silent(value: Any) -> Any:
    return value


@app.task(name="silent_boom", ignore_result=True)
def silent_boom(*args: Any) -> None:
    raise ValueError("silently")


@app.task(name="ignore")
def ignore(*args: Any) -> None:
    raise Ignore("not today")


@app.task(name="reject")
def reject(*args: Any) -> None:
    raise Reject("no", requeue=False)


@app.task(name="again", bind=True, max_retries=3)
def again(self: Any, value: Any, times: int = 2) -> Any:
    if self.request.retries < times:
        raise self.retry(countdown=0.01)
    return value


@app.task(name="swap", bind=True)
def swap(self: Any, sig: Any) -> Any:
    return self.replace(signature(sig, app=app))


@app.task(name="more", bind=True)
def more(self: Any, value: Any, *others: Any) -> Any:
    """Adds parts to the chord that it is in."""
    for sig in others:
        self.add_to_chord(signature(sig, app=app))
    return value


@app.task(name="slow", bind=True)
def slow(self: Any, value: Any, seconds: float) -> Any:
    note("start", self.request.id)
    time.sleep(seconds)
    return value


@app.task(name="told_id")
def told_id(task_id: str) -> None:
    note("id", task_id)


@app.task(name="told_all")
def told_all(request: Any, exc: BaseException, trace: Any) -> None:
    note("all", f"{request.id} {type(exc).__name__}")


@app.task(name="seen")
def seen(value: Any) -> None:
    note("seen", json.dumps(value))


@app.task(name="about", bind=True)
def about(self: Any, *args: Any) -> dict[str, Any]:
    request = self.request
    return {
        "id": request.id,
        "root": request.root_id,
        "parent": request.parent_id,
        "group": request.group,
        "index": request.group_index,
        "priority": request.delivery_info["priority"],
        "expires": request.expires is not None,
        "stamps": request.stamps,
        "nesting": request.replaced_task_nesting,
        "mark": request.get("mark"),
    }


@app.task(name="work", bind=True)
def work(self: Any, value: Any) -> Any:
    """As ``ident``; notes its begin and end."""
    note("begin", self.request.id)
    note("end", self.request.id)
    return value
