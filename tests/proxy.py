"""A TCP proxy that misbehaves as networks do, to be put between a client and a real server."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Final

CHUNK: Final = 64 * 1024
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST and waits for nothing


class Proxy:
    """Listens on ``port`` of 127.0.0.1 and passes all on to another port there. A context
    manager; everything may be called from any thread."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def accepted(self) -> int:
        """How many connections there were so far."""
        return self._accepted

    @property
    def open(self) -> int:
        """How many connections there are now."""
        with self._lock:
            self._links = [link for link in self._links if not link.ended]
            return len(self._links)

    def cut(self) -> int:
        """Reset every connection, on both sides; how many there were."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.cut()
        return len(links)

    def stall(self) -> None:
        """From now on nothing passes; new connections are taken, and stand still too."""
        self._flowing.clear()

    def resume(self) -> None:
        """What stood still goes on, nothing of it lost."""
        self._flowing.set()

    def half_close(self, side: str) -> int:
        """End one direction of every connection: "client": the client is told that the server
        hung up, which does not know of it; "server": the server is told so of the client, which
        never gets an answer again. How many there were."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.half_close(side)
        return len(links)

    def close(self) -> None:
        self._listener.close()
        self._flowing.set()
        self.cut()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 5.0)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(client, server, self._flowing)
            with self._lock:
                self._accepted += 1
                self._links.append(link)
            link.start()


class _Link:
    """One connection: a thread for each direction."""

    def __init__(
        self, client: socket.socket, server: socket.socket, flowing: threading.Event
    ) -> None:
        self._client = client
        self._server = server
        self._flowing = flowing
        self._deaf = False  # the client is told nothing any more
        self._running = 2
        self._lock = threading.Lock()

    @property
    def ended(self) -> bool:
        return self._running == 0

    def start(self) -> None:
        for source, target in ((self._client, self._server), (self._server, self._client)):
            threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self._flowing.wait()
                with contextlib.suppress(OSError):  # who hears nothing is talked to all the same
                    target.sendall(data)
        self._flowing.wait()
        if target is not self._client or not self._deaf:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)
        with self._lock:
            self._running -= 1
        if self.ended:
            self._client.close()
            self._server.close()

    def cut(self) -> None:
        _reset(self._client)
        _reset(self._server)

    def half_close(self, side: str) -> None:
        self._deaf = side == "server"
        with contextlib.suppress(OSError):
            (self._server if self._deaf else self._client).shutdown(socket.SHUT_WR)


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.shutdown(socket.SHUT_RD)  # wakes the thread that reads
    sock.close()
