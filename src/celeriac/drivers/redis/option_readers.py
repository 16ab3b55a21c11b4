"""The options of a Redis URL one by one: how each is read, and those that mean nothing here."""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Callable
from typing import Any

from celeriac.contracts import Clock

__all__ = ["READERS", "TLS", "Credentials", "is_meaningless", "unknown"]

logger = logging.getLogger("celeriac.drivers.redis")

Credentials = Callable[[], tuple[str, str]]
"""User and password for a new connection."""


def unknown(name: str, url: str) -> str:
    """What to say of an option that there is not."""
    near = difflib.get_close_matches(name, [*READERS, *_MEANINGLESS], n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{url} has no option {name!r}.{hint} Known: {', '.join(sorted(READERS))}."


_told: set[str] = set()


def is_meaningless(name: str) -> bool:
    """Does Celery have it, and is it of no use here? The log says why, once."""
    reason = _MEANINGLESS.get(name)
    if reason is not None and name not in _told:
        _told.add(name)
        logger.info("The Redis option %s is accepted and not used: %s.", name, reason)
    return reason is not None


_LEASES = "messages come back when their worker stops renewing its lease, however long a task runs"
_BUS = "events and control messages have channels of their own"
_RETRIES = "a connection that failed is thrown away and built anew by whoever needs it next"
_POLICY = "task_publish_retry_policy and broker_publish_timeout say it"

_MEANINGLESS = {
    "visibility_timeout": _LEASES,
    "unacked_key": _LEASES,
    "unacked_index_key": _LEASES,
    "unacked_mutex_key": _LEASES,
    "unacked_mutex_expire": _LEASES,
    "unacked_restore_limit": _LEASES,
    "unacked_restore_interval": _LEASES,
    "unacked_restore_throttle": _LEASES,
    "ack_emulation": _LEASES,
    "fanout_prefix": _BUS,
    "fanout_patterns": _BUS,
    "queue_order_strategy": "queues are claimed in the order given to the worker, or by weight",
    "polling_interval": "waiting workers are woken by the server",
    "brpop_timeout": "waiting workers are woken by the server",
    "health_check_interval": "a connection that was idle is looked at before it is used",
    "retry_on_timeout": _RETRIES,
    "retry_policy": _RETRIES,
    "socket_keepalive_options": "the system's own are used",
    "max_retries": _POLICY,
    "interval_start": _POLICY,
    "interval_step": _POLICY,
    "interval_max": _POLICY,
    "connection_class": _RETRIES,
    "additional_connection_errors": _RETRIES,
    "reauth_check_interval": "every new connection asks the credential provider",
    "min_other_sentinels": "a master that one sentinel names is asked itself whether it is one",
    "sentinel_fanout_compat": _BUS,
    "result_chord_ordered": "the parts of a chord are always in order",
    "deadletter_queue": "what cannot be run is kept as a dead letter: docs/dead-letters.md",
    "body_encoding": "bodies are base64, which every version of Celery reads",
    "min_priority": "priority_steps says it",
}


def _text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise TypeError("it is text")
    return value if isinstance(value, str) else value.decode()


def _flag(value: Any) -> bool:
    if isinstance(value, str):
        if value.lower() in ("1", "true", "yes", "on"):
            return True
        if value.lower() in ("0", "false", "no", "off", ""):
            return False
        raise ValueError("it is true or false")
    return bool(value)


def _number(least: float, kind: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        number = kind(value)
        if not number >= least:
            raise ValueError(f"it is a number of at least {least:g}")
        return number

    return read


def _db(value: Any) -> int:
    text = str(value).strip("/") or "0"
    if not text.isdigit():
        raise ValueError("a database is a number from 0 on")
    return int(text)


def _steps(value: Any) -> tuple[int, ...]:
    steps = tuple(sorted({int(step) for step in value}))
    if not steps or steps[0] != 0:
        raise ValueError("the priority steps are numbers that begin with 0")
    return steps


def _cert_reqs(value: Any) -> str:
    names = {0: "none", 1: "optional", 2: "required", None: "none"}
    text = names.get(value, value)
    text = str(text).lower().removeprefix("cert_")
    if text not in names.values():
        raise ValueError("it is required, optional or none")
    return text


def _credentials(value: Any) -> Credentials:
    """Of an object with ``get_credentials()``, as redis-py's providers are, or the path of its
    class."""
    if isinstance(value, str):
        module, _, name = value.replace(":", ".").rpartition(".")
        try:
            value = getattr(importlib.import_module(module), name)()
        except (ImportError, AttributeError, ValueError) as wrong:
            raise ValueError(f"there is no such class ({wrong})") from wrong
    get = getattr(value, "get_credentials", None)
    if get is None:
        raise TypeError("it is an object with get_credentials()")

    def credentials() -> tuple[str, str]:
        *user, password = get()
        return (str(user[0]) if user and user[0] else "", str(password))

    return credentials


def _clock(value: Any) -> Clock:
    if not callable(value):
        raise TypeError("it is a function that gives epoch seconds")
    return value  # type: ignore[no-any-return]


TLS = ("cert_reqs", "check_hostname", "ca_certs", "certfile", "keyfile")

READERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "db": ("db", _db),
    "virtual_host": ("db", _db),
    "host": ("host", _text),
    "port": ("port", _number(1, int)),
    "username": ("username", _text),
    "password": ("password", _text),
    "credential_provider": ("credentials", _credentials),
    "global_keyprefix": ("prefix", _text),
    "sep": ("separator", _text),
    "priority_steps": ("priority_steps", _steps),
    "socket_timeout": ("socket_timeout", _number(0.001, float)),
    "socket_connect_timeout": ("socket_connect_timeout", _number(0.001, float)),
    "socket_keepalive": ("socket_keepalive", _flag),
    "client_name": ("client_name", _text),
    "max_connections": ("max_connections", _number(3, int)),
    "master_name": ("master", _text),
    "sentinel_username": ("sentinel_username", _text),
    "sentinel_password": ("sentinel_password", _text),
    "sentinel_ssl": ("sentinel_tls", _flag),
    "use_tls": ("use_tls", _flag),
    "ssl_cert_reqs": ("tls_cert_reqs", _cert_reqs),
    "ssl_check_hostname": ("tls_check_hostname", _flag),
    "ssl_ca_certs": ("tls_ca_certs", _text),
    "ssl_certfile": ("tls_certfile", _text),
    "ssl_keyfile": ("tls_keyfile", _text),
    "dedupe_window": ("dedupe_window", _number(0.0, float)),
    "clock": ("clock", _clock),
}
