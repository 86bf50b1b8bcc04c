"""Logging: one logger named `gossamer`, silent until the application or `setup_logger` says otherwise."""

from __future__ import annotations

import logging
from pathlib import Path

from gossamer.errors import ArgumentError

__all__ = ["LEVELS", "logger", "setup_logger"]

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_FORMAT = "%(asctime)s %(levelname)-8s %(name)s: %(message)s"
_MARK = "_gossamer_handler"

logger = logging.getLogger("gossamer")
logger.addHandler(logging.NullHandler())


def setup_logger(level: str, filepath: str | Path | None = None) -> logging.Logger:
    """Send Gossamer's log to the console, and to a file where one is named.

    Called again, it replaces what it set up before; handlers of the application stay as they are.

    Args:
        level: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`.
        filepath: a file to append to; its folder is made where it is missing.

    Returns:
        The logger.

    Raises:
        ArgumentError: not one of the five levels; it is a ValueError.
    """
    if level not in LEVELS:
        raise ArgumentError(f"level must be one of {', '.join(LEVELS)}, not {level!r}")
    for handler in list(logger.handlers):
        if getattr(handler, _MARK, False):
            logger.removeHandler(handler)
            handler.close()
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if filepath is not None:
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT))
        setattr(handler, _MARK, True)
        logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    return logger
