"""How many tokens a text, a message or a request has: estimated, mended by what providers count, exact where it can be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from gossamer.errors import ArgumentError
from gossamer.memory.tokenizers import CountTokens, tokenizer_for
from gossamer.messages import (
    Audio,
    Citation,
    File,
    Image,
    Message,
    ProviderBlock,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from gossamer.models.base import Model, ModelRequest

__all__ = ["TokenCounter", "estimate"]

# Tokens of a character, by what it is. Words of one script differ less than scripts do.
_LETTER = 1 / 4.4  # ASCII letters and spaces: English prose
_SYMBOL = 0.5  # ASCII punctuation and digits: code, JSON, tables
_TWO_BYTES = 0.5  # other letters of two bytes in UTF-8: Latin with accents, Greek, Cyrillic, Hebrew, Arabic
_THREE_BYTES = 0.8  # Chinese, Japanese, Korean, the scripts of India
_FOUR_BYTES = 2.0  # pictographs

_SYMBOLS = bytes(code for code in range(128) if not (chr(code).isalpha() or chr(code) == " "))

# What a message and a call bring along beside their words.
_PER_MESSAGE = 4
_PER_CALL = 8

# What providers make of media, roughly: a picture of usual size, a second of sound, a page of a document.
_PER_IMAGE = 1_000
_AUDIO_BYTES_A_TOKEN = 2_000
_FILE_BYTES_A_TOKEN = 60
_LEAST_FILE = 300
_MOST_MEDIA = 20_000
_LINKED_MEDIA = 1_500  # by URL: nobody knows how large

# How a model's ratio follows what its provider counts: the share of the new in it, and the bounds.
_WEIGHT = 0.3
_BOUNDS = (0.25, 4.0)

# Tokens that are taken to be counted alike on both sides, beside those of a request: what a provider adds to each request,
# such as words around tools, is most of a short one and would be taken for the ratio of a long one.
_ALIKE = 1_000
_MAX_MODELS = 1000


def estimate(text: str) -> int:
    """Estimate the tokens of a text by the kinds of its characters, in any script, prose or code.

    Cost: some passes in C, about 1 µs a KB.
    """
    count = len(text)
    if text.isascii():
        plain, ascii_count, rest = text.encode(), count, 0.0
    else:
        plain = text.encode("ascii", "ignore")
        ascii_count = len(plain)
        size = len(text.encode("utf-8", "replace"))
        four = len(text.encode("utf-16-le", "replace")) // 2 - count
        others = count - ascii_count - four  # of two bytes or three
        three = min(max(size - ascii_count - 4 * four - 2 * others, 0), others)
        rest = (others - three) * _TWO_BYTES + three * _THREE_BYTES + four * _FOUR_BYTES
    letters = len(plain.translate(None, _SYMBOLS))
    tokens = letters * _LETTER + (ascii_count - letters) * _SYMBOL + rest
    return int(tokens + 0.999)


class TokenCounter:
    """Counts tokens: by a tokenizer where there is one, else by estimates that learn from what providers count.

    Each model has a ratio between what its provider counted and what was counted here; it begins at 1, takes the
    first answer's whole and follows the later ones by three tenths, between a quarter and four. So it also makes up
    for what a provider adds to a request, and for a tokenizer that is not quite the model's. A short request says little
    of it.

    Safe to share between runs and threads. Keeps the ratios of 1,000 models.

    Args:
        count_tokens: counts the tokens of a text in place of estimates and tiktoken; called on the loop for short texts
            and in a thread for long ones.

    Raises:
        ArgumentError: it cannot be called.
    """

    __slots__ = ("_count_tokens", "_ratios")

    def __init__(self, count_tokens: CountTokens | None = None) -> None:
        if count_tokens is not None and not callable(count_tokens):  # pyright: ignore[reportUnnecessaryComparison]
            raise ArgumentError(
                f"count_tokens must be a function of a text, not {type(count_tokens).__name__}"
            )
        self._count_tokens = count_tokens
        self._ratios: dict[tuple[str, bool], float] = {}

    def tokenizer(self, model: Model | None) -> CountTokens:
        """Give what counts a model's texts at the moment: the user's function, tiktoken where it is loaded, estimates."""
        if self._count_tokens is not None:
            return self._count_tokens
        if model is None:
            return estimate
        return tokenizer_for(model.name, model.dialect) or estimate

    def ratio(self, model: Model | None) -> float:
        """Tell by how much a model's provider counts more than is counted here; 1 before it has answered."""
        if model is None:
            return 1.0
        return self._ratios.get((model.name, self.tokenizer(model) is estimate), 1.0)

    def text(self, text: str, model: Model | None = None) -> int:
        """Count a text as a model's provider would. O(len(text))."""
        return round(self.tokenizer(model)(text) * self.ratio(model))

    def messages(self, messages: Iterable[Message], model: Model | None = None) -> int:
        """Count messages as a model's provider would. O(characters)."""
        tokenizer = self.tokenizer(model)
        return round(sum(count_message(one, tokenizer) for one in messages) * self.ratio(model))

    def request(self, request: ModelRequest, model: Model | None = None) -> int:
        """Count a whole request as a model's provider would: instructions and tools too. O(characters)."""
        tokenizer = self.tokenizer(model)
        around = count_around(request.instructions, request.tools, request.output_schema, tokenizer)
        return self.messages(request.messages, model) + round(around * self.ratio(model))

    def learn(self, model: Model, counted: int, input_tokens: int) -> None:
        """Learn from an answer.

        Args:
            model: the model that was asked.
            counted: what was counted of its request, the ratio apart.
            input_tokens: what its provider counted.
        """
        if counted <= 0 or input_tokens <= 0:
            return
        key = (model.name, self.tokenizer(model) is estimate)
        least, most = _BOUNDS
        seen = min(max((input_tokens + _ALIKE) / (counted + _ALIKE), least), most)
        before = self._ratios.get(key)
        if before is None and len(self._ratios) >= _MAX_MODELS:
            self._ratios.clear()
        self._ratios[key] = seen if before is None else before + _WEIGHT * (seen - before)


def count_around(words: str | None, tools: Iterable[Any], schema: Any, count: CountTokens) -> int:
    """Count what a request holds beside its messages, the ratio apart."""
    tokens = _PER_MESSAGE
    if words:
        tokens += count(words)
    for tool in tools:
        tokens += count(msgspec.json.encode(tool).decode()) + _PER_CALL
    if schema is not None:
        tokens += count(msgspec.json.encode(schema.schema).decode())
    return tokens


def count_message(message: Message, count: CountTokens) -> int:
    """Count a message, the ratio apart."""
    tokens = _PER_MESSAGE
    for part in message.parts:
        tokens += _count_part(part, count)
    return tokens


def _count_part(part: Any, count: CountTokens) -> int:
    if isinstance(part, Text | Refusal):
        return count(part.text)
    if isinstance(part, ToolCall):
        return count(part.arguments) + count(part.name) + _PER_CALL
    if isinstance(part, ToolResult):
        content = part.content
        if isinstance(content, str):
            return count(content) + _PER_CALL
        return sum([_count_part(one, count) for one in content]) + _PER_CALL
    if isinstance(part, Thinking):  # only what a provider wants to have back is sent again
        return count(part.text) if part.provider else 0
    if isinstance(part, Image):
        return _PER_IMAGE
    if isinstance(part, Audio | File):
        return _of_media(part)
    if isinstance(part, Citation):
        return count(part.quote) + count(part.source)
    assert isinstance(part, ProviderBlock)
    return count(msgspec.json.encode(part.raw).decode())


def _of_media(part: Audio | File) -> int:
    if part.data is None:
        return _LINKED_MEDIA
    if isinstance(part, Audio):
        return min(len(part.data) // _AUDIO_BYTES_A_TOKEN + 50, _MOST_MEDIA)
    return min(max(len(part.data) // _FILE_BYTES_A_TOKEN, _LEAST_FILE), _MOST_MEDIA)
