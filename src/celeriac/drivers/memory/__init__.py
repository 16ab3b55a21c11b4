"""The driver of ``memory://``: the whole contract inside one process, for tests and trying out.

``memory://name`` is one store, shared by every URL of this name in the process; ``memory://`` is
the one without a name. Broker and result backend of one name are one store. Nothing is shared
with other processes: a forked child begins with empty stores.

Options: ``clock`` (a function that gives epoch seconds), ``dedupe_window`` (seconds).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celeriac.contracts import Broker
from celeriac.drivers.memory.admin import MemoryQueueAdmin
from celeriac.drivers.memory.broker import MemoryBroker
from celeriac.drivers.memory.bus import MemoryEventBus
from celeriac.drivers.memory.results import MemoryResultBackend
from celeriac.drivers.memory.schedules import MemoryScheduleStore
from celeriac.drivers.memory.store import Store, forget

__all__ = ["admin", "broker", "bus", "forget", "results", "schedules"]

keeps_results = True  # without another result backend, its own


def broker(url: str, options: Mapping[str, Any]) -> MemoryBroker:
    return MemoryBroker(Store.at(url), options)


def results(url: str, options: Mapping[str, Any]) -> MemoryResultBackend:
    return MemoryResultBackend(Store.at(url), options)


def schedules(url: str, options: Mapping[str, Any]) -> MemoryScheduleStore:
    return MemoryScheduleStore(Store.at(url))


def bus(url: str, options: Mapping[str, Any]) -> MemoryEventBus:
    return MemoryEventBus(Store.at(url))


def admin(broker: Broker) -> MemoryQueueAdmin | None:
    return MemoryQueueAdmin(broker) if isinstance(broker, MemoryBroker) else None
