"""The driver of ``sqlite://``: broker, results, events and administration in one file.

``sqlite:///relative.db`` or ``sqlite:////absolute.db``. Options, in the URL's query or as a
mapping: ``synchronous`` (NORMAL, FULL, EXTRA, OFF), ``timeout`` (seconds to wait for another
process's lock), ``wal_autocheckpoint`` (pages), ``dedupe_window`` (seconds), ``clock`` (a function
that gives epoch seconds; mapping only).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celeriac.contracts import Broker
from celeriac.drivers.sqlite.admin import SqliteQueueAdmin
from celeriac.drivers.sqlite.broker import SqliteBroker
from celeriac.drivers.sqlite.bus import SqliteEventBus
from celeriac.drivers.sqlite.results import SqliteResultBackend
from celeriac.drivers.sqlite.schedules import SqliteScheduleStore

__all__ = ["admin", "broker", "bus", "results", "schedules"]

keeps_results = True  # without another result backend, its own


def broker(url: str, options: Mapping[str, Any]) -> SqliteBroker:
    return SqliteBroker(url, options)


def results(url: str, options: Mapping[str, Any]) -> SqliteResultBackend:
    return SqliteResultBackend(url, options)


def schedules(url: str, options: Mapping[str, Any]) -> SqliteScheduleStore:
    return SqliteScheduleStore(url, options)


def bus(url: str, options: Mapping[str, Any]) -> SqliteEventBus:
    return SqliteEventBus(url, options)


def admin(broker: Broker) -> SqliteQueueAdmin | None:
    return SqliteQueueAdmin(broker) if isinstance(broker, SqliteBroker) else None
