"""The same application in a worker whose waits do not end by themselves for minutes."""

from __future__ import annotations

from live_tasks import app

from celeriac.worker import agent, runner

runner.BaseRunner.claim.__defaults__ = (300.0,)
agent.MAINTAIN_EVERY = 300.0  # type: ignore[misc]

__all__ = ["app"]
