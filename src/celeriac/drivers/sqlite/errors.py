"""SQLite's errors in Celeriac's words: what happened, to which file, what to do."""

from __future__ import annotations

import os
import sqlite3

from celeriac.drivers.sqlite.space import free_space
from celeriac.exceptions import CorruptStore, OperationalError

__all__ = ["is_busy", "is_fatal", "is_full", "locked", "translated"]

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
# What a full disk can look like, when it is the log's index that finds no room.
_SPACELESS = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
# After these the connection is thrown away: what it believes about the file may be wrong.
_FATAL = _DAMAGED | {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_MISUSE,
    sqlite3.SQLITE_READONLY,
}


def _code(error: BaseException) -> int:
    """The primary result code; the extended ones carry more in the upper bits."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    return _code(error) in _BUSY


def is_full(error: sqlite3.Error) -> bool:
    return _code(error) == sqlite3.SQLITE_FULL


def is_fatal(error: sqlite3.Error) -> bool:
    return _code(error) in _FATAL


def locked(path: str, timeout: float) -> OperationalError:
    return OperationalError(
        f"The database sqlite:///{path} is locked by another process for {timeout:g} s. See who "
        "holds it (a backup, an sqlite3 shell with an open transaction, a stopped worker), or wait "
        "longer with the option timeout."
    )


def translated(error: sqlite3.Error, path: str) -> OperationalError:
    code = _code(error)
    if code == sqlite3.SQLITE_NOTADB:
        return CorruptStore(
            f"The file of sqlite:///{path} is not an SQLite database ({error}). Move the file "
            "away, or give another path in the URL."
        )
    if code == sqlite3.SQLITE_CORRUPT:
        return CorruptStore(
            f"The database sqlite:///{path} is damaged ({error}). Stop all workers, keep a copy, "
            f"save what can be read with: sqlite3 {path} .recover"
        )
    return OperationalError(_explained(code, error, path))


def _explained(code: int, error: sqlite3.Error, path: str) -> str:
    if code == sqlite3.SQLITE_FULL or (code in _SPACELESS and free_space(path) == 0):
        return (
            f"No space is left: the disk of the database sqlite:///{path} is full ({error}); "
            "nothing of this call was stored. Free space on it: it goes on by itself then."
        )
    if code == sqlite3.SQLITE_READONLY:
        return (
            f"The database sqlite:///{path} cannot be written ({error}). The file, its -wal and "
            "-shm files and its directory must be writable for this user."
        )
    if code == sqlite3.SQLITE_CANTOPEN:
        return f"The database sqlite:///{path} cannot be opened ({error}). {_why_not(path)}"
    if code == sqlite3.SQLITE_IOERR:
        return (
            f"Reading or writing the database sqlite:///{path} failed ({error}). Look at the "
            "disk; note that SQLite's log does not work on network file systems."
        )
    if code in _BUSY:
        return f"The database sqlite:///{path} is locked by another process ({error}). Try again."
    return f"The database sqlite:///{path} refused: {error}."


def _why_not(path: str) -> str:
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        return f"The directory {directory} does not exist: create it."
    if os.path.isdir(path):
        return "It is a directory: name a file in it."
    if os.path.exists(path):
        return "Its user must be able to read and write the file and the directory it is in."
    return f"The directory {directory} must be writable for this user."
