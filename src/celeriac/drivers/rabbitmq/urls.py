"""What ``amqp://`` URLs and their options say: where to connect, and how."""

from __future__ import annotations

import difflib
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from msgspec import Struct

from celeriac.contracts import Clock
from celeriac.exceptions import ImproperlyConfigured

SCHEMES = {"amqp": False, "pyamqp": False, "amqps": True}
_PORTS = {False: 5672, True: 5671}


class Endpoint(Struct, frozen=True, kw_only=True):
    """One server. ``given`` is its URL as it may be shown, ``name`` says the same in full."""

    given: str
    host: str
    port: int
    user: str
    password: str
    vhost: str
    tls: bool

    @property
    def name(self) -> str:
        scheme = "amqps" if self.tls else "amqp"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{quote(self.user)}@{host}:{self.port}/{quote(self.vhost, safe='')}"


class Options(Struct, frozen=True, kw_only=True):
    """``endpoints`` are tried in their order. ``connect_timeout``: seconds to connect to one of
    them; ``timeout``: seconds to wait for an answer, or for all confirms of a batch;
    ``guard_after``: seconds after which a held message is guarded against the server's consumer
    timeout (before RabbitMQ 3.12)."""

    endpoints: tuple[Endpoint, ...]
    connect_timeout: float = 4.0
    timeout: float = 5.0
    guard_after: float = 600.0
    login_method: str = "PLAIN"
    client_name: str = ""
    clock: Clock = time.time
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    verify: bool = True
    delayed_queue_type: str = "quorum"
    results_persistent: bool = False
    serializer: str = "json"
    context: Any = None
    queues: Any = None

    @property
    def store(self) -> str:
        """The same for every URL list that means the same servers and virtual host."""
        return ";".join(endpoint.name for endpoint in self.endpoints)

    def tls_context(self) -> ssl.SSLContext:
        if self.context is not None:
            return self.context  # type: ignore[no-any-return]
        context = ssl.create_default_context(cafile=self.cafile)
        if self.certfile:
            context.load_cert_chain(self.certfile, self.keyfile)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def read_options(url: str, options: Mapping[str, Any]) -> Options:
    """Raises ImproperlyConfigured for what is not understood. A URL's query goes first."""
    endpoints = []
    given = dict(options)
    for one in filter(None, (part.strip() for part in url.split(";"))):
        endpoint, query = _endpoint(one, bool(options.get("use_ssl")))
        endpoints.append(endpoint)
        given.update(query)
    if not endpoints:
        raise ImproperlyConfigured("An empty URL names no RabbitMQ server.")
    given = {**_tls(given.pop("use_ssl", None)), **given}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in _PASSED_OVER:
            continue
        reader = _READERS.get(name)
        if reader is None:
            raise ImproperlyConfigured(_unknown(name, endpoints[0].name))
        try:
            values[_RENAMED.get(name, name)] = reader(value)
        except (TypeError, ValueError) as wrong:
            raise ImproperlyConfigured(
                f"The option {name}={value!r} of {endpoints[0].name} is not usable: {wrong}."
            ) from None
    return Options(endpoints=tuple(endpoints), **values)


def _endpoint(url: str, use_tls: bool) -> tuple[Endpoint, dict[str, str]]:
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower().removeprefix("rpc+")
    if scheme not in SCHEMES:
        raise ImproperlyConfigured(
            f"{scheme}:// names no RabbitMQ server: write amqp://user:password@host:5672/vhost, "
            "or amqps:// for TLS; several of them divided by ';'."
        )
    parts = urlsplit(f"amqp://{rest}")
    try:
        port = parts.port
    except ValueError:
        raise ImproperlyConfigured(
            f"The port of {scheme}://{parts.hostname} is no number."
        ) from None
    tls = SCHEMES[scheme] or use_tls
    path = parts.path[1:]
    password = f":{parts.password}@" if parts.password else None
    endpoint = Endpoint(
        given=url.replace(password, ":**@", 1) if password else url,
        host=unquote(parts.hostname or "localhost"),
        port=port or _PORTS[tls],
        user=unquote(parts.username) if parts.username is not None else "guest",
        password=unquote(parts.password) if parts.password is not None else "guest",
        vhost=unquote(path) or "/",
        tls=tls,
    )
    return endpoint, dict(parse_qsl(parts.query, keep_blank_values=True))


def _tls(setting: Any) -> dict[str, Any]:
    """Options out of ``broker_use_ssl``: a mapping with the names of the ssl module."""
    if not isinstance(setting, Mapping):
        return {}
    options = {
        name: setting[name] for name in ("ca_certs", "certfile", "keyfile") if name in setting
    }
    if "cert_reqs" in setting:
        required = setting["cert_reqs"]
        options["verify"] = str(required) not in ("0", "CERT_NONE", "none", "VerifyMode.CERT_NONE")
    return options


def _seconds(value: Any) -> float:
    seconds = float(value)
    if seconds <= 0:
        raise ValueError("it must be above 0")
    return seconds


def _truth(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() not in ("", "0", "no", "false", "off", "cert_none")
    return bool(value)


def _as_given(value: Any) -> Any:
    return value


_READERS: dict[str, Callable[[Any], Any]] = {
    "connect_timeout": _seconds,
    "timeout": _seconds,
    "guard_after": _seconds,
    "login_method": lambda value: str(value).upper(),
    "client_name": str,
    "clock": _as_given,
    "cafile": str,
    "ca_certs": str,
    "certfile": str,
    "keyfile": str,
    "verify": _truth,
    "ssl_context": _as_given,
    "delayed_queue_type": str,
    "results_persistent": _truth,
    "serializer": str,
    "queues": _as_given,
    "use_ssl": _as_given,
}
_RENAMED = {"ca_certs": "cafile", "ssl_context": "context"}
# Celery's, which say nothing here: confirms are always waited for, heartbeats are the kernel's.
_PASSED_OVER = frozenset(
    "confirm_publish heartbeat dedupe_window max_retries interval_start interval_step "
    "interval_max retry_errback errback client_properties visibility_timeout "
    "queue_order_strategy read_timeout write_timeout".split()
)


def _unknown(name: str, place: str) -> str:
    text = f"{place} has no option {name!r}."
    near = difflib.get_close_matches(name, _READERS, n=1)
    if near:
        text += f" Did you mean {near[0]!r}?"
    return text + f" There are: {', '.join(sorted(_READERS))}."
