"""The driver of Redis (6.2 and later, Valkey): broker, results, events, schedules, administration.

``redis://user:password@host:6379/0``, ``rediss://`` (TLS), ``redis+socket:///path?db=0`` or
``unix://``, ``sentinel://host:26379;sentinel://host:26380/0`` with ``master_name``. Queues,
priorities and results are Celery's own, so that its clients and workers share them. docs/redis.md
lists the options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celeriac.contracts import Broker
from celeriac.drivers.redis.admin import RedisQueueAdmin
from celeriac.drivers.redis.broker import RedisBroker
from celeriac.drivers.redis.bus import RedisEventBus
from celeriac.drivers.redis.results import RedisResultBackend
from celeriac.drivers.redis.schedules import RedisScheduleStore

__all__ = ["RESULT_SETTINGS", "SETTINGS", "admin", "broker", "bus", "results", "schedules"]

keeps_results = False  # as with Celery: results are kept where result_backend says

SETTINGS = {
    "ssl": "broker_use_ssl",
}
"""Options of the broker that the application's settings give, if nothing else does."""

RESULT_SETTINGS = {
    "host": "redis_host",
    "port": "redis_port",
    "db": "redis_db",
    "username": "redis_username",
    "password": "redis_password",
    "credential_provider": "redis_backend_credential_provider",
    "ssl": "redis_backend_use_ssl",
    "socket_timeout": "redis_socket_timeout",
    "socket_connect_timeout": "redis_socket_connect_timeout",
    "socket_keepalive": "redis_socket_keepalive",
    "client_name": "redis_client_name",
}
"""The same for results."""


def broker(url: str, options: Mapping[str, Any]) -> RedisBroker:
    return RedisBroker(url, options)


def results(url: str, options: Mapping[str, Any]) -> RedisResultBackend:
    return RedisResultBackend(url, options)


def bus(url: str, options: Mapping[str, Any]) -> RedisEventBus:
    return RedisEventBus(url, options)


def schedules(url: str, options: Mapping[str, Any]) -> RedisScheduleStore:
    return RedisScheduleStore(url, options)


def admin(broker: Broker) -> RedisQueueAdmin | None:
    return RedisQueueAdmin(broker) if isinstance(broker, RedisBroker) else None
