"""How texts become requests: in batches, some at once, each repeated by itself, the vectors in the texts' order."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any, TypeAlias

import msgspec

from gossamer.errors import ArgumentError, ModelError
from gossamer.models.backoff import wait_before_retry
from gossamer.models.base import Price
from gossamer.models.embeddings.base import Batching, Embeddings, Vector
from gossamer.models.failures import is_passing
from gossamer.models.prices import tell_unpriced
from gossamer.telemetry import metrics
from gossamer.telemetry.logging import logger
from gossamer.usage import Usage

__all__ = ["Answer", "AskForBatch", "embed_in_batches", "vectors_of"]

# Vectors that are read out of one answer before others on the loop get their turn: some milliseconds of work.
_VECTORS_AT_ONCE = 32

_decode_floats = msgspec.json.Decoder(list[float]).decode


class Answer(msgspec.Struct, frozen=True, eq=False):
    """What a provider gave for one batch.

    Attributes:
        vectors: one for each text, in their order.
        tokens: the tokens it counted; 0 where it does not count.
        model: who answered.
    """

    vectors: list[Vector]
    tokens: int
    model: str


# Asks a provider for the vectors of one batch.
AskForBatch: TypeAlias = Callable[[Sequence[str]], Awaitable[Answer]]


async def embed_in_batches(
    texts: Sequence[str], ask: AskForBatch, batching: Batching, name: str, price: Price | None
) -> Embeddings:
    """Embed texts, as many batches at once as allowed; the first that fails for good stops the others.

    Args:
        texts: the texts.
        ask: asks for one batch.
        batching: how texts are spread over requests.
        name: the model's name.
        price: what it costs, or None.

    Raises:
        ArgumentError: a text is empty, or is none.
        ModelError: a batch failed for good.
    """
    places = _places(_checked(texts), batching)
    answers: list[Answer | None] = [None] * len(places)
    todo = iter(enumerate(places))

    async def work() -> None:
        for number, place in todo:
            answers[number] = await _ask_until_answered(texts, place, ask, batching, name)

    if len(places) <= 1:
        await work()
    else:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(batching.max_concurrent, len(places))):
                    group.create_task(work())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures.exceptions[0].__cause__
    given = [answer for answer in answers if answer is not None]
    vectors = [vector for answer in given for vector in answer.vectors]
    usage = sum((_usage_of(answer, name, price) for answer in given), Usage())
    return Embeddings(vectors, usage, given[0].model if given else name)


def _from_numbers(value: msgspec.Raw) -> Vector:
    return array("f", _decode_floats(value))


async def vectors_of(
    values: Sequence[msgspec.Raw], read: Callable[[msgspec.Raw], Vector] = _from_numbers
) -> list[Vector]:
    """Read vectors out of JSON, letting others on the loop have their turn between.

    Args:
        values: a piece of JSON for each vector.
        read: reads one; lists of numbers by default.

    Raises:
        msgspec.DecodeError: one is no list of numbers, has none, or not as many as the others.
    """
    vectors: list[Vector] = []
    for value in values:
        if vectors and len(vectors) % _VECTORS_AT_ONCE == 0:
            await asyncio.sleep(0)
        vectors.append(read(value))
    if any(len(vector) != len(vectors[0]) or not vector for vector in vectors):
        raise msgspec.DecodeError(f"vectors of {sorted({len(vector) for vector in vectors})} values")
    return vectors


def _checked(texts: Sequence[str]) -> Sequence[str]:
    items: Any = texts
    if isinstance(items, str | bytes) or not isinstance(items, Sequence):
        raise ArgumentError(f"texts must be a list of texts, not {type(items).__name__}")
    for place, text in enumerate(texts):
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"texts[{place}] must be text, not {type(text).__name__}")
        if not text:
            raise ArgumentError(f"texts[{place}] is empty; an empty text has no embedding: leave it out")
    return texts


def _places(texts: Sequence[str], batching: Batching) -> list[range]:
    """Cut texts into batches, each as long as the limits allow."""
    places: list[range] = []
    begin = size = 0
    for place, text in enumerate(texts):
        length = _bytes_of(text, place)
        if place > begin and (place - begin >= batching.max_texts or size + length > batching.max_bytes):
            places.append(range(begin, place))
            begin, size = place, 0
        size += length
    if len(texts) > begin:
        places.append(range(begin, len(texts)))
    return places


def _bytes_of(text: str, place: int) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise ArgumentError(
            f"texts[{place}] holds {text[error.start]!a}, half of a pair, which is no text; "
            "clean what you read with text.encode('utf-8', 'replace').decode()"
        ) from error


async def _ask_until_answered(
    texts: Sequence[str], place: range, ask: AskForBatch, batching: Batching, name: str
) -> Answer:
    attempt = 1
    while True:
        began = perf_counter()
        try:
            answer = await ask(texts[place.start : place.stop])
        except ModelError as error:
            error.attempts = attempt
            asked = error.retry_after
            too_long = asked is not None and asked > batching.longest_wait
            if attempt >= batching.attempts or too_long or not is_passing(error):
                error.texts = place
                error.add_note(
                    f"The texts {place.start} to {place.stop - 1} of {len(texts)} were not embedded; "
                    f"the model was asked for them {attempt} time{'s' * (attempt > 1)}."
                )
                raise
            wait = wait_before_retry(attempt, asked, batching.first_wait, batching.longest_wait)
            logger.info("embedder %s failed, to be asked again in %.3f s: %s", name, wait, error)
        else:
            if metrics.recorder is not None:
                metrics.recorder.model_called(name, perf_counter() - began, Usage(answer.tokens))
            return answer
        await asyncio.sleep(wait)
        attempt += 1


def _usage_of(answer: Answer, name: str, price: Price | None) -> Usage:
    used = Usage(input_tokens=answer.tokens, model_calls=1)
    if price is None:
        tell_unpriced(name)
    if price is None or (
        price.input and not answer.tokens
    ):  # what nobody counted has no price, unless it is free
        return msgspec.structs.replace(used, unpriced_calls=1)
    return msgspec.structs.replace(used, cost=price.of(used))
