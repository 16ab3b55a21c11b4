"""Sockets: to a host or a path, encrypted or not."""

from __future__ import annotations

import select
import socket
import ssl

from celeriac.drivers.redis.options import Address, Options
from celeriac.exceptions import ImproperlyConfigured

__all__ = ["new_socket", "readable"]


def new_socket(options: Options, address: Address | None) -> socket.socket:
    patience = options.socket_connect_timeout
    if options.path:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(patience)
            sock.connect(options.path)
        except BaseException:
            sock.close()
            raise
        sock.settimeout(options.socket_timeout)
        return sock
    host, port = address or options.addresses[0]
    sock = socket.create_connection((host, port), patience)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if options.socket_keepalive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if options.tls is not None:
            sock = _encrypted(sock, host, options)
        sock.settimeout(options.socket_timeout)
    except BaseException:
        sock.close()
        raise
    return sock


def _encrypted(sock: socket.socket, host: str, options: Options) -> socket.socket:
    tls = options.tls
    assert tls is not None
    try:
        context = ssl.create_default_context(cafile=tls.ca_certs)
        if tls.certfile:
            context.load_cert_chain(tls.certfile, tls.keyfile)
    except OSError as error:  # those of TLS are among them
        raise ImproperlyConfigured(
            f"The TLS files of {options.shown} cannot be used: {error}."
        ) from error
    if not tls.check_hostname or tls.cert_reqs != "required":
        context.check_hostname = False
    context.verify_mode = {
        "required": ssl.CERT_REQUIRED,
        "optional": ssl.CERT_OPTIONAL,
        "none": ssl.CERT_NONE,
    }[tls.cert_reqs]
    try:
        return context.wrap_socket(sock, server_hostname=host)
    except TimeoutError as error:
        raise ssl.SSLError("it does not answer the handshake") from error


def readable(sock: socket.socket, seconds: float, *others: int) -> bool:
    """Is there something to read on the socket (or one of the other descriptors) by then?"""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    for other in others:
        poll.register(other, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))
