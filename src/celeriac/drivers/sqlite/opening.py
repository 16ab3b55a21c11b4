"""A new SQLite connection, set up as the driver needs it."""

from __future__ import annotations

import sqlite3

from celeriac.drivers.sqlite.options import Options
from celeriac.drivers.sqlite.schema import OLDEST_SQLITE, prepare
from celeriac.exceptions import OperationalError

__all__ = ["connect"]


def connect(options: Options) -> sqlite3.Connection:
    """To a store that is ready. Raises sqlite3.Error; while it is busy: try again."""
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
    execute("PRAGMA wal_autocheckpoint = 0")  # done in log.py, which says why
    execute("PRAGMA cache_size = -8000")
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
