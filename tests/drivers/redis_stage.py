"""What the tests of ``redis://`` share: one private server for all, emptied for each test."""

from __future__ import annotations

import atexit
import functools
import time
from pathlib import Path
from typing import Any

import hiredis
from tests.servers import RedisServer

from celeriac.drivers.redis.connection import Connection, pack
from celeriac.drivers.redis.options import read_options
from celeriac.testing import StoreUnderTest


@functools.cache
def shared_server() -> RedisServer:
    """Started when it is first asked for; it ends with the tests."""
    server = RedisServer()
    atexit.register(server.__exit__)
    server.start()
    return server


class Wire:
    """A plain connection for looking and preparing."""

    def __init__(self, url: str) -> None:
        self._connection = Connection(read_options(url, {}))

    def __call__(self, *words: Any) -> Any:
        self._connection.send(pack(words))
        reply = self._connection.read()
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def next(self) -> Any:
        """What the server says unasked."""
        return self._connection.read()

    def close(self) -> None:
        self._connection.close()


class OnServer(StoreUnderTest):
    """Time is the suite's: the driver passes it to its scripts, and what the server itself would
    let expire is brought nearer to its end when time is moved."""

    unreachable_url = "redis://127.0.0.1:1/0"
    keeps_early_parts = True  # Celery's clients open a chord just before they send its last part

    def new_url(self, folder: Path) -> str:
        server = shared_server()
        self.wire = Wire(server.url)
        self.wire("FLUSHALL")
        self.advanced_at = time.monotonic()
        return server.url

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        now = time.monotonic()
        passed, self.advanced_at = now - self.advanced_at, now  # by itself, which is not to count
        for key in self.wire("KEYS", "*"):
            left = self.wire("PTTL", key)
            if left >= 0:
                rest = round(left - (seconds - passed) * 1000)
                self.wire("PEXPIRE", key, rest) if rest > 0 else self.wire("DEL", key)

    def close(self) -> None:
        super().close()
        self.wire.close()
