"""One Database per file and process, also across forks.

SQLite keeps the file's locks per process and believes, in a forked child, to hold what only the
parent holds. So a connection is closed before a fork and opened again, by each of the two, when
it is next used. Where that was impossible (a fork that went around Python), the child leaves the
inherited one alone for ever and opens its own.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref

from celeriac.drivers.sqlite.connection import Database, leave_alone
from celeriac.drivers.sqlite.options import Options
from celeriac.exceptions import OperationalError

__all__ = ["database"]

_PATIENCE = 1.0
"""Seconds that a fork waits for another thread's transaction."""

_databases: weakref.WeakValueDictionary[Options, Database] = weakref.WeakValueDictionary()
_registry = threading.Lock()
_held: list[Database] = []  # between the moments before and after a fork


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


def _before_fork() -> None:
    for each in list(_databases.values()):
        if not each.lock.acquire(timeout=_PATIENCE):
            continue
        _held.append(each)
        try:
            each.close_connection()
        except OperationalError:
            pass  # the connection is gone all the same; its next user opens another


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().lock.release()


def _after_fork_in_child() -> None:
    global _registry
    _registry = threading.Lock()
    _held.clear()
    for each in list(_databases.values()):
        if each.connection is not None:
            leave_alone(each.connection)
        each.start_anew()
        each.watch.start_anew()


def _close_all() -> None:
    """At exit: so that the last one to leave tidies the log away."""
    for each in list(_databases.values()):
        if each.lock.acquire(timeout=_PATIENCE):
            try:
                each.close_connection()
            finally:
                each.lock.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
atexit.register(_close_all)
