"""Embeddings in the formats of OpenAI, Azure, Gemini and Ollama.

The formats: https://platform.openai.com/docs/api-reference/embeddings, https://ai.google.dev/api/embeddings,
https://docs.ollama.com/api/embed.
"""

from __future__ import annotations

import base64
import math
import re
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from gossamer.simulator.azure_paths import deployment
from gossamer.simulator.dialect import RequestError
from gossamer.simulator.openai_errors import bad, invalid
from gossamer.simulator.tokens import count

__all__ = ["Embedded", "EmbeddingFormat", "embedding_format", "vector"]

_encode = msgspec.json.encode
_T = TypeVar("_T")


class Embedded(NamedTuple):
    """The answer to a request for embeddings.

    Attributes:
        body: of the answer.
        texts: what was embedded; tokens as their numbers.
        tokens: of all texts.
    """

    body: bytes
    texts: list[str]
    tokens: int


class EmbeddingFormat(NamedTuple):
    """A wire format for embeddings.

    Attributes:
        dialect: the name of the dialect in whose form errors are told.
        embed: path and body → answer; raises `RequestError`.
    """

    dialect: str
    embed: Callable[[bytes, bytes], Embedded]


def embedding_format(path: bytes) -> EmbeddingFormat | None:
    """The format of POST requests to this path, or None where they do not ask for embeddings."""
    if path.endswith(b"/embeddings"):
        return _OPENAI
    if path.endswith(b":batchEmbedContents"):
        return _GEMINI_BATCH
    if path.endswith(b":embedContent"):
        return _GEMINI
    return _OLLAMA if path.endswith(b"/api/embed") else None


# --- vectors ------------------------------------------------------------------------------------------------

_WORD = re.compile(r"\w+")
_HALVINGS = 8
_PER_HALVING = 2


@lru_cache(maxsize=16_384)
def _places(word: str, dimensions: int) -> tuple[tuple[int, float], ...]:
    """Where a word points: two places in the whole vector, two in its first half, and so on down to a 128th."""
    places: list[tuple[int, float]] = []
    state = _fnv(word)
    for halving in range(_HALVINGS):
        for _ in range(_PER_HALVING):
            state = _mix(state)
            places.append((state % max(dimensions >> halving, 1), 1.0 if state >> 63 else -1.0))
    return tuple(places)


def _fnv(word: str) -> int:
    # FNV-1a; `hash` would differ from process to process.
    state = 0xCBF29CE484222325
    for byte in word.encode("utf-8", "surrogatepass"):
        state = (state ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return state


def _mix(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return state ^ state >> 31


def vector(text: str, dimensions: int, shortened: int | None = None) -> list[float]:
    """The vector of a text: of length one, the same in every process, closer to texts with which it shares words.

    O(words + dimensions).

    Args:
        text: of any length; case does not matter, nor does the order of the words.
        dimensions: of the model.
        shortened: cut the vector to so many; its length is one again.
    """
    size = dimensions if shortened is None else shortened
    values = [0.0] * size
    for word in _WORD.findall(text.lower()) or (text,):
        for place, sign in _places(word, dimensions):
            if place < size:
                values[place] += sign
    length = math.sqrt(sum(value * value for value in values if value))
    if not length:
        # Words that cancel each other out, or a vector cut too short to hold any.
        values[0] = length = 1.0
    # Zero becomes 0.0 whatever its sign was, so that the same text gives the same bytes.
    return [value / length if value else 0.0 for value in values]


def _decoded(decode: Callable[[bytes], _T], body: bytes) -> _T:
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"invalid request: {error}") from None


# --- OpenAI and Azure ---------------------------------------------------------------------------------------

_OPENAI_INPUTS = 2048
_OPENAI_INPUT_TOKENS = 8192
_OPENAI_REQUEST_TOKENS = 300_000
_OPENAI_DIMENSIONS = {"text-embedding-3-large": 3072}


class _OpenAIRequest(msgspec.Struct, frozen=True):
    input: str | list[str | int | list[int]]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


_openai_decoder = msgspec.json.Decoder(_OpenAIRequest)


def _openai_inputs(given: str | list[str | int | list[int]]) -> list[tuple[str, int]]:
    """Each input as a text, with its tokens."""
    if isinstance(given, str):
        return [(given, count(given))]
    whole = [each for each in given if isinstance(each, int)]
    if whole and len(whole) == len(given):
        return [(_numbers(whole), len(whole))]
    inputs: list[tuple[str, int]] = []
    for each in given:
        if isinstance(each, int):
            raise bad("Invalid 'input': texts and tokens cannot be mixed.", "input", "invalid_value")
        inputs.append((each, count(each)) if isinstance(each, str) else (_numbers(each), len(each)))
    return inputs


def _numbers(tokens: Sequence[int]) -> str:
    return " ".join(map(str, tokens))


def _openai_checked(given: str | list[str | int | list[int]]) -> list[tuple[str, int]]:
    if isinstance(given, list) and len(given) > _OPENAI_INPUTS:
        raise bad(
            f"Invalid 'input': array too long. Expected an array with maximum length {_OPENAI_INPUTS}, but got an "
            f"array with length {len(given)} instead.",
            "input",
            "array_above_max_length",
        )
    inputs = _openai_inputs(given)
    if not inputs:
        raise bad("Invalid 'input': empty array. Expected an array with minimum length 1.", "input")
    for index, (text, tokens) in enumerate(inputs):
        if not text:
            raise bad("Invalid 'input': input cannot be an empty string.", "input")
        if tokens > _OPENAI_INPUT_TOKENS:
            raise bad(
                f"Invalid 'input[{index}]': maximum input length is {_OPENAI_INPUT_TOKENS} tokens.", "input"
            )
    total = sum(tokens for _, tokens in inputs)
    if total > _OPENAI_REQUEST_TOKENS:
        raise bad(
            f"Requested {total} tokens, max {_OPENAI_REQUEST_TOKENS} tokens per request",
            "input",
            "max_tokens_per_request",
        )
    return inputs


def _openai(path: bytes, body: bytes) -> Embedded:
    try:
        request = _openai_decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad(f"We could not parse the JSON body of your request: {error}") from None
    model = request.model or deployment(path)
    if not model:
        raise bad("you must provide a model parameter")
    inputs = _openai_checked(request.input)
    if request.dimensions is not None and model == "text-embedding-ada-002":
        raise bad("This model does not support specifying dimensions.", "dimensions")
    own = _OPENAI_DIMENSIONS.get(model, 1536)
    size = request.dimensions
    if size is not None and not 0 < size <= own:
        raise bad(
            f"Invalid value for 'dimensions' = {size}. Must be between 1 and {own}.",
            "dimensions",
            "invalid_value",
        )
    tokens = sum(each for _, each in inputs)
    data: list[dict[str, Any]] = []
    for index, (text, _) in enumerate(inputs):
        values = vector(text, own, size)
        embedding = _packed(values) if request.encoding_format == "base64" else values
        data.append({"object": "embedding", "index": index, "embedding": embedding})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    answer = _encode({"object": "list", "data": data, "model": model, "usage": usage})
    return Embedded(answer, [text for text, _ in inputs], tokens)


def _packed(values: Sequence[float]) -> str:
    packed = array("f", values)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode()


# --- Gemini -------------------------------------------------------------------------------------------------

_GEMINI_INPUTS = 100
_GEMINI_INPUT_TOKENS = 2048
_GEMINI_DIMENSIONS = 3072


class _GeminiPart(msgspec.Struct, frozen=True):
    text: str = ""


class _GeminiContent(msgspec.Struct, frozen=True):
    parts: list[_GeminiPart] = []


class _GeminiRequest(msgspec.Struct, frozen=True, rename="camel"):
    content: _GeminiContent
    model: str | None = None
    output_dimensionality: int | None = None


class _GeminiBatch(msgspec.Struct, frozen=True):
    requests: list[_GeminiRequest]


_gemini_decoder = msgspec.json.Decoder(_GeminiRequest)
_gemini_batch_decoder = msgspec.json.Decoder(_GeminiBatch)


def _gemini_value(request: _GeminiRequest) -> tuple[str, int, dict[str, Any]]:
    # Google's texts are cut where they are too long, not refused.
    text = "".join(part.text for part in request.content.parts)
    if not text:
        raise RequestError(400, "* EmbedContentRequest.content: contents is not specified\n")
    size = request.output_dimensionality
    if size is not None and not 0 < size <= _GEMINI_DIMENSIONS:
        raise RequestError(
            400,
            f"* EmbedContentRequest.output_dimensionality: must be between 1 and {_GEMINI_DIMENSIONS}, not {size}\n",
        )
    tokens = min(count(text), _GEMINI_INPUT_TOKENS)
    return text, tokens, {"values": vector(text, _GEMINI_DIMENSIONS, size)}


def _gemini_usage(tokens: int) -> dict[str, Any]:
    return {"promptTokenCount": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]}


def _gemini(path: bytes, body: bytes) -> Embedded:  # noqa: ARG001 - any model embeds alike
    text, tokens, value = _gemini_value(_decoded(_gemini_decoder.decode, body))
    return Embedded(_encode({"embedding": value, "usageMetadata": _gemini_usage(tokens)}), [text], tokens)


def _gemini_batch(path: bytes, body: bytes) -> Embedded:  # noqa: ARG001 - any model embeds alike
    requests = _decoded(_gemini_batch_decoder.decode, body).requests
    if not 0 < len(requests) <= _GEMINI_INPUTS:
        problem = (
            f"at most {_GEMINI_INPUTS} requests can be in one batch" if requests else "must be non-empty"
        )
        raise RequestError(400, f"* BatchEmbedContentsRequest.requests: {problem}\n")
    found = [_gemini_value(request) for request in requests]
    total = sum(tokens for _, tokens, _ in found)
    answer = {"embeddings": [value for _, _, value in found], "usageMetadata": _gemini_usage(total)}
    return Embedded(_encode(answer), [text for text, _, _ in found], total)


# --- Ollama -------------------------------------------------------------------------------------------------

_OLLAMA_INPUT_TOKENS = 2048
_OLLAMA_DIMENSIONS = 768


class _OllamaRequest(msgspec.Struct, frozen=True):
    model: str = ""
    input: str | list[str] = []
    truncate: bool | None = None
    dimensions: int | None = None


_ollama_decoder = msgspec.json.Decoder(_OllamaRequest)


def _ollama(path: bytes, body: bytes) -> Embedded:  # noqa: ARG001 - the body says all
    began = time.monotonic_ns()
    request = _decoded(_ollama_decoder.decode, body)
    if not request.model:
        raise RequestError(400, "model is required")
    texts = [request.input] if isinstance(request.input, str) else request.input
    if request.input == "":
        texts = []
    asked = request.dimensions or 0
    # A size that the model does not have is passed over.
    size = asked if 0 < asked < _OLLAMA_DIMENSIONS else None
    total = 0
    for text in texts:
        tokens = count(text)
        if tokens > _OLLAMA_INPUT_TOKENS and request.truncate is False:
            raise RequestError(400, "the input length exceeds the context length")
        total += min(tokens, _OLLAMA_INPUT_TOKENS)
    answer = {
        "model": request.model,
        "embeddings": [vector(text, _OLLAMA_DIMENSIONS, size) for text in texts],
        "total_duration": time.monotonic_ns() - began,
        "load_duration": 0,
        "prompt_eval_count": total,
    }
    return Embedded(_encode(answer), texts, total)


_OPENAI = EmbeddingFormat("openai_chat", _openai)
_GEMINI = EmbeddingFormat("gemini_chat", _gemini)
_GEMINI_BATCH = EmbeddingFormat("gemini_chat", _gemini_batch)
_OLLAMA = EmbeddingFormat("ollama_chat", _ollama)
