"""The connection to one file, shared by everything in a process that uses the file."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from celeriac.drivers.sqlite.errors import is_busy, is_fatal, is_full, locked, translated
from celeriac.drivers.sqlite.log import Log
from celeriac.drivers.sqlite.names import Names
from celeriac.drivers.sqlite.opening import connect
from celeriac.drivers.sqlite.options import Options
from celeriac.drivers.sqlite.watch import Watch
from celeriac.exceptions import OperationalError

__all__ = ["Database", "Row"]

Row = tuple[Any, ...]
T = TypeVar("T")

_LOOK_EVERY = 0.5
_FIRST_PAUSE = 0.0001
_LONGEST_PAUSE = 0.003


class Database:
    """``with database.write() as connection`` is one transaction: committed at its end, rolled
    back by any exception. ``fetch`` is one reading statement. Errors come out translated."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.path = options.path
        self.watch = Watch(options.path, self)
        self.log = Log(options)
        self._users = 0
        self._commits = 0
        self._writing = Transaction(self, _begin_writing)
        self._reading = Transaction(self, _begin_reading)
        self.start_anew()

    def start_anew(self) -> None:
        """Forget everything that belongs to another process."""
        self.lock = threading.Lock()
        self.names = Names()
        self.connection: sqlite3.Connection | None = None
        self._pid = 0
        self._file: tuple[int, int] | None = None
        self._looked_at = 0.0

    # --- opening and closing

    def use(self) -> None:
        """Open the file (and make it); it stays open until as many ``release`` calls."""
        with self._reading:
            self._users += 1

    def release(self) -> None:
        with self.lock:
            self._users -= 1
            if self._users > 0:
                return
            self._users = 0
            self.close_connection()
        self.watch.close()

    def close_connection(self) -> None:
        """The lock is held."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if self._pid != os.getpid():
            leave_alone(connection)
            return
        try:
            connection.close()
        except sqlite3.Error as error:
            raise translated(error, self.path) from error

    def _connected(self) -> sqlite3.Connection:
        """The lock is held. May find the file locked."""
        connection = self.connection
        if connection is not None:
            if self._pid == os.getpid() and self._is_there():
                return connection
            self.close_connection()
        connection = connect(self.options)
        self.names = Names()
        self.log.measure_disk()
        self._file = _identity(self.path)
        self._looked_at = time.monotonic()
        self.connection, self._pid = connection, os.getpid()
        return connection

    def _is_there(self) -> bool:
        """Is it still the file at the path? One that was deleted takes everything, and keeps
        nothing. Looks once in a while."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY:
            return True
        self._looked_at = now
        return _identity(self.path) == self._file

    # --- reading

    def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return self.run(lambda c: c.execute(statement, parameters).fetchall())

    def run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Call it with the connection, again and again while the file is busy."""
        found = self._enter(read)
        self.lock.release()
        return found

    def read(self) -> Transaction:
        """Several reading statements that see one state."""
        return self._reading

    def fetch_lossy(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """As ``fetch``, but text that is not UTF-8 does not stop it."""
        try:
            return self.fetch(statement, parameters)
        except OperationalError as error:
            if "UTF-8" not in str(error):
                raise

        def read(connection: sqlite3.Connection) -> list[Row]:
            connection.text_factory = _any_text
            try:
                return connection.execute(statement, parameters).fetchall()
            finally:
                connection.text_factory = str

        return self.run(read)

    def data_version(self) -> tuple[int, int]:
        """Changes with every commit, another connection's or this one's."""
        return self.fetch("PRAGMA data_version")[0][0], self._commits

    def queue_names(self, ids: Collection[int]) -> dict[int, str]:
        return self.names.queue_names(ids, self.fetch)

    # --- writing

    def write(self) -> Transaction:
        return self._writing

    def _enter(self, first: Callable[[sqlite3.Connection], T]) -> T:
        """Take the lock and do what comes first; while the file is busy, wait without the lock."""
        deadline = 0.0
        pause = _FIRST_PAUSE
        while True:
            self.lock.acquire()
            try:
                connection = self._connected()
                if connection.in_transaction:  # an exception came between two statements
                    connection.execute("ROLLBACK")
                return first(connection)
            except sqlite3.Error as error:
                try:
                    if not is_busy(error):
                        self._discard_if(error)
                        raise translated(error, self.path) from error
                finally:
                    self.lock.release()
            except BaseException:
                self.lock.release()
                raise
            now = time.monotonic()
            deadline = deadline or now + self.options.timeout
            if now >= deadline:
                raise locked(self.path, self.options.timeout)
            time.sleep(min(pause * random.uniform(0.5, 1.5), deadline - now))
            pause = min(pause * 1.4, _LONGEST_PAUSE)

    def _leave(self, error: BaseException | None) -> None:
        """End the transaction, if one is open. The lock is held."""
        connection = self.connection
        assert connection is not None
        if error is None:
            try:
                if connection.in_transaction:
                    connection.execute("COMMIT")
                    self._committed(connection)
                return
            except sqlite3.Error as failed:
                error = failed
        self.names.rolled_back()
        if connection.in_transaction:
            self._roll_back(connection)
        if isinstance(error, sqlite3.Error):
            self._discard_if(error)
            if is_full(error) and self.connection is not None:
                self._housekeep(self.log.empty)
            raise translated(error, self.path) from error

    def _committed(self, connection: sqlite3.Connection) -> None:
        self.names.committed()
        self._commits += 1
        if self.log.is_long():
            self._housekeep(self.log.shorten)

    def _housekeep(self, step: Callable[[sqlite3.Connection], None]) -> None:
        """Something that may be left for another time: no error of it is the caller's."""
        assert self.connection is not None
        try:
            step(self.connection)
        except sqlite3.Error as error:
            self._discard_if(error)

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.close_connection()  # which rolls back too

    def _discard_if(self, error: sqlite3.Error) -> None:
        if is_fatal(error):
            try:
                self.close_connection()
            except OperationalError:
                pass  # it is the first error that the caller needs to see


class Transaction:
    __slots__ = ("_begin", "_database")

    def __init__(
        self, database: Database, begin: Callable[[sqlite3.Connection], sqlite3.Connection]
    ) -> None:
        self._database = database
        self._begin = begin

    def __enter__(self) -> sqlite3.Connection:
        return self._database._enter(self._begin)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._database._leave(error)
        finally:
            self._database.lock.release()


def _begin_writing(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("BEGIN IMMEDIATE")
    return connection


def _begin_reading(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("BEGIN")
    connection.execute("SELECT 1 FROM sqlite_master").fetchone()  # only this takes the snapshot
    return connection


def _any_text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def leave_alone(connection: sqlite3.Connection) -> None:
    """Never close it, not even when the interpreter ends: it is another process's."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
