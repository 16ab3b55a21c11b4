"""SAQ: two worker processes, default settings; results are kept for ten minutes, its default, or
not at all."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from saq import Queue

from benchmarks.peers.place import BROKER, RESULTS

queue = Queue.from_url(BROKER)
KEPT = 600 if RESULTS else -1

if RESULTS:

    async def noop(ctx: dict[str, Any]) -> None:
        return None

else:
    from benchmarks.peers.tally import count

    async def noop(ctx: dict[str, Any]) -> None:
        count()


settings = {"queue": queue, "functions": [noop]}


async def open() -> None:
    await queue.connect()


async def close() -> None:
    await queue.disconnect()


async def send() -> None:
    await queue.enqueue("noop", ttl=KEPT)


async def send_and_wait() -> None:
    """By notification, as its README shows; a job that ends before the subscription stands is
    seen by the next look. (``queue.apply`` polls, 0.5 s by default.)"""
    job = await queue.enqueue("noop", ttl=KEPT)
    assert job is not None
    while not job.completed:
        with contextlib.suppress(asyncio.TimeoutError):
            await job.refresh(until_complete=1.0)
