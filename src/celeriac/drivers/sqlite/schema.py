"""Making the tables, and telling a store of ours from anything else."""

from __future__ import annotations

import sqlite3

from celeriac.drivers.sqlite.statements import statements
from celeriac.exceptions import CorruptStore, OperationalError

__all__ = ["APPLICATION_ID", "MIGRATIONS", "OLDEST_SQLITE", "prepare", "version_of"]

APPLICATION_ID = 0x43656C79  # "Cely", in the file's header
OLDEST_SQLITE = (3, 35, 0)  # UPSERT, window functions, RETURNING

# What leads from one version to the next; the file's user_version counts those it has.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    tuple(statements("schema").values()),
    tuple(statements("schema_2").values()),
    tuple(statements("schema_3").values()),
)


def version_of(connection: sqlite3.Connection, path: str) -> int:
    """The schema's version; 0 for an empty file. Raises for a file that is not ours. Needs an open
    transaction: what it reads must not change in between."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION_ID:
        if version > len(MIGRATIONS):
            raise OperationalError(
                f"The database sqlite:///{path} was made by a newer Celeriac (schema {version}, "
                f"known here: {len(MIGRATIONS)}). Upgrade celeriac in this environment."
            )
        return int(version)
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master LIMIT 3")]
    if application or version or names:
        holds = f" (it holds {', '.join(names)})" if names else ""
        raise CorruptStore(
            f"The database sqlite:///{path} belongs to another program{holds}: Celeriac does not "
            "write into it. Give a path of its own in the URL."
        )
    return 0


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Bring the file to the newest version, in one transaction, however many start at once."""
    connection.execute("BEGIN")
    try:
        if version_of(connection, path) == len(MIGRATIONS):
            return
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in MIGRATIONS[version_of(connection, path) :]:
            for statement in migration:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
