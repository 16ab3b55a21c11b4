"""Taskiq: two worker processes on uvloop, with the broker its README begins with, whose messages
are acknowledged (Redis streams), and its Redis result backend."""

from __future__ import annotations

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers.place import BROKER, RESULTS

broker = RedisStreamBroker(url=BROKER)

if RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(redis_url=RESULTS))

    @broker.task(task_name="noop")
    async def noop() -> None:
        return None

else:
    from benchmarks.peers.tally import count

    @broker.task(task_name="noop")
    async def noop() -> None:
        count()


async def open() -> None:
    await broker.startup()


async def close() -> None:
    await broker.shutdown()


async def send() -> None:
    await noop.kiq()


async def send_and_wait() -> None:
    task = await noop.kiq()
    await task.wait_result(timeout=30)
