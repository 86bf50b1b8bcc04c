"""Exact tokenizers, where tiktoken is installed: loaded in the background, so that nothing waits for one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from threading import Lock, Thread
from typing import Any, TypeAlias

from gossamer.telemetry.logging import logger

__all__ = ["CountTokens", "counted_with", "tokenizer_for"]

# Counts the tokens of a text.
CountTokens: TypeAlias = Callable[[str], int]

# What speaks to models whose tokenizers tiktoken knows.
_DIALECTS = frozenset(("openai_chat", "openai_responses"))

# A text is counted in pieces of this many characters, as tiktoken's patterns take long over very long runs.
_PIECE = 50_000

# By model; None while a tokenizer loads, and where it cannot be had. Models beyond these are estimated.
_loaded: dict[str, CountTokens | None] = {}
_MAX_LOADED = 1000
_refused: set[str] = set()  # encodings that cannot be loaded, told once each
_lock = Lock()


def tokenizer_for(model: str, dialect: str) -> CountTokens | None:
    """Give the tokenizer of a model, None where there is none or it is not there yet.

    The first time that one is asked for, a thread begins to load it, as tiktoken does: out of its cache on disk, else
    from the network. Until it is there, and where it cannot be had, which the log says once, tokens are estimated.

    Cost: a look-up.

    Args:
        model: the model's name.
        dialect: what it speaks; others than OpenAI's have none.
    """
    if dialect not in _DIALECTS:
        return None
    if model in _loaded:
        return _loaded[model]
    if _is_installed():
        with _lock:
            if model not in _loaded and len(_loaded) < _MAX_LOADED:
                _loaded[model] = None
                Thread(target=_load, args=(model,), name=f"tokenizer of {model}", daemon=True).start()
    return _loaded.get(model)


def counted_with(encoding: Any) -> CountTokens:
    """Give what counts with an encoding of tiktoken; special tokens in a text count as the text that they are."""

    def count(text: str) -> int:
        if len(text) <= _PIECE:
            return len(encoding.encode_ordinary(text))
        pieces = (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
        return sum(len(encoding.encode_ordinary(piece)) for piece in pieces)

    return count


@functools.cache
def _is_installed() -> bool:
    return find_spec("tiktoken") is not None


def _load(model: str) -> None:
    """Load a model's tokenizer; tiktoken itself is imported here too, which takes tens of milliseconds."""
    import tiktoken

    try:
        name = tiktoken.encoding_name_for_model(model)
    except KeyError:
        return  # a model of somebody else, who speaks OpenAI's dialect
    try:
        _loaded[model] = counted_with(tiktoken.get_encoding(name))
    except Exception as error:  # noqa: BLE001 - a library, a file and the network: whatever it is, estimates do
        if name not in _refused:
            _refused.add(name)
            logger.warning(
                "tokens are estimated, as tiktoken's encoding %s cannot be loaded: %s: %s",
                name,
                type(error).__name__,
                error,
            )
