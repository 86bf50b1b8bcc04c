"""What values in memory depend on: their namespace, their tags, and that nobody changed their key meanwhile."""

from __future__ import annotations

from threading import Lock
from typing import Any, Self
from weakref import WeakValueDictionary

from gossamer.errors import ArgumentError

__all__ = ["Changes", "Held", "Look", "Scope", "Space", "Tag"]

_MAX_NAME_CHARS = 128


class Scope:
    """A namespace between two drops; values of an older one are not found any more."""

    __slots__ = ("space",)

    def __init__(self, space: Space) -> None:
        self.space = space  # a value in memory keeps its namespace in the table of namespaces


class Tag:
    """A tag between two drops."""

    __slots__ = ("__weakref__", "dropped")

    def __init__(self) -> None:
        self.dropped = False


class Space:
    """A namespace.

    Args:
        name: empty for the one without a name.

    Attributes:
        prefix: what its keys begin with in memory.
        data: its name in Redis.
        scope: what the values of now depend on.
        tag_drops: how many tags were dropped, known here or not.
    """

    __slots__ = ("__weakref__", "_lock", "_tags", "data", "name", "prefix", "scope", "tag_drops")

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or len(name) > _MAX_NAME_CHARS or ":" in name or "\0" in name:  # pyright: ignore[reportUnnecessaryIsInstance] - users' arguments
            raise ArgumentError(
                f"a namespace is text of at most {_MAX_NAME_CHARS} characters without ':' and NUL, not {name!r:.200}"
            )
        self.name = name
        self.prefix = f"\0{name}\0" if name else ""
        self.data = name.encode("utf-8", "surrogatepass")
        self.scope = Scope(self)
        self.tag_drops = 0
        self._tags: WeakValueDictionary[bytes, Tag] = WeakValueDictionary()
        self._lock = Lock()

    def drop(self) -> None:
        """Void all values. O(1)."""
        self.scope = Scope(self)

    def tags(self, names: tuple[bytes, ...]) -> tuple[Tag, ...]:
        """Give the tags of some names."""
        if not names:
            return ()
        with self._lock:
            return tuple([self._tags.setdefault(name, Tag()) for name in names])

    def drop_tag(self, name: bytes) -> None:
        """Void the values with a tag. O(1)."""
        with self._lock:
            self.tag_drops += 1
            tag = self._tags.pop(name, None)
            if tag is not None:
                tag.dropped = True


class Held:
    """A value in memory, and what it depends on."""

    __slots__ = ("scope", "tags", "value")

    def __init__(self, value: Any, scope: Scope, tags: tuple[Tag, ...]) -> None:
        self.value = value
        self.scope = scope
        self.tags = tags


class _Watch:
    __slots__ = ("users", "version")

    def __init__(self) -> None:
        self.users = 0
        self.version = 0


class Changes:
    """Which keys were changed while somebody looked at them. Holds only keys that are looked at now."""

    __slots__ = ("_watched", "lock")

    def __init__(self) -> None:
        self.lock = Lock()
        self._watched: dict[str, _Watch] = {}

    def note(self, place: str) -> None:
        """Note that a key was changed; `lock` is held."""
        watch = self._watched.get(place)
        if watch is not None:
            watch.version += 1

    def look(self, place: str) -> Look:
        """Begin to look at a key."""
        with self.lock:
            watch = self._watched.get(place)
            if watch is None:
                watch = self._watched[place] = _Watch()
            watch.users += 1
            return Look(self, place, watch)

    def leave(self, place: str, watch: Any) -> None:
        """End a look."""
        with self.lock:
            watch.users -= 1
            if not watch.users and self._watched.get(place) is watch:
                del self._watched[place]


class Look:
    """One operation on a key, which wants to know whether the key was changed by another meanwhile."""

    __slots__ = ("_changes", "_place", "_version", "_watch")

    def __init__(self, changes: Changes, place: str, watch: _Watch) -> None:
        self._changes = changes
        self._place = place
        self._watch = watch
        self._version = watch.version

    @property
    def fresh(self) -> bool:
        """Whether nobody changed the key since."""
        return self._watch.version == self._version

    def close(self) -> None:
        """Look no longer."""
        self._changes.leave(self._place, self._watch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
