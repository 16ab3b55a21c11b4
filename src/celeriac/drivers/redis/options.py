"""What a Redis URL and its options say."""

from __future__ import annotations

import difflib
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

from celeriac.contracts import Clock
from celeriac.exceptions import ImproperlyConfigured

__all__ = ["Options", "Tls", "hash_tag", "read_options"]

logger = logging.getLogger("celeriac.drivers.redis")

PORT = 6379
SENTINEL_PORT = 26379
SEPARATOR = "\x06\x16"

Address = tuple[str, int]


class Tls(Struct, frozen=True, kw_only=True):
    """``cert_reqs``: required, optional or none, as the ssl module means them."""

    cert_reqs: str = "required"
    check_hostname: bool = True
    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None


class Options(Struct, frozen=True, kw_only=True):
    """``addresses``: of the server, or of the sentinels if ``master`` is set; none: ``path`` is a
    socket. ``prefix`` stands before every key. Times are seconds."""

    url: str
    addresses: tuple[Address, ...] = ()
    path: str = ""
    db: int = 0
    username: str = ""
    password: str = ""
    tls: Tls | None = None
    master: str = ""
    sentinel_username: str = ""
    sentinel_password: str = ""
    sentinel_tls: bool = False
    prefix: str = ""
    separator: str = SEPARATOR
    priority_steps: tuple[int, ...] = (0, 3, 6, 9)
    socket_timeout: float = 5.0
    socket_connect_timeout: float = 3.0
    socket_keepalive: bool = True
    client_name: str = ""
    max_connections: int = 10
    dedupe_window: float = 86400.0
    clock: Clock | None = None

    @property
    def store(self) -> str:
        """One server, whatever the database number; on a cluster, one hash slot of it."""
        tag = hash_tag(self.prefix)
        return self.place + (f"#{{{tag}}}" if tag else "")

    @property
    def place(self) -> str:
        """The URL without database, user and password, for messages."""
        if self.path:
            return f"redis+socket://{self.path}"
        hosts = ",".join(f"{host}:{port}" for host, port in self.addresses)
        if self.master:
            return f"sentinel://{hosts}/{self.master}"
        return f"{'rediss' if self.tls else 'redis'}://{hosts}"

    @property
    def shown(self) -> str:
        """The URL for messages: no password in it."""
        return f"{self.place}/{self.db}" if not self.path else f"{self.place}?db={self.db}"

    def now(self) -> float:
        return (self.clock or time.time)()


def hash_tag(prefix: str) -> str:
    """What Redis Cluster hashes of a key that begins with the prefix; empty: the whole key."""
    found = re.search(r"\{([^}]+)\}", prefix)
    return found.group(1) if found else ""


def read_options(url: str, options: Mapping[str, Any], *, results: bool = False) -> Options:
    """Raises ImproperlyConfigured for what is not understood. The URL's query goes first."""
    values, query = _parts(url)
    for name, value in {**_flat(options), **query}.items():
        if name in _MEANINGLESS:
            _tell_meaningless(name)
            continue
        reader = _READERS.get(name)
        if reader is None:
            raise ImproperlyConfigured(_unknown(name, values["url"]))
        target, read = reader
        try:
            values[target] = read(value)
        except (TypeError, ValueError) as wrong:
            shown = "" if "password" in name else f"={value!r}"
            raise ImproperlyConfigured(
                f"The option {name}{shown} of {values['url']} is not usable: {wrong}."
            ) from None
    _settle_tls(values)
    if results and values.get("prefix") and values["prefix"][-1] not in ":_-.":
        values["prefix"] += "_"  # as Celery's result backend does
    found = Options(**values)
    if url.lower().startswith("sentinel") and not found.master:
        raise ImproperlyConfigured(
            f"{found.shown} names sentinels but no master: give master_name in "
            "broker_transport_options and result_backend_transport_options, or ?master_name= in "
            "the URL."
        )
    return found


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Celery's nested mappings as options of their own."""
    flat = dict(options)
    sentinel = dict(flat.pop("sentinel_kwargs", None) or {})
    for name in ("password", "username"):
        if sentinel.get(name) is not None:
            flat[f"sentinel_{name}"] = sentinel[name]
    if sentinel.get("ssl"):
        flat["sentinel_ssl"] = True
    for name, value in dict(flat.pop("ssl", None) or {}).items():
        flat[name if name.startswith("ssl_") else f"ssl_{name}"] = value
    return {name: value for name, value in flat.items() if value is not None}


# --- the URL


def _parts(url: str) -> tuple[dict[str, Any], dict[str, str]]:
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme == "sentinel":  # Celery repeats the scheme: sentinel://a:1;sentinel://b:2
        rest = re.sub(r"[;,]\s*(?:sentinel://)?", ",", rest, flags=re.IGNORECASE)
    rest, _, query = rest.partition("?")
    values: dict[str, Any] = {}
    asked = dict(parse_qsl(query, keep_blank_values=True))
    if scheme in ("unix", "redis+socket"):
        account, at, path = rest.rpartition("@")
        _account(values, account if at else "")
        values["path"] = unquote(path)
        if not values["path"].startswith("/"):
            raise ImproperlyConfigured(
                f"{scheme}://{path} names no socket: write redis+socket:///path/to/redis.sock?db=0"
            )
        values["url"] = f"{scheme}://{values['path']}"
        return values, asked
    hosts, _, db = rest.partition("/")
    accounts = [host.rpartition("@") for host in hosts.split(",")]
    _account(values, next((account for account, at, _ in accounts if at), ""))
    default = SENTINEL_PORT if scheme == "sentinel" else PORT
    places = [host for _, _, host in accounts]
    values["url"] = f"{scheme}://{','.join(places)}/{db}"
    values["addresses"] = tuple(_address(host, default, values["url"]) for host in places)
    if len(places) > 1 and scheme != "sentinel":
        raise ImproperlyConfigured(f"{values['url']} names several servers: give one.")
    if db:
        asked.setdefault("db", unquote(db))
    if scheme == "rediss":
        values["tls"] = Tls()
    return values, asked


def _account(values: dict[str, Any], account: str) -> None:
    username, colon, password = account.partition(":")
    if not colon:
        return
    values["username"], values["password"] = unquote(username), unquote(password)


def _address(text: str, port: int, url: str) -> Address:
    found = re.fullmatch(r"(?:\[(?P<six>[^\]]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>\d+))?", text)
    if found is None or int(found["port"] or port) > 65535:
        raise ImproperlyConfigured(f"{url}: {text!r} is not host:port.")
    return unquote(found["six"] or found["name"] or "localhost"), int(found["port"] or port)


def _settle_tls(values: dict[str, Any]) -> None:
    """Options of TLS come one by one; they mean nothing without it."""
    given = {name: values.pop(f"tls_{name}") for name in _TLS if f"tls_{name}" in values}
    if "tls" in values or (given and values["url"].startswith("sentinel")):
        values["tls"] = Tls(**given)


# --- options


def _unknown(name: str, url: str) -> str:
    near = difflib.get_close_matches(name, [*_READERS, *_MEANINGLESS], n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{url} has no option {name!r}.{hint} Known: {', '.join(sorted(_READERS))}."


_told: set[str] = set()


def _tell_meaningless(name: str) -> None:
    if name not in _told:
        _told.add(name)
        logger.info("The Redis option %s is accepted and not used: %s.", name, _MEANINGLESS[name])


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


def _clock(value: Any) -> Clock:
    if not callable(value):
        raise TypeError("it is a function that gives epoch seconds")
    return value  # type: ignore[no-any-return]


_TLS = ("cert_reqs", "check_hostname", "ca_certs", "certfile", "keyfile")

_READERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "db": ("db", _db),
    "virtual_host": ("db", _db),
    "username": ("username", _text),
    "password": ("password", _text),
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
    "ssl_cert_reqs": ("tls_cert_reqs", _cert_reqs),
    "ssl_check_hostname": ("tls_check_hostname", _flag),
    "ssl_ca_certs": ("tls_ca_certs", _text),
    "ssl_certfile": ("tls_certfile", _text),
    "ssl_keyfile": ("tls_keyfile", _text),
    "dedupe_window": ("dedupe_window", _number(0.0, float)),
    "clock": ("clock", _clock),
}
