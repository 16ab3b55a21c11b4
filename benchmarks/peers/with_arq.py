"""arq: two workers of one process each, default settings; results are kept for an hour, its
default, or not at all."""

from __future__ import annotations

from typing import Any

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings

from benchmarks.peers.place import BROKER, RESULTS

if RESULTS:

    async def noop(ctx: dict[str, Any]) -> None:
        return None

else:
    from benchmarks.peers.tally import count

    async def noop(ctx: dict[str, Any]) -> None:
        count()


class WorkerSettings:
    functions = [noop]
    redis_settings = RedisSettings.from_dsn(BROKER)
    keep_result = 3600 if RESULTS else 0


LOG = {"version": 1, "loggers": {"arq": {"level": "WARNING"}}}
pool: ArqRedis


async def open() -> None:
    global pool
    pool = await create_pool(WorkerSettings.redis_settings)


async def close() -> None:
    await pool.aclose()


async def send() -> None:
    await pool.enqueue_job("noop")


async def send_and_wait() -> None:
    job = await pool.enqueue_job("noop")
    assert job is not None
    await job.result(timeout=30)
