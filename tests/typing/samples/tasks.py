"""What a type checker sees of tasks. ``# R:`` is what reveal_type says, ``# E:`` an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, reveal_type

from celeriac import Celeriac, Signature, Task, shared_task
from celeriac.result import AsyncResult, ResultSet

app = Celeriac("typed", broker="memory://")


@app.task
def send(to: str, text: str, *, urgent: bool = False) -> int:
    return len(to + text)


@app.task(autoretry_for=(ConnectionError,), retry_backoff=True)
def with_options(x: int) -> list[str]:
    return [str(x)]


@app.task()
def called(x: int) -> None: ...


@app.task(bind=True, max_retries=5)
def bound(self: Task[..., Any], x: int) -> str:
    reveal_type(self.request.retries)  # R: int
    if x < 0:
        raise self.retry(countdown=5)
    return str(x)


@app.task(bind=True)
def bound_to_any(self: Any, x: int) -> str:
    return str(x)


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


@app.task(bind=True)
async def bound_fetch(self: Task[..., Any], url: str) -> bytes:
    return url.encode()


@shared_task
def shared(x: int) -> float:
    return float(x)


@shared_task(bind=True, name="shared.bound")
def shared_bound(self: Any, x: int) -> float:
    return float(x)


# --- calling ----------------------------------------------------------------------------------

send.delay("a@b.c", "hi")
send.delay("a@b.c", text="hi", urgent=True)
send.delay(1)  # E: [call-arg]
send.delay(1, "hi")  # E: [arg-type]
send.delay("a", "b", "c")  # E: [call-arg]
send.delay("a", "b", urgent="yes")  # E: [arg-type]
send.delay("a", "b", nothing=1)  # E: [call-arg]
send("a", 1)  # E: [arg-type]
with_options.delay("x")  # E: [arg-type]
called.delay()  # E: [call-arg]
bound.delay(1)
bound.delay("x")  # E: [arg-type]
bound.delay(bound, 1)  # E: [call-arg]
bound_to_any.delay(1, 2)  # E: [call-arg]
fetch.delay(1)  # E: [call-overload]
shared.delay("x")  # E: [arg-type]
shared_bound.delay(1, 2)  # E: [call-arg]
send.si("a")  # E: [call-arg]
send.s("a")  # partial: the rest comes later

# --- what comes back --------------------------------------------------------------------------

reveal_type(send)  # R: Task[[to: str, text: str, *, urgent: bool =], int]
reveal_type(send("a", "b"))  # R: int
reveal_type(send.delay("a", "b"))  # R: AsyncResult[int]
reveal_type(send.delay("a", "b").get(timeout=10))  # R: int
reveal_type(with_options.delay(1).get())  # R: list[str]
reveal_type(bound.delay(1).get())  # R: str
reveal_type(bound_to_any.delay(1).get())  # R: str
reveal_type(fetch.delay("x").get())  # R: bytes
reveal_type(bound_fetch.delay("x").get())  # R: bytes
reveal_type(shared.delay(1).get())  # R: float
reveal_type(shared_bound.delay(1).get())  # R: float
reveal_type(send.delay_many([("a", "b")]))  # R: list[AsyncResult[int]]
reveal_type(fetch.delay_many([("a",)])[0].get())  # R: bytes
reveal_type(send.AsyncResult("id").get())  # R: int
reveal_type(app.AsyncResult("id").get())  # R: Any
reveal_type(app.send_task("name").get())  # R: Any
reveal_type(ResultSet([send.delay("a", "b")]).join())  # R: list[Any]
result: AsyncResult[str] = send.delay("a", "b")  # E: [assignment]


async def coroutines() -> None:
    reveal_type(await send.adelay("a", "b"))  # R: AsyncResult[int]
    reveal_type(await (await send.adelay("a", "b")))  # R: int
    reveal_type(await (await fetch.adelay("a")))  # R: bytes
    reveal_type(await (await fetch.adelay("a")).aget(timeout=5))  # R: bytes
    reveal_type(await fetch("a"))  # R: bytes
    await send.adelay(1)  # E: [call-arg]
    await send.aapply_async(("a", "b"), countdown=5)


# --- signatures -------------------------------------------------------------------------------

reveal_type(send.s("a"))  # R: Signature[int]
reveal_type(send.s("a").delay("b").get())  # R: int
reveal_type(send.si("a", "b").set(queue="q"))  # R: Signature[int]
reveal_type(send.signature(("a", "b"), countdown=5).apply_async().get())  # R: int
reveal_type(fetch.s("a").delay().get())  # R: bytes
reveal_type(send.s("a", "b").apply().get())  # R: int
signature: Signature[int] = send.s("a", "b")
reveal_type(app.send_many([signature]))  # R: list[AsyncResult[Any]]

# --- classes ----------------------------------------------------------------------------------


class Traced(Task[..., Any]):
    abstract = True
    tag: str = ""


@app.task(base=Traced)
def traced(x: int) -> int:
    return x


reveal_type(traced.delay(1).get())  # R: int
decorator: Callable[[Callable[[int], int]], Any] = app.task(queue="q")
