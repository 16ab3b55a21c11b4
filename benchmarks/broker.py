"""The Redis that all share: a private server, and one connection to look at it cheaply."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hiredis
from tests.servers import RedisServer

from benchmarks.peers import Stored


def installed() -> bool:
    return bool(shutil.which("redis-server") or shutil.which("valkey-server"))


@contextmanager
def server() -> Iterator[Redis]:
    """A server of default settings that writes nothing to the disk."""
    with RedisServer() as running:
        redis = Redis(running.port)
        try:
            yield redis
        finally:
            redis.close()


class Redis:
    """The server's URLs, and a connection for commands whose cost nobody notices."""

    def __init__(self, port: int) -> None:
        self.broker_url = f"redis://127.0.0.1:{port}/0"
        self.results_url = f"redis://127.0.0.1:{port}/1"
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._reader = hiredis.Reader()
        self._database = 0

    def call(self, *words: str | int | bytes) -> Any:
        self._socket.sendall(hiredis.pack_command(words))
        answer = False
        while answer is False:
            data = self._socket.recv(1 << 20)
            if not data:
                raise ConnectionError("the Redis server closed the connection")
            self._reader.feed(data)
            answer = self._reader.gets()
        if isinstance(answer, hiredis.ReplyError):
            raise answer
        return answer

    def select(self, database: int) -> None:
        if self._database != database:
            self.call("SELECT", database)
            self._database = database

    def flush(self) -> None:
        self.call("FLUSHALL", "SYNC")

    def stored(self, where: Stored, tasks: int) -> int:
        """How many of so many tasks have a result."""
        self.select(where.database)
        found = int(self.call(*where.command))
        return tasks - found if where.waiting else found

    def served(self) -> tuple[int, int]:
        """How many commands the server has run, those within scripts included, and how often it
        has read from a connection: what clients sent, a pipeline counted once."""
        stats = self.info("stats")
        return int(stats["total_commands_processed"]), int(stats["total_reads_processed"])

    def info(self, section: str) -> dict[str, str]:
        lines = self.call("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def by_command(self) -> dict[str, int]:
        """How often each command was run since the server started."""
        stats = self.info("commandstats")
        return {
            name.removeprefix("cmdstat_"): int(value.split(",")[0].removeprefix("calls="))
            for name, value in stats.items()
        }

    def close(self) -> None:
        self._socket.close()
