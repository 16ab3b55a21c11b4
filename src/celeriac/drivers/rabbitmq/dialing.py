"""Reaching a server: its address, TLS, the kernel's watch over the connection, and who we are."""

from __future__ import annotations

import socket
import ssl
from typing import Any, Final

from celeriac.drivers.rabbitmq import frames
from celeriac.drivers.rabbitmq.errors import Unreachable
from celeriac.drivers.rabbitmq.tables import short
from celeriac.drivers.rabbitmq.urls import Endpoint, Options

_KEEP_IDLE, _KEEP_EVERY, _KEEP_COUNT = 30, 10, 3  # a peer that is gone is noticed in a minute
_CAPABILITIES: Final = {
    "publisher_confirms": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
    "basic.nack": True,
    "exchange_exchange_bindings": True,
}


def dial(endpoint: Endpoint, options: Options) -> socket.socket:
    """A connected socket, with TLS if the URL says so. Raises Unreachable."""
    address = (endpoint.host, endpoint.port)
    try:
        plain = socket.create_connection(address, options.connect_timeout)
        _keep_alive(plain)
        if not endpoint.tls:
            return plain
        context = options.tls_context()
        return context.wrap_socket(plain, server_hostname=endpoint.host)
    except (OSError, ssl.SSLError) as exc:
        raise Unreachable(
            f"RabbitMQ at {endpoint.given} cannot be reached: {reason(exc)}. Is the server "
            "running, and is this its address?"
        ) from exc


def introduction(endpoint: Endpoint, options: Options, name: str, offered: list[str]) -> bytes:
    """The answer to the server's greeting; ``offered``: its login methods. Raises Unreachable."""
    chosen = options.login_method
    if chosen not in offered:
        raise Unreachable(
            f"{endpoint.name} offers the login methods {', '.join(offered)}, not {chosen}"
        )
    properties: dict[str, Any] = {
        "product": "Celeriac",
        "platform": "Python",
        "connection_name": options.client_name or name,
        "capabilities": _CAPABILITIES,
    }
    return frames.method(
        0,
        frames.START_OK,
        frames.table(properties)
        + short(chosen)
        + frames.long_string(_credentials(chosen, endpoint))
        + short("en_US"),
    )


def _credentials(method: str, endpoint: Endpoint) -> bytes:
    if method == "PLAIN":
        return f"\0{endpoint.user}\0{endpoint.password}".encode()
    if method == "AMQPLAIN":
        login = {"LOGIN": endpoint.user, "PASSWORD": endpoint.password}
        return frames.table(login)[4:]
    return b""  # EXTERNAL: the certificate says who we are


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _KEEP_IDLE),
        ("TCP_KEEPINTVL", _KEEP_EVERY),
        ("TCP_KEEPCNT", _KEEP_COUNT),
        ("TCP_USER_TIMEOUT", (_KEEP_IDLE + _KEEP_EVERY * _KEEP_COUNT) * 1000),
    ):
        if hasattr(socket, name):  # not on every system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def reason(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    return str(exc) or type(exc).__name__
