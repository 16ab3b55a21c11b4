"""The driver of ``amqp://`` (also ``amqps://``, ``pyamqp://``) and the result backend ``rpc://``.

``amqp://user:password@host:5672/vhost``; several URLs divided by ``;`` are tried in their order.
AMQP 0-9-1 is spoken by this package itself: no client library is needed. Options, in the URL's
query or as a mapping: ``connect_timeout`` and ``timeout`` (seconds), ``login_method``, ``cafile``,
``certfile``, ``keyfile``, ``verify`` (TLS), ``client_name``, ``delayed_queue_type``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celeriac.contracts import Broker
from celeriac.drivers.rabbitmq.admin import RabbitQueueAdmin
from celeriac.drivers.rabbitmq.broker import RabbitBroker
from celeriac.drivers.rabbitmq.bus import RabbitEventBus
from celeriac.drivers.rabbitmq.results import RpcResultBackend
from celeriac.drivers.rabbitmq.urls import SCHEMES, read_options
from celeriac.exceptions import ImproperlyConfigured

__all__ = ["SETTINGS", "admin", "broker", "bus", "results", "results_beside"]

keeps_results = False
sends_results = True  # rpc:// sends them to whoever sent the task

SETTINGS = {
    "connect_timeout": "broker_connection_timeout",
    "login_method": "broker_login_method",
    "use_ssl": "broker_use_ssl",
    "delayed_queue_type": "broker_native_delayed_delivery_queue_type",
    "results_persistent": "result_persistent",
    "serializer": "result_serializer",
}
"""Options of this driver that the application's settings give, if nothing else does."""


def broker(url: str, options: Mapping[str, Any]) -> RabbitBroker | None:
    if url.partition("://")[0].lower().startswith("rpc"):
        return None
    return RabbitBroker(read_options(url, options))


def results(url: str, options: Mapping[str, Any]) -> RpcResultBackend | None:
    if not url.partition("://")[0].lower().startswith("rpc"):
        return None
    return RpcResultBackend(read_options(results_beside(url, url), options))


def results_beside(url: str, broker_url: str) -> str:
    """``rpc://`` without a host is where the broker is, if that is RabbitMQ."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() != "rpc":
        return url
    if rest.strip("/"):
        return f"rpc+amqp://{rest}"
    if broker_url.partition("://")[0].lower() in SCHEMES:
        return f"rpc+{broker_url}"
    if broker_url == url:
        return "rpc+amqp://"
    raise ImproperlyConfigured(
        "result_backend='rpc://' sends results over the broker, and the broker is no RabbitMQ "
        f"({broker_url.partition('://')[0]}://). Use the broker's own result backend, or another."
    )


def bus(url: str, options: Mapping[str, Any]) -> RabbitEventBus | None:
    if url.partition("://")[0].lower().startswith("rpc"):
        return None
    return RabbitEventBus(read_options(url, options))


def admin(broker: Broker) -> RabbitQueueAdmin | None:
    return RabbitQueueAdmin(broker) if isinstance(broker, RabbitBroker) else None
