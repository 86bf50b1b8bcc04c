"""Places where a store may be, for tests: each can be opened many times over, as by many processes."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from gossamer.stores import SQLiteStore, Store

ROOT = Path(__file__).parents[3]


class Place(msgspec.Struct):
    """Where a store is.

    Attributes:
        kind: `sqlite`, `memory` or `postgres`.
        where: the path or URL.
        schema: of Postgres.
    """

    kind: str
    where: str
    schema: str = ""
    opened: list[Any] = []

    def open(self, **options: Any) -> Store:
        """Give a store of its own, as another process would have it; closed at the end of the test."""
        if self.kind == "postgres":
            from gossamer.stores import PostgresStore

            store = PostgresStore(self.where, schema=self.schema, **options)
        else:
            store = SQLiteStore(self.where, **options)
        self.opened.append(store)
        return store

    async def aclose(self) -> None:
        for store in self.opened:
            await store.aclose()
        self.opened.clear()

    def command(self, *arguments: str) -> list[str]:
        """Give the command of a process that uses the store; see `process.py`."""
        spec = msgspec.json.encode({"kind": self.kind, "where": self.where, "schema": self.schema}).decode()
        return [sys.executable, "-m", "tests.integration.stores.process", spec, *arguments]

    def execute(self, *statements: str) -> list[tuple]:
        """Run statements on the database behind the store's back, and give the rows of the last."""
        if self.kind == "postgres":
            import psycopg

            with psycopg.connect(self.where, autocommit=True) as connection:
                connection.execute(f'SET search_path = "{self.schema}"')
                for statement in statements:
                    cursor = connection.execute(statement)
                return cursor.fetchall() if cursor.description else []
        connection = sqlite3.connect(self.where, isolation_level=None)
        try:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
        finally:
            connection.close()
        return rows


def place_of(kind: str, folder: Path, url: str = "") -> Place:
    """Give a fresh place."""
    if kind == "postgres":
        return Place(kind, url, f"t_{uuid4().hex}")
    return Place(kind, ":memory:" if kind == "memory" else str(folder / "chats.db"))
