"""Servers that refuse, break off, fall silent or talk nonsense: one clear error each, and a session that goes on.

Every `Server` asserts at its end that no connection, request, task or thread was left behind.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from tests.integration.asking import agent, ask, calling, convert, reply, results_of, streamed_and_not
from tests.integration.server import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    Close,
    Server,
    call_entry,
    chunk,
    completion,
    frame,
    http,
    say,
    stream,
)

from gossamer import Agent, Session
from gossamer.errors import (
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    InvalidResponseError,
    ModelConnectionError,
    ModelError,
    ModelTimeoutError,
    NotFoundError,
    OverloadedError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    StreamBrokenError,
)
from gossamer.models import ModelSettings, OpenAIChat

SILENCE = ModelSettings(timeout=0.2)


async def fails(answer, streamed, *, settings=None, **options):
    """Ask a server that fails, then once more: the error, and what the session then sent."""
    session = Session()
    async with Server(answer, reply(streamed, "back")) as server:
        asking = agent(server, **options)
        with pytest.raises(ModelError) as caught:
            await ask(asking, "first", streamed, session=session, settings=settings)
        assert session.unfinished is None
        result, _ = await ask(asking, "second", streamed, session=session)
        assert result.output == "back"
        assert session.messages[-1].text == "back"
    return caught.value, server.requests[1].messages


SECOND_ALONE = [{"role": "user", "content": "second"}]

# --- refusals -----------------------------------------------------------------------------------------------

STATUSES = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: AuthenticationError,
    404: NotFoundError,
    408: ModelTimeoutError,
    413: ContextLengthError,
    418: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitError,
    500: ProviderError,
    502: ProviderError,
    503: OverloadedError,
    529: OverloadedError,
}
BODIES = {
    "json": (b'{"error": {"message": "it is so", "type": "some_error", "code": null}}', "it is so"),
    "flat": (b'{"detail": "it is so"}', "it is so"),
    "text": (b'{"error": "it is so"}', "it is so"),
    "html": (b"<html><head><title>it is so</title></head><body><hr>nginx</body></html>", "it is so"),
    "empty": (b"", "an empty body"),
    "not utf-8": (b'{"error": "\xff it is so"}', "it is so"),
    "nested": (b"[" * 60_000, "[["),
    "list": (b'["it is so"]', "it is so"),
}


@streamed_and_not
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("body", ["json", "html", "empty"])
async def test_statuses(status, body, streamed):
    data, told = BODIES[body]
    error, sent = await fails(http(data, status, "X-Request-Id: req_1"), streamed)
    assert type(error) is STATUSES[status]
    assert error.status == status
    assert error.retry_after is None
    assert error.request_id == "req_1"
    assert error.provider == "openai"
    assert error.body == data.decode()
    assert str(status) in str(error)
    assert told in str(error)
    assert "secret" not in str(error)
    # What failed is in the journal, and not in the view.
    assert sent == SECOND_ALONE


@streamed_and_not
@pytest.mark.parametrize("body", BODIES)
async def test_bodies_of_errors(body, streamed):
    data, told = BODIES[body]
    error, _ = await fails(http(data, 500), streamed)
    assert type(error) is ProviderError
    assert told in str(error)
    assert len(str(error)) < 1000


async def test_an_endless_error_body_is_read_in_part():
    gone = asyncio.Event()

    async def endless(connection, request):
        await connection.send(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n")
        while await connection.send(chunk(b"no! " * 4096)):
            pass
        gone.set()

    error, _ = await fails(endless, streamed=False)
    assert type(error) is ProviderError
    assert len(error.body) <= 64 * 1024
    assert gone.is_set()


@streamed_and_not
@pytest.mark.parametrize(
    ("value", "low", "high"),
    [("7", 7, 7), ("1.5", 1.5, 1.5), ("-3", 0, 0), ("in 30 seconds", 25, 30), ("an hour ago", 0, 0)],
)
async def test_retry_after(value, low, high, streamed):
    moment = {"in 30 seconds": timedelta(seconds=30), "an hour ago": timedelta(hours=-1)}.get(value)
    if moment is not None:
        value = format_datetime(datetime.now(UTC) + moment, usegmt=True)
    error, _ = await fails(http(b"", 429, f"Retry-After: {value}"), streamed)
    assert low <= error.retry_after <= high


@pytest.mark.parametrize("value", ["soon", "nan", "inf", "Fri, 99 Foo 2026"])
async def test_a_retry_after_that_says_nothing(value):
    error, _ = await fails(http(b"", 503, f"Retry-After: {value}"), streamed=False)
    assert error.retry_after is None


@streamed_and_not
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"code": "context_length_exceeded", "message": "too long"}, ContextLengthError),
        (400, {"message": "This model's maximum context length is 8192 tokens"}, ContextLengthError),
        (400, {"code": "content_filter", "message": "no"}, ContentFilterError),
        (400, {"code": "content_policy_violation", "message": "no"}, ContentFilterError),
        (429, {"code": "insufficient_quota", "message": "pay"}, QuotaExceededError),
    ],
)
async def test_codes_say_more_than_statuses(status, body, kind, streamed):
    error, _ = await fails(http({"error": body}, status), streamed)
    assert type(error) is kind
    assert error.status == status


@streamed_and_not
@pytest.mark.parametrize("status", [301, 302, 307, 308, 304])
async def test_redirects_are_not_followed(status, streamed):
    error, _ = await fails(http(b"", status, "Location: https://example.org/v1"), streamed)
    assert type(error) is InvalidResponseError
    assert error.status == status
    assert "https://example.org/v1" in str(error)
    assert "base_url" in str(error)


# --- no server at all ---------------------------------------------------------------------------------------


@streamed_and_not
async def test_an_unreachable_host(streamed):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        session = Session()
        asking = Agent(OpenAIChat("gpt-test", base_url=url, api_key="k"))
        with pytest.raises(ModelConnectionError, match=r"127\.0\.0\.1.*running"):
            await ask(asking, "hi", streamed, session=session)
    async with Server(reply(streamed, "back")) as server:
        result, _ = await ask(agent(server), "second", streamed, session=session)
    assert result.output == "back"
    assert server.requests[0].messages == SECOND_ALONE


@streamed_and_not
async def test_a_name_that_does_not_resolve(streamed):
    asking = Agent(OpenAIChat("gpt-test", base_url="http://nowhere.invalid/v1", api_key="k"))
    with pytest.raises(ModelConnectionError, match=r"nowhere\.invalid"):
        await ask(asking, "hi", streamed)


@streamed_and_not
@pytest.mark.parametrize(
    "bytes_before", [b"", b"HTTP/1.1 200 OK\r\nContent-", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"]
)
async def test_broken_before_the_answer(bytes_before, streamed):
    error, sent = await fails(Close(bytes_before), streamed)
    assert type(error) is ModelConnectionError
    assert "broke" in str(error)
    assert sent == SECOND_ALONE


# --- answers that are none ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"hello"',
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": 5}}]}',
        b'{"choices": [{"message": {"content": "\xff"}}]}',
        b'{"choices": [{"message": {"content": [' + b"[" * 60_000,
        b'{"choices": "none"}',
        b"<html>Welcome to nginx!</html>",
    ],
)
async def test_a_body_that_is_no_completion(body):
    error, sent = await fails(http(body), streamed=False)
    assert type(error) is InvalidResponseError
    assert body[:20].decode("utf-8", "replace").strip('"') in error.body
    assert sent == SECOND_ALONE


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"null",
        b"[]",
        b"not json",
        b'{"choices": [{"delta": {"content": "\xff"}}]}',
        b'{"choices": [{"delta": {"content": [' + b"[" * 60_000,
        b'{"choices": 5}',
    ],
)
async def test_a_frame_that_is_no_chunk(payload):
    answer = stream(frame({"content": "so far"}), b"data: " + payload + b"\n\n", *say("more"))
    error, sent = await fails(answer, streamed=True)
    assert type(error) is InvalidResponseError
    # What was heard before stays, as an interrupted message.
    assert [message["content"] for message in sent] == ["first", "so far", "second"]


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json"])
async def test_a_page_instead_of_a_stream(kind):
    error, sent = await fails(http(b"<html>Welcome to nginx!</html>", kind=kind), streamed=True)
    assert type(error) is InvalidResponseError
    assert "Welcome to nginx!" in str(error)
    assert kind in str(error)
    assert sent == SECOND_ALONE


async def test_a_stream_of_another_name_is_read_all_the_same():
    answer = stream(*say("fine")).replace(b"text/event-stream", b"application/octet-stream")
    async with Server(answer) as server:
        result, _ = await ask(agent(server), "hi", streamed=True)
    assert result.output == "fine"


ERROR_KINDS = [
    ({"message": "slow down", "code": 429}, RateLimitError),
    ({"message": "slow down", "code": "rate_limit_exceeded"}, RateLimitError),
    ({"message": "busy", "type": "overloaded_error"}, OverloadedError),
    ({"message": "too long", "code": "context_length_exceeded"}, ContextLengthError),
    ({"message": "no", "type": "invalid_request_error"}, InvalidRequestError),
    ({"message": "oops", "type": "server_error"}, ProviderError),
    ("oops", ProviderError),
]


@pytest.mark.parametrize(("body", "kind"), ERROR_KINDS)
async def test_an_error_inside_a_stream(body, kind):
    told = body if isinstance(body, str) else body["message"]
    error, sent = await fails(stream(frame({"content": "so far"}), frame(error=body), DONE), streamed=True)
    assert type(error) is kind
    assert told in str(error)
    assert [message["content"] for message in sent] == ["first", "so far", "second"]


@streamed_and_not
@pytest.mark.parametrize(("body", "kind"), ERROR_KINDS)
async def test_an_error_with_the_status_of_a_success(body, kind, streamed):
    error, sent = await fails(http({"error": body}), streamed)
    assert type(error) is kind
    assert sent == SECOND_ALONE


async def test_null_errors_are_no_errors():
    async with Server(stream(frame({"content": "fi"}, error=None), *say("ne"))) as server:
        result, _ = await ask(agent(server), "hi", streamed=True)
    assert result.output == "fine"


# --- broken streams -----------------------------------------------------------------------------------------

FIRST = chunk(frame({"content": "so far"}))


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        LAST_CHUNK,
        b"5",
        b"fff\r\ndata: {",
        chunk(b'data: {"choices": [{"delta": {"conte') + LAST_CHUNK,
        chunk(b"data: [DO") + LAST_CHUNK,
        b"zz\r\nnonsense",
    ],
    ids=[
        "between frames",
        "ended",
        "in a chunk's size",
        "in a chunk",
        "in a frame",
        "in the last word",
        "not chunked",
    ],
)
async def test_a_truncated_stream(rest):
    error, sent = await fails(Close(STREAM_HEAD + FIRST + rest), streamed=True)
    assert type(error) is StreamBrokenError
    assert error.text == "so far"
    assert [message["content"] for message in sent] == ["first", "so far", "second"]


async def test_a_truncated_tool_call_is_dropped():
    call = call_entry("a", "convert", '{"amou', index=0)
    answer = STREAM_HEAD + FIRST + chunk(frame({"tool_calls": [call]}))
    error, sent = await fails(Close(answer), streamed=True, tools=[convert])
    assert type(error) is StreamBrokenError
    assert [(message["role"], message["content"]) for message in sent] == [
        ("user", "first"),
        ("assistant", "so far"),
        ("user", "second"),
    ]


async def test_a_truncated_body():
    whole = completion("a long answer")
    error, _ = await fails(Close(whole[:-20]), streamed=False)
    assert type(error) is ModelConnectionError


async def test_a_stream_without_its_last_word_is_whole_once_the_model_has_finished():
    answer = STREAM_HEAD + b"".join(chunk(event) for event in say("all of it")[:-1]) + LAST_CHUNK
    async with Server(answer) as server:
        result, _ = await ask(agent(server), "hi", streamed=True)
    assert result.output == "all of it"
    assert result.finish_reason == "stop"


async def test_a_stream_that_does_not_end_after_its_last_word():
    session = Session()
    closed = asyncio.Event()

    async def lingering(connection, request):
        await connection.send(STREAM_HEAD + b"".join(chunk(event) for event in say("ok")))
        await connection.wait_closed_by_client()
        closed.set()

    async with Server(lingering, stream(*say("next"))) as server:
        result, _ = await ask(agent(server), "hi", streamed=True, session=session)
        assert result.output == "ok"
        await asyncio.wait_for(closed.wait(), 5)
        result, _ = await ask(agent(server), "again", streamed=True, session=session)
        assert result.output == "next"
        assert server.accepted == 2


# --- silence ------------------------------------------------------------------------------------------------


@streamed_and_not
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["at once", "in the head"])
async def test_silence_before_the_answer(said, streamed):
    async def silent(connection, request):
        await connection.send(said)
        await connection.wait_closed_by_client()

    error, sent = await fails(silent, streamed, settings=SILENCE)
    assert type(error) is ModelTimeoutError
    assert "0.2" in str(error)
    assert sent == SECOND_ALONE


async def test_silence_in_a_stream():
    async def silent(connection, request):
        await connection.send(STREAM_HEAD + FIRST)
        await connection.wait_closed_by_client()

    error, sent = await fails(silent, streamed=True, settings=SILENCE)
    assert type(error) is ModelTimeoutError
    assert [message["content"] for message in sent] == ["first", "so far", "second"]


async def test_silence_in_a_body():
    async def silent(connection, request):
        await connection.send(completion("a long answer")[:-20])
        await connection.wait_closed_by_client()

    error, _ = await fails(silent, streamed=False, settings=SILENCE)
    assert type(error) is ModelTimeoutError


async def test_a_slow_server_is_not_a_silent_one():
    async def slow(connection, request):
        pieces = say("a", "b", "c")
        await connection.send(STREAM_HEAD)
        for piece in pieces:
            await asyncio.sleep(0.15)
            await connection.send(chunk(piece))
        await connection.send(LAST_CHUNK)

    async with Server(slow) as server:
        result, _ = await ask(agent(server), "hi", streamed=True, settings=ModelSettings(timeout=0.5))
    assert result.output == "abc"


# --- too much -----------------------------------------------------------------------------------------------

FIFTY_MIB = 50 * 1024 * 1024


async def test_a_reply_of_50_mb():
    sent = 0

    async def huge(connection, request):
        nonlocal sent
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {FIFTY_MIB}\r\n\r\n"
        piece = b"x" * 65536
        await connection.send(head.encode())
        while sent < FIFTY_MIB and await connection.send(piece):
            sent += len(piece)

    error, _ = await fails(huge, streamed=False)
    assert type(error) is InvalidResponseError
    assert "33554432" in str(error)
    assert sent < FIFTY_MIB  # it hung up in the middle


async def test_a_stream_of_50_mb():
    sent = 0

    async def huge(connection, request):
        nonlocal sent
        piece = chunk(frame({"content": "x" * 60_000}))
        await connection.send(STREAM_HEAD)
        while sent < FIFTY_MIB and await connection.send(piece):
            sent += len(piece)

    error, _ = await fails(huge, streamed=True)
    assert type(error) is InvalidResponseError
    assert "33554432" in str(error)
    assert sent < FIFTY_MIB


async def test_an_endless_line():
    sent = 0

    async def endless(connection, request):
        nonlocal sent
        piece = chunk(b"x" * 60_000)
        await connection.send(STREAM_HEAD + chunk(b"data: "))
        while sent < FIFTY_MIB and await connection.send(piece):
            sent += len(piece)

    error, _ = await fails(endless, streamed=True)
    assert type(error) is InvalidResponseError
    assert sent < FIFTY_MIB


@streamed_and_not
async def test_an_endless_head(streamed):
    async def endless(connection, request):
        await connection.send(b"HTTP/1.1 200 OK\r\n")
        while await connection.send(b"X-More: " + b"x" * 1000 + b"\r\n"):
            pass

    error, _ = await fails(endless, streamed)
    assert type(error) is InvalidResponseError


async def test_a_gzip_bomb_is_bounded():
    packed = gzip.compress(b"x" * FIFTY_MIB)
    error, _ = await fails(http(packed, 200, "Content-Encoding: gzip"), streamed=False)
    assert type(error) is InvalidResponseError


@streamed_and_not
async def test_gzip_unasked(streamed):
    if streamed:
        packed = gzip.compress(b"".join(say("packed")))
        answer = http(packed, 200, "Content-Encoding: gzip", kind="text/event-stream")
    else:
        packed = gzip.compress(completion("packed").partition(b"\r\n\r\n")[2])
        answer = http(packed, 200, "Content-Encoding: gzip")
    async with Server(answer) as server:
        result, _ = await ask(agent(server), "hi", streamed)
    assert result.output == "packed"


@streamed_and_not
async def test_a_damaged_gzip_body(streamed):
    kind = "text/event-stream" if streamed else "application/json"
    answer = http(b"\x1f\x8bnot really gzip", 200, "Content-Encoding: gzip", kind=kind)
    error, _ = await fails(answer, streamed)
    assert type(error) is (StreamBrokenError if streamed else ModelConnectionError)


@streamed_and_not
async def test_an_unknown_coding(streamed):
    error, _ = await fails(http(b"x", 200, "Content-Encoding: zstd"), streamed)
    assert isinstance(error, ModelError)
    assert "zstd" in str(error)


# --- nonsense in calls --------------------------------------------------------------------------------------


@streamed_and_not
@pytest.mark.parametrize(
    "arguments",
    [
        "{",
        '{"amount": 1, "rate": ',
        "not json",
        "[]",
        '{"amount": "x", "rate": 2}',
        "",
        '{"amount": ' + "[" * 60_000,
    ],
)
async def test_arguments_that_are_no_json_go_back_to_the_model(arguments, streamed):
    bad = call_entry("a", "convert", arguments)
    good = call_entry("b", "convert", '{"amount": 2, "rate": 3}')
    async with Server(calling(streamed, bad), calling(streamed, good), reply(streamed, "6")) as server:
        result, _ = await ask(agent(server, tools=[convert]), "hi", streamed)
    assert result.output == "6"
    told, value = results_of(server.requests[2])
    assert "convert" in told
    assert len(told) < 1000
    assert value == "6.0"


@streamed_and_not
async def test_a_call_to_a_tool_that_does_not_exist(streamed):
    bad = call_entry("a", "transmute", "{}")
    async with Server(calling(streamed, bad), reply(streamed, "sorry")) as server:
        result, _ = await ask(agent(server, tools=[convert]), "hi", streamed)
    assert result.output == "sorry"
    assert "transmute" in results_of(server.requests[1])[0]
    assert "convert" in results_of(server.requests[1])[0]


async def test_a_failure_inside_a_tool_loop_keeps_what_was_done():
    entry = call_entry("a", "convert", '{"amount": 2, "rate": 3}')
    session = Session()
    async with Server(calling(False, entry), http(b"", 500), completion("back")) as server:
        asking = agent(server, tools=[convert])
        with pytest.raises(ProviderError):
            await asking.run("first", session=session)
        assert (await asking.run("second", session=session)).output == "back"
    assert [message["role"] for message in server.requests[2].messages] == [
        "user",
        "assistant",
        "tool",
        "user",
    ]
    assert json.loads(results_of(server.requests[2])[0]) == 6.0
