"""The same application in a worker whose waits do not end by themselves for minutes."""

from __future__ import annotations

import sys

from live_tasks import app
from msgspec.structs import replace

from celeriac.drivers.sqlite import SqliteBroker
from celeriac.worker import runner

runner.BaseRunner.claim.__defaults__ = (300.0,)
driver = sys.modules[SqliteBroker.__module__]
usual = driver.capabilities_of
driver.capabilities_of = lambda options: replace(usual(options), upkeep_every=300.0)

__all__ = ["app"]
