"""The same application in a worker whose waits do not end by themselves for minutes."""

from __future__ import annotations

from live_tasks import app
from msgspec.structs import replace

from celeriac.drivers.sqlite import broker
from celeriac.worker import runner

usual = broker.capabilities_of
runner.BaseRunner.claim.__defaults__ = (300.0,)
broker.capabilities_of = lambda options: replace(usual(options), upkeep_every=300.0)

__all__ = ["app"]
