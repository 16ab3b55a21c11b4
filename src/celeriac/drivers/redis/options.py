"""What a Redis URL and its options say."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

from celeriac.contracts import Clock
from celeriac.drivers.redis.option_readers import READERS, TLS, Credentials, is_meaningless, unknown
from celeriac.exceptions import ImproperlyConfigured

__all__ = ["Options", "Tls", "hash_tag", "read_options"]

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
    credentials: Credentials | None = None  # asked at every log-in, instead of these
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
    """Raises ImproperlyConfigured for what is not understood. What the URL says goes first."""
    values, query = _parts(url)
    shown = values.pop("url")
    given = {**_values(_flat(options), shown), **values, **_values(query, shown)}
    _settle_address(given, url)
    _settle_tls(given, url)
    if results and given.get("prefix") and given["prefix"][-1] not in ":_-.":
        given["prefix"] += "_"  # as Celery's result backend does
    found = Options(url=shown, **given)
    if _is_sentinel(url) and not found.master:
        raise ImproperlyConfigured(
            f"{found.shown} names sentinels but no master: give master_name in "
            "broker_transport_options and result_backend_transport_options, or ?master_name= in "
            "the URL."
        )
    return found


def _values(options: Mapping[str, Any], shown: str) -> dict[str, Any]:
    """Options as fields of ``Options``, and some that are settled afterwards."""
    values = {}
    for name, value in options.items():
        if is_meaningless(name):
            continue
        reader = READERS.get(name)
        if reader is None:
            raise ImproperlyConfigured(unknown(name, shown))
        target, read = reader
        try:
            values[target] = read(value)
        except (TypeError, ValueError) as wrong:
            told = "" if "password" in name else f"={value!r}"
            raise ImproperlyConfigured(
                f"The option {name}{told} of {shown} is not usable: {wrong}."
            ) from None
    return values


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Celery's nested mappings as options of their own."""
    flat = dict(options)
    sentinel = dict(flat.pop("sentinel_kwargs", None) or {})
    for name in ("password", "username"):
        if sentinel.get(name) is not None:
            flat[f"sentinel_{name}"] = sentinel[name]
    if sentinel.get("ssl"):
        flat["sentinel_ssl"] = True
    given = flat.pop("ssl", None)
    if given:
        flat["use_tls"] = True
        for name, value in dict({} if given is True else given).items():
            flat[name if name.startswith("ssl_") else f"ssl_{name}"] = value
    return {name: value for name, value in flat.items() if value is not None}


def _settle_address(values: dict[str, Any], url: str) -> None:
    """``host`` and ``port`` are for a URL that names no host."""
    host, port = values.pop("host", "localhost"), values.pop("port", PORT)
    if not values.get("path") and not values.get("addresses"):
        values["addresses"] = ((host, SENTINEL_PORT if _is_sentinel(url) else port),)


def _is_sentinel(url: str) -> bool:
    return url.lower().startswith("sentinel")


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
    if places != [""]:
        values["addresses"] = tuple(_address(host, default, values["url"]) for host in places)
    if len(places) > 1 and scheme != "sentinel":
        raise ImproperlyConfigured(f"{values['url']} names several servers: give one.")
    if db:
        asked.setdefault("db", unquote(db))
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


def _settle_tls(values: dict[str, Any], url: str) -> None:
    """Options of TLS come one by one; they mean nothing without it."""
    given = {name: values.pop(f"tls_{name}") for name in TLS if f"tls_{name}" in values}
    wanted = values.pop("use_tls", False) or url.lower().startswith("rediss")
    if wanted or (given and _is_sentinel(url)):
        values["tls"] = Tls(**given)
