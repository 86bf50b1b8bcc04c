"""The tables of a Postgres store, as steps from one version to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gossamer.errors import StoreDamagedError, StoreVersionError

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["MIGRATIONS", "migrate"]

# Names the lock around migrations, beside the schema: "Goss".
_LOCK = 0x476F7373

# Each step leads from the version that is its index to the next one. A step that has been released is never changed.
# What is JSON is kept as bytes: text could not hold NUL, which strings in JSON can.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE sessions (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id text COLLATE "C" NOT NULL UNIQUE,
        parent bigint REFERENCES sessions ON DELETE CASCADE,
        inside text COLLATE "C" NOT NULL DEFAULT '',
        "user" text COLLATE "C",
        agent text,
        title text NOT NULL DEFAULT '',
        messages bigint NOT NULL DEFAULT 0,
        length bigint NOT NULL DEFAULT 0,
        created double precision NOT NULL,
        updated double precision NOT NULL,
        initial bytea NOT NULL,
        run text NOT NULL DEFAULT '',
        fingerprint text NOT NULL DEFAULT '',
        paused boolean NOT NULL DEFAULT false,
        fence bigint NOT NULL,
        holder text
    );
    CREATE INDEX sessions_by_update ON sessions (updated) WHERE parent IS NULL;
    CREATE INDEX sessions_by_user ON sessions ("user", updated) WHERE "user" IS NOT NULL;
    CREATE INDEX sessions_by_parent ON sessions (parent) WHERE parent IS NOT NULL;
    CREATE INDEX sessions_unfinished ON sessions (updated) WHERE run <> '';
    CREATE TABLE records (
        session bigint NOT NULL REFERENCES sessions ON DELETE CASCADE,
        place bigint NOT NULL,
        data bytea NOT NULL,
        media bytea NOT NULL,
        PRIMARY KEY (session, place)
    );
    CREATE TABLE snapshots (
        session bigint PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
        at bigint NOT NULL,
        ranges bytea NOT NULL,
        data bytea NOT NULL,
        inserted bytea NOT NULL,
        media bytea NOT NULL
    );
    CREATE TABLE media (
        hash bytea PRIMARY KEY,
        data bytea NOT NULL
    );
    ALTER TABLE media ALTER COLUMN data SET STORAGE EXTERNAL;
    CREATE TABLE session_media (
        session bigint NOT NULL REFERENCES sessions ON DELETE CASCADE,
        hash bytea NOT NULL REFERENCES media,
        PRIMARY KEY (session, hash)
    );
    CREATE INDEX session_media_by_hash ON session_media (hash);
    """,
)


def migrate(
    connection: Connection[tuple[object, ...]],
    schema: str,
    where: str,
    migrations: Sequence[str] = MIGRATIONS,
) -> None:
    """Bring a database to the newest version; where there is no schema of that name yet, it is made.

    Args:
        connection: to the database, in autocommit mode, the schema alone in its search path.
        schema: the name of the schema, which is an identifier.
        where: the name of the database, for errors.
        migrations: the steps.

    Raises:
        StoreDamagedError: the schema is not one of ours.
        StoreVersionError: it is of a newer version.
    """
    if _check_version(connection, schema, where, migrations) == len(migrations):
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s::integer, hashtext(%s))", (_LOCK, schema))
        version = _check_version(
            connection, schema, where, migrations
        )  # another process may have been quicker
        if version == len(migrations):
            return
        if version == 0:
            # Asked for first, as the right to use a schema is often given without the right to make one.
            if not _exists(connection, "SELECT FROM pg_namespace WHERE nspname = %s", schema):
                connection.execute(f'CREATE SCHEMA "{schema}"'.encode())
            connection.execute(
                "CREATE TABLE gossamer_migrations (version integer PRIMARY KEY, at timestamptz)"
            )
        for number, step in enumerate(migrations[version:], version + 1):
            connection.execute(step.encode())
            connection.execute("INSERT INTO gossamer_migrations VALUES (%s, now())", (number,))


def _check_version(
    connection: Connection[tuple[object, ...]], schema: str, where: str, migrations: Sequence[str]
) -> int:
    """Give the version of a schema, 0 where it is not there, or empty."""
    ours = "SELECT FROM pg_tables WHERE schemaname = %s AND tablename = 'gossamer_migrations'"
    if not _exists(connection, ours, schema):
        others = "SELECT FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s)"
        if _exists(connection, others, schema):
            raise StoreDamagedError(
                f"{where} has tables in its schema {schema!r}, but not Gossamer's; give the store a schema of its own"
            )
        return 0
    row = connection.execute("SELECT coalesce(max(version), 0) FROM gossamer_migrations").fetchone()
    version = row[0] if row else 0
    assert isinstance(version, int)
    if version > len(migrations):
        raise StoreVersionError(
            f"{where} has version {version} and this Gossamer knows versions up to {len(migrations)}; upgrade it"
        )
    return version


def _exists(connection: Connection[tuple[object, ...]], query: str, name: str) -> bool:
    return connection.execute(query.encode(), (name,)).fetchone() is not None
