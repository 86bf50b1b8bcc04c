"""The tables of a SQLite store, as steps from one version to the next."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from gossamer.errors import StoreDamagedError, StoreVersionError

__all__ = ["APPLICATION_ID", "MIGRATIONS", "migrate"]

# "Goss", in the header of the file: tells our databases from others.
APPLICATION_ID = 0x476F7373

# Each step leads from the version that is its index to the next one. A step that has been released is never changed.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE sessions (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        parent INTEGER REFERENCES sessions ON DELETE CASCADE,
        inside TEXT NOT NULL DEFAULT '',
        user TEXT,
        agent TEXT,
        title TEXT NOT NULL DEFAULT '',
        messages INTEGER NOT NULL DEFAULT 0,
        length INTEGER NOT NULL DEFAULT 0,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        initial BLOB NOT NULL,
        run TEXT NOT NULL DEFAULT '',
        fingerprint TEXT NOT NULL DEFAULT '',
        paused INTEGER NOT NULL DEFAULT 0,
        fence INTEGER NOT NULL,
        holder TEXT
    ) STRICT;
    CREATE INDEX sessions_by_update ON sessions (updated) WHERE parent IS NULL;
    CREATE INDEX sessions_by_user ON sessions (user, updated) WHERE user IS NOT NULL;
    CREATE INDEX sessions_by_parent ON sessions (parent) WHERE parent IS NOT NULL;
    CREATE INDEX sessions_unfinished ON sessions (updated) WHERE run <> '';
    CREATE TABLE records (
        session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
        place INTEGER NOT NULL,
        data BLOB NOT NULL,
        media BLOB NOT NULL,
        PRIMARY KEY (session, place)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE snapshots (
        session INTEGER PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
        at INTEGER NOT NULL,
        ranges BLOB NOT NULL,
        data BLOB NOT NULL,
        inserted BLOB NOT NULL,
        media BLOB NOT NULL
    ) STRICT;
    CREATE TABLE media (
        hash BLOB PRIMARY KEY,
        data BLOB NOT NULL
    ) STRICT;
    CREATE TABLE session_media (
        session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
        hash BLOB NOT NULL REFERENCES media,
        PRIMARY KEY (session, hash)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX session_media_by_hash ON session_media (hash);
    """,
)


def migrate(connection: sqlite3.Connection, where: str, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring a database to the newest version; a new file becomes a database.

    Args:
        connection: to the database.
        where: its name, for errors.
        migrations: the steps.

    Raises:
        StoreDamagedError: the database is not one of ours.
        StoreVersionError: it is of a newer version.
    """
    if _version(connection, where) == len(migrations):
        _check_version(connection, where, migrations)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _check_version(connection, where, migrations)  # another process may have been quicker
        for step in migrations[version:]:
            for statement in step.split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection, where: str) -> int:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if tables or application:
            raise StoreDamagedError(
                f"{where} is a database, but not one of Gossamer's; give the store a file of its own"
            )
    return connection.execute("PRAGMA user_version").fetchone()[0]


def _check_version(connection: sqlite3.Connection, where: str, migrations: Sequence[str]) -> int:
    version = _version(connection, where)
    if version > len(migrations):
        raise StoreVersionError(
            f"{where} has version {version} and this Gossamer knows versions up to {len(migrations)}; upgrade it"
        )
    return version
