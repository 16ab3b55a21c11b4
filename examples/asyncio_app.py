"""Celeriac from asyncio, on both sides: coroutines that send and wait, and coroutines as tasks.

Run it with ``python -m examples.asyncio_app``; it starts its own worker on a temporary database.
"""

from __future__ import annotations

import asyncio
import time

from celeriac import Celeriac
from examples.worker_process import own_worker

app = Celeriac("examples.asyncio_app")


@app.task
async def nap(seconds: float) -> float:
    """A coroutine is a task like any other."""
    await asyncio.sleep(seconds)
    return seconds


@app.task
def square(number: int) -> int:
    return number * number


async def handle_request(number: int) -> int:
    """As a web request would: send, and wait for the result without blocking the loop."""
    result = await square.adelay(number)
    return await asyncio.wait_for(result, timeout=30)


async def ticks(stop: asyncio.Event) -> int:
    """Counts how often the loop gets round, to show that nobody holds it up."""
    count = 0
    while not stop.is_set():
        await asyncio.sleep(0.01)
        count += 1
    return count


async def main() -> None:
    stop = asyncio.Event()
    ticker = asyncio.create_task(ticks(stop))
    print(await asyncio.gather(*(handle_request(number) for number in range(10))))

    began = time.perf_counter()
    naps = [await nap.adelay(0.3) for _ in range(2)]
    slept = await asyncio.gather(*naps)
    print(f"slept {sum(slept):.1f} s in two runners, the loop went on meanwhile")
    took = time.perf_counter() - began
    stop.set()
    assert await ticker > took / 0.01 / 4, "something blocked the event loop"


if __name__ == "__main__":
    with own_worker("examples.asyncio_app"):
        asyncio.run(main())
