"""Pools: where the function of a task runs. Nothing else depends on the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celeriac.worker.runner import BaseRunner


def runner_class(pool: str) -> type[BaseRunner]:
    """The runner of a pool (worker/options.py lists them)."""
    if pool == "threads":
        from celeriac.worker.pools.threads import ThreadsRunner

        return ThreadsRunner
    if pool == "asyncio":
        from celeriac.worker.pools.asyncio import AsyncioRunner

        return AsyncioRunner
    from celeriac.worker.pools.processes import Runner

    return Runner
