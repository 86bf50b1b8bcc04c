"""What runs inside bubblewrap's box, with the standard library alone: the parent of the workers, their walls, and their work."""

__all__: list[str] = []
