"""A connection of a Postgres store, made anew where it was lost."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

import msgspec

from gossamer.errors import GossamerError, StoreUnavailableError
from gossamer.stores.postgres_schema import migrate

if TYPE_CHECKING:
    from gossamer.stores.postgres_connection import Connection

__all__ = ["Link", "Place"]

# How long it is waited before another try, in seconds.
_WAITS = (0.0, 0.1, 0.5)


class Place(msgspec.Struct, frozen=True):
    """Where a store is.

    Attributes:
        url: with the password.
        shown: the same without it, for people.
        schema: see `PostgresStore`.
        timeout: the same.
    """

    url: str
    shown: str
    schema: str
    timeout: float

    def as_ours(self, error: Exception) -> GossamerError:
        """Give an error as one of ours."""
        if isinstance(error, GossamerError):
            return error
        from gossamer.stores.postgres_connection import as_ours

        return as_ours(error, self.shown, self.url)


class Link:
    """A connection; used by one thread.

    Args:
        place: to where.
        token: how the process names itself that lives as long as the connection; None where that is not to be told.
    """

    def __init__(self, place: Place, token: str | None = None) -> None:
        self._place = place
        self._token = token
        self._connection: Connection | None = None
        self._tries = 0
        self._was_connected = False

    def connected(self) -> Connection:
        """Give the connection; it is made where there is none, and the database brought to the newest version."""
        if self._connection is None:
            self._connection = self._connect()
            self._was_connected = True
        return self._connection

    def _connect(self) -> Connection:
        try:
            from gossamer.stores import postgres_connection as postgres
        except ImportError as error:
            raise StoreUnavailableError(
                "psycopg is missing, or the library libpq is; install it with: pip install 'gossamer[postgres]'"
            ) from error
        connection = postgres.connect(self._place.url, self._place.schema, self._place.timeout)
        try:
            migrate(connection, self._place.schema, self._place.shown)
            if self._token is not None:
                postgres.say_alive(connection, self._token)
        except BaseException:
            connection.close()
            raise
        return connection

    def succeeded(self) -> None:
        """Note that the server did what it was asked."""
        self._tries = 0

    def may_try_again(self, error: Exception, *, is_committing: bool) -> bool:
        """Clean up after an error, and tell whether another try may succeed and repeats nothing; waits before it.

        Args:
            error: what was raised.
            is_committing: whether what was asked for may have been done all the same.
        """
        connection, lost = self._connection, self._connection is None
        if lost and not self._was_connected:  # what was never reached is told of at once
            return False
        from gossamer.stores.postgres_connection import is_lost, is_repeatable

        if connection is not None:
            if not is_lost(connection):
                try:
                    connection.rollback()
                except Exception:  # noqa: BLE001 - it is closed below
                    connection.close()
            if is_lost(connection):
                self.close()
                lost = True
        if self._tries >= len(_WAITS) or not (is_repeatable(error) or (lost and not is_committing)):
            self._tries = 0
            return False
        Event().wait(_WAITS[self._tries])
        self._tries += 1
        return True

    def close(self) -> None:
        """Let the connection go."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def forget(self) -> None:
        """In a forked child: let go of the connection, which stays the parent's."""
        if self._connection is not None:
            from gossamer.stores.postgres_connection import close_unheard

            close_unheard(self._connection)
