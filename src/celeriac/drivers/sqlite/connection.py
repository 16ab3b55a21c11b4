"""One connection per process and file, shared by everything here that uses the file.

SQLite keeps the file's locks per process and believes, in a forked child, to hold what only the
parent holds. So a connection is closed before a fork and opened again, by each of the two, when
it is next used. Where that was impossible (a fork that went around Python), the child leaves the
inherited one alone for ever and opens its own.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from celeriac.drivers.sqlite.errors import is_busy, is_fatal, locked, translated
from celeriac.drivers.sqlite.options import Options
from celeriac.drivers.sqlite.schema import OLDEST_SQLITE, prepare
from celeriac.drivers.sqlite.statements import statements
from celeriac.drivers.sqlite.watch import Watch
from celeriac.exceptions import OperationalError
from celeriac.message import Owner

__all__ = ["Database", "Row", "database"]

Row = tuple[Any, ...]
T = TypeVar("T")

_SQL = statements("connection")
_QUEUE_ID, _QUEUE_ADD, _QUEUE_NAMES = _SQL["queue_id"], _SQL["queue_add"], _SQL["queue_names"]
_OWNER_ID = _SQL["owner_id"]

LOG_LIMIT = 64 * 1024 * 1024
"""Bytes that the -wal file may keep once its content has moved into the database."""
_FIRST_PAUSE = 0.0001
_LONGEST_PAUSE = 0.003
_FORK_PATIENCE = 1.0
_LOOK_EVERY = 0.5


class Database:
    """``with database.write() as connection`` is one transaction: committed at its end, rolled
    back by any exception. ``fetch`` is one reading statement. Errors come out translated."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.path = options.path
        self.watch = Watch(options.path, self)
        self._users = 0
        self._commits = 0
        self._writing = _Transaction(self, _begin_writing)
        self._reading = _Transaction(self, _begin_reading)
        self.start_anew()

    def start_anew(self) -> None:
        """Forget everything that belongs to another process."""
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._file: tuple[int, int] | None = None
        self._looked_at = 0.0
        self._queue_ids: dict[str, int] = {}
        self._queue_names: dict[int, str] = {}
        self._owner_ids: dict[Owner, int] = {}
        self._unsure: list[str] = []

    # --- opening and closing

    def use(self) -> None:
        """Open the file (and make it); it stays open until as many ``release`` calls."""
        with self._reading:
            self._users += 1

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users > 0:
                return
            self._users = 0
            self.close_connection()
        self.watch.close()

    def close_connection(self) -> None:
        """The lock is held."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._pid != os.getpid():
            _leave_alone(connection)
            return
        try:
            connection.close()
        except sqlite3.Error as error:
            raise translated(error, self.path) from error

    def _connected(self) -> sqlite3.Connection:
        """The lock is held. May find the file locked."""
        connection = self._connection
        if connection is not None:
            if self._pid == os.getpid() and self._is_there():
                return connection
            self.close_connection()
        connection = _connect(self.options)
        self._file = _identity(self.path)
        self._looked_at = time.monotonic()
        self._queue_ids.clear()
        self._queue_names.clear()
        self._owner_ids.clear()
        self._connection, self._pid = connection, os.getpid()
        return connection

    def _is_there(self) -> bool:
        """Is it still the file at the path? One that was deleted takes everything, and keeps
        nothing. Looks once in a while."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY:
            return True
        self._looked_at = now
        return _identity(self.path) == self._file

    # --- transactions

    def write(self) -> _Transaction:
        return self._writing

    def read(self) -> _Transaction:
        """Several reading statements that see one state."""
        return self._reading

    def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return self.run(lambda c: c.execute(statement, parameters).fetchall())

    def run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Call it with the connection, again and again while the file is busy."""
        found = self._enter(read)
        self._lock.release()
        return found

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

    def _enter(self, first: Callable[[sqlite3.Connection], T]) -> T:
        """Take the lock and do what comes first; while the file is busy, wait without the lock."""
        deadline = 0.0
        pause = _FIRST_PAUSE
        while True:
            self._lock.acquire()
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
                    self._lock.release()
            except BaseException:
                self._lock.release()
                raise
            now = time.monotonic()
            deadline = deadline or now + self.options.timeout
            if now >= deadline:
                raise locked(self.path, self.options.timeout)
            time.sleep(min(pause * random.uniform(0.5, 1.5), deadline - now))
            pause = min(pause * 1.4, _LONGEST_PAUSE)

    def _discard_if(self, error: sqlite3.Error) -> None:
        if is_fatal(error):
            try:
                self.close_connection()
            except OperationalError:
                pass  # it is the first error that the caller needs to see

    def _leave(self, error: BaseException | None) -> None:
        """End the transaction, if one is open. The lock is held."""
        connection = self._connection
        assert connection is not None
        if error is None:
            try:
                if connection.in_transaction:
                    connection.execute("COMMIT")
                    self._commits += 1
                self._unsure.clear()
                return
            except sqlite3.Error as failed:
                error = failed
        for name in self._unsure:
            self._queue_ids.pop(name, None)
        self._unsure.clear()
        if isinstance(error, sqlite3.Error):
            self._discard_if(error)
        if self._connection is not None and connection.in_transaction:
            self._roll_back(connection)
        if isinstance(error, sqlite3.Error):
            raise translated(error, self.path) from error

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.close_connection()  # which rolls back too

    # --- names as numbers; to be used within a transaction

    def queue_id(self, connection: sqlite3.Connection, name: str) -> int:
        """The queue's number, made if need be: only while writing."""
        id = self._queue_ids.get(name)
        if id is None:
            connection.execute(_QUEUE_ADD, (name,))
            (id,) = connection.execute(_QUEUE_ID, (name,)).fetchone()
            self._queue_ids[name] = id
            self._unsure.append(name)
        return int(id)

    def queue_names(self, ids: Collection[int]) -> dict[int, str]:
        """Not to be used within a transaction, which may have made names that do not stay."""
        if any(id not in self._queue_names for id in ids):
            self._queue_names = dict(self.fetch(_QUEUE_NAMES))
        names = self._queue_names
        return {id: names.get(id, "") for id in ids}

    def owner_id(self, connection: sqlite3.Connection, owner: Owner) -> int | None:
        """The owner's number, as remembered: it may have been forgotten by the store."""
        id = self._owner_ids.get(owner)
        if id is None:
            id = self.fresh_owner_id(connection, owner)
        return id

    def fresh_owner_id(self, connection: sqlite3.Connection, owner: Owner) -> int | None:
        key = (owner.lease, owner.slot, owner.incarnation)
        row = connection.execute(_OWNER_ID, key).fetchone()
        return int(row[0]) if row else None

    def remember_owner(self, owner: Owner, id: int) -> None:
        """After the commit that may have made it."""
        if len(self._owner_ids) > 1000:
            self._owner_ids.clear()
        self._owner_ids[owner] = id


class _Transaction:
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
            self._database._lock.release()


def _any_text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _begin_writing(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("BEGIN IMMEDIATE")
    return connection


def _begin_reading(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("BEGIN")
    connection.execute(_QUEUE_NAMES).fetchone()  # only now it has its snapshot, or is busy
    return connection


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _connect(options: Options) -> sqlite3.Connection:
    """A new connection to a store that is ready. Raises sqlite3.Error; busy: try again."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise OperationalError(
            f"Python's sqlite3 uses SQLite {sqlite3.sqlite_version}; Celeriac needs "
            f"{'.'.join(map(str, OLDEST_SQLITE))} or later. Use a Python built with a newer one."
        )
    connection = sqlite3.connect(
        options.path,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        _configure(connection, options)
    except BaseException:
        connection.close()
        raise
    return connection


def _configure(connection: sqlite3.Connection, options: Options) -> None:
    execute = connection.execute
    if execute("PRAGMA page_count").fetchone()[0] == 0:
        execute("PRAGMA auto_vacuum = INCREMENTAL")  # only possible before the first table
        _use_log(connection, options.path)
    prepare(connection, options.path)
    _use_log(connection, options.path)
    execute(f"PRAGMA synchronous = {options.synchronous}")
    execute(f"PRAGMA wal_autocheckpoint = {options.wal_autocheckpoint}")
    execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
    execute("PRAGMA temp_store = MEMORY")
    execute("PRAGMA secure_delete = OFF")  # some builds overwrite what is deleted: pages of work


def _use_log(connection: sqlite3.Connection, path: str) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise OperationalError(
            f"The database sqlite:///{path} cannot use SQLite's write-ahead log (its mode is "
            f"{mode}): the directory must be writable and on a local disk, not on a network file "
            "system."
        )


# --- one database per file and process

_databases: weakref.WeakValueDictionary[Options, Database] = weakref.WeakValueDictionary()
_registry = threading.Lock()


def database(options: Options) -> Database:
    """The process's database for these options (whatever their clock and window)."""
    key = Options(
        path=options.path,
        synchronous=options.synchronous,
        timeout=options.timeout,
        wal_autocheckpoint=options.wal_autocheckpoint,
    )
    with _registry:
        found = _databases.get(key)
        if found is None:
            _databases[key] = found = Database(key)
        return found


def _leave_alone(connection: sqlite3.Connection) -> None:
    """Never close it, not even when the interpreter ends: it is the parent's."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


_held: list[Database] = []  # between the moments before and after a fork


def _before_fork() -> None:
    for each in list(_databases.values()):
        if not each._lock.acquire(timeout=_FORK_PATIENCE):
            continue
        _held.append(each)
        try:
            each.close_connection()
        except OperationalError:
            pass  # the connection is gone all the same; its next user opens another


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop()._lock.release()


def _after_fork_in_child() -> None:
    global _registry
    _registry = threading.Lock()
    _held.clear()
    for each in list(_databases.values()):
        if each._connection is not None:
            _leave_alone(each._connection)
        each.start_anew()
        each.watch.start_anew()


def _close_all() -> None:
    for each in list(_databases.values()):
        if each._lock.acquire(timeout=_FORK_PATIENCE):
            try:
                each.close_connection()
            finally:
                each._lock.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
atexit.register(_close_all)
