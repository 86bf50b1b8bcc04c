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
    """
    CREATE TABLE memory_owners (
        number INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        memories INTEGER NOT NULL DEFAULT 0,
        UNIQUE (kind, name)
    ) STRICT;
    CREATE TABLE memories (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner INTEGER NOT NULL REFERENCES memory_owners ON DELETE CASCADE,
        same BLOB NOT NULL,
        text TEXT NOT NULL,
        tool TEXT NOT NULL,
        importance REAL NOT NULL,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        used REAL NOT NULL,
        uses INTEGER NOT NULL DEFAULT 0,
        session TEXT,
        run TEXT,
        metadata BLOB NOT NULL,
        UNIQUE (owner, same)
    ) STRICT;
    CREATE INDEX memories_by_update ON memories (owner, updated);
    CREATE TABLE memory_users (
        user TEXT NOT NULL,
        memory INTEGER NOT NULL REFERENCES memories ON DELETE CASCADE,
        PRIMARY KEY (user, memory)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX memory_users_by_memory ON memory_users (memory);
    CREATE TABLE memory_vectors (
        memory INTEGER PRIMARY KEY REFERENCES memories ON DELETE CASCADE,
        owner INTEGER NOT NULL,
        embedder TEXT NOT NULL,
        vector BLOB NOT NULL
    ) STRICT;
    CREATE INDEX memory_vectors_by_owner ON memory_vectors (owner, embedder);
    CREATE VIRTUAL TABLE memory_words USING fts5 (
        owner, tool, words, tokenize = 'porter unicode61 remove_diacritics 2'
    );
    CREATE TABLE memory_jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        agent TEXT NOT NULL,
        user TEXT,
        session TEXT,
        run TEXT NOT NULL,
        material TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        due REAL NOT NULL DEFAULT 0,
        holder TEXT,
        UNIQUE (kind, name, run)
    ) STRICT;
    CREATE INDEX memory_jobs_by_agent ON memory_jobs (kind, agent);
    CREATE INDEX memory_jobs_by_session ON memory_jobs (session) WHERE session IS NOT NULL;
    CREATE INDEX memory_jobs_by_user ON memory_jobs (user) WHERE user IS NOT NULL;
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
    # Counted first: another process may, just now, make its tables and put our mark on them, in one transaction.
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID and (tables or application):
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
