"""No task queue at all: the bytes of one of Celeriac's messages, pushed over a bare socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import hiredis

from benchmarks.peers.place import BROKER

_url = urlsplit(BROKER)
assert _url.hostname
assert _url.port
_socket = socket.create_connection((_url.hostname, _url.port))
_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
_reader = hiredis.Reader()
_message = Path(os.environ["BENCH_MESSAGE"]).read_bytes()


def send() -> None:
    _socket.sendall(hiredis.pack_command((b"LPUSH", b"celery", _message)))
    answer = False
    while answer is False:
        _reader.feed(_socket.recv(65536))
        answer = _reader.gets()
