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
    """
    CREATE TABLE memory_owners (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        kind text COLLATE "C" NOT NULL,
        name text COLLATE "C" NOT NULL,
        memories bigint NOT NULL DEFAULT 0,
        UNIQUE (kind, name)
    );
    CREATE TABLE memories (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id text COLLATE "C" NOT NULL UNIQUE,
        owner bigint NOT NULL REFERENCES memory_owners ON DELETE CASCADE,
        same bytea NOT NULL,
        text text NOT NULL,
        tool text COLLATE "C" NOT NULL,
        importance double precision NOT NULL,
        created double precision NOT NULL,
        updated double precision NOT NULL,
        used double precision NOT NULL,
        uses bigint NOT NULL DEFAULT 0,
        session text,
        run text,
        metadata bytea NOT NULL,
        words tsvector NOT NULL,
        UNIQUE (owner, same)
    );
    CREATE INDEX memories_by_update ON memories (owner, updated);
    CREATE INDEX memories_by_words ON memories USING gin (words) WITH (fastupdate = off);
    CREATE TABLE memory_users (
        "user" text COLLATE "C" NOT NULL,
        memory bigint NOT NULL REFERENCES memories ON DELETE CASCADE,
        PRIMARY KEY ("user", memory)
    );
    CREATE INDEX memory_users_by_memory ON memory_users (memory);
    CREATE TABLE memory_vectors (
        memory bigint PRIMARY KEY REFERENCES memories ON DELETE CASCADE,
        owner bigint NOT NULL,
        embedder text NOT NULL,
        vector bytea NOT NULL
    );
    ALTER TABLE memory_vectors ALTER COLUMN vector SET STORAGE EXTERNAL;
    CREATE INDEX memory_vectors_by_owner ON memory_vectors (owner, embedder);
    CREATE TABLE memory_jobs (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        kind text COLLATE "C" NOT NULL,
        name text COLLATE "C" NOT NULL,
        agent text COLLATE "C" NOT NULL,
        "user" text COLLATE "C",
        session text COLLATE "C",
        run text COLLATE "C" NOT NULL,
        material text NOT NULL,
        attempts bigint NOT NULL DEFAULT 0,
        due double precision NOT NULL DEFAULT 0,
        holder text,
        UNIQUE (kind, name, run)
    );
    CREATE INDEX memory_jobs_by_agent ON memory_jobs (kind, agent);
    CREATE INDEX memory_jobs_by_session ON memory_jobs (session) WHERE session IS NOT NULL;
    CREATE INDEX memory_jobs_by_user ON memory_jobs ("user") WHERE "user" IS NOT NULL;
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
            there = connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone()
            if there is None:
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
    # One question, as another process may make all tables between two.
    found = connection.execute(
        "SELECT bool_or(relname = 'gossamer_migrations' AND relkind IN ('r', 'p')) FROM pg_class "
        "WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s)",
        (schema,),
    ).fetchone()
    is_ours = found[0] if found else None
    if is_ours is None:  # nothing is there
        return 0
    if not is_ours:
        raise StoreDamagedError(
            f"{where} has tables in its schema {schema!r}, but not Gossamer's; give the store a schema of its own"
        )
    row = connection.execute("SELECT coalesce(max(version), 0) FROM gossamer_migrations").fetchone()
    version = row[0] if row else 0
    assert isinstance(version, int)
    if version > len(migrations):
        raise StoreVersionError(
            f"{where} has version {version} and this Gossamer knows versions up to {len(migrations)}; upgrade it"
        )
    return version
