"""SQLite's write-ahead log kept short, and room kept on the disk to work off what is stored.

SQLite's own automatic way of moving the log into the file neither waits for others nor gives up:
under steady load it never comes to the log's end, so the log grows without bound and every commit
pays for another try. Here most of it is moved while others go on, and only the rest while they
wait.

A full disk would stop settling too: so producers are refused while there is still room.
"""

from __future__ import annotations

import math
import os
import random
import sqlite3

from celeriac.drivers.sqlite.options import Options
from celeriac.drivers.sqlite.space import free_space, whole_space
from celeriac.exceptions import OperationalError

__all__ = ["Log"]

PAGE = 4096
PATIENCE = 20
"""Milliseconds that others are waited for, before the log is left as it is for now."""
MEGABYTE = 1024 * 1024


class Log:
    """Of one database. Its methods expect that the connection is used by nobody else."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._path = f"{options.path}-wal"
        self._limit: float = options.wal_autocheckpoint * PAGE or math.inf
        self._next = self._limit
        self._reserve = 0

    def measure_disk(self) -> None:
        """On a small disk less is kept, of both."""
        total = whole_space(self._options.path)
        if total:
            if self._options.wal_autocheckpoint:
                self._next = self._limit = min(self._limit, max(MEGABYTE // 2, total // 8))
            self._reserve = int(min(2 * self._limit, 32 * MEGABYTE, total // 4))

    def length(self) -> int:
        try:
            return os.stat(self._path).st_size
        except FileNotFoundError:
            return 0

    def is_long(self) -> bool:
        """Is it time to move it into the file? Asked after each commit.

        When it has been moved, it begins anew in the same blocks, which costs less than new ones;
        so that it came to its end again is seen from the file growing. Somewhat later in each
        process than in the others, so that one does it for all.
        """
        size = self.length()
        if size < self._limit:
            self._next = self._limit
        return size > self._next

    def shorten(self, connection: sqlite3.Connection) -> None:
        """Raises sqlite3.Error."""
        size = self.length()
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        moved = self._finish(connection, "RESTART" if size < 2 * self._limit else "TRUNCATE")
        # Should a long reader be in the way: again only when it has grown by as much.
        self._next = size + self._limit * (random.uniform(0.05, 0.25) if moved else 1.0)

    def empty(self, connection: sqlite3.Connection) -> None:
        """Give its room back, if nobody is in the way."""
        self._finish(connection, "TRUNCATE")

    def _finish(self, connection: sqlite3.Connection, how: str) -> bool:
        """Move what is left, waiting for others for a moment; was it possible?"""
        connection.execute(f"PRAGMA busy_timeout = {PATIENCE}")
        try:
            busy, _, _ = connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
        finally:
            connection.execute("PRAGMA busy_timeout = 0")
        return not busy

    def need_room(self, size: int) -> None:
        """Raises OperationalError when, after storing so many bytes, only the room for working
        off would be left."""
        free = free_space(self._options.path)
        if free is not None and free - 2 * size < self._reserve:  # in the log, then in the file
            raise OperationalError(
                f"No space is left: the disk of the database {self._options.store} is full but "
                f"for {free:,} bytes, and {self._reserve:,} are kept so that what is stored can be "
                "worked off; nothing of this call was stored. Free space on it: it goes on by "
                "itself then."
            )
