"""Any history at all: each dialect makes a request of it that its provider takes, or says what is wrong with it."""

from __future__ import annotations

import asyncio
import base64

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.dialects.contract import DIALECTS, each_dialect, model_of, simulator

from gossamer import Message, Text, ToolCall, ToolResult
from gossamer.errors import ArgumentError
from gossamer.messages import Audio, Citation, File, Image, ProviderBlock, Refusal, Thinking
from gossamer.models import ModelRequest
from gossamer.view import MessageView

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

words = st.one_of(st.sampled_from(["", " ", "\n", "hi", "\u2028\x00", "😀"]), st.text(max_size=8))
half_a_character = st.just("\ud800")
names = st.one_of(st.sampled_from(["convert", "a.b", "", "é"]), st.text(max_size=5))
ids = st.one_of(st.sampled_from(["a", "b", "c"]), st.text(max_size=3))
arguments = st.one_of(
    st.sampled_from(["{}", "", "{broken", "[1]", "null", '{"a": 1}', '{"a": {"a": 2}, "a": 3}']), words
)
json_data = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
media_types = st.sampled_from(
    ["", "image/png", "image/jpg", "audio/wav", "application/pdf", "text/plain", "x"]
)


def parts_for(dialect):
    """Parts of every kind, with data of any provider but the one that is asked: its own came from itself."""
    others = st.sampled_from([other for other in DIALECTS if other != dialect] + ["unheard_of"])
    provider = st.none() | st.dictionaries(others, json_data, max_size=2)

    def media(kind, **more):
        by_data = st.builds(
            kind,
            data=st.sampled_from([b"", PNG, b"%PDF-1.7", b"plain \xff"]),
            media_type=media_types,
            provider=provider,
            **more,
        )
        by_url = st.builds(
            kind, url=st.just("https://a.org/x.png"), media_type=media_types, provider=provider, **more
        )
        return by_data | by_url

    shown = media(Image) | media(Audio) | media(File, name=words) | st.builds(Text, words, provider=provider)
    return st.one_of(
        st.builds(Text, words, provider=provider),
        st.builds(Thinking, words, st.booleans(), provider),
        st.builds(Refusal, words, provider),
        st.builds(Citation, words, words, words, provider=provider),
        st.builds(ProviderBlock, others, json_data, provider),
        st.builds(ToolCall, names, arguments, ids, provider),
        st.builds(
            ToolResult,
            ids,
            names,
            words | st.lists(shown, max_size=3).map(tuple),
            st.sampled_from(["ok", "error", "not_run"]),
            provider,
        ),
        shown,
    )


def histories(dialect):
    """Messages in any order, with any parts in any role."""
    message = st.builds(
        Message,
        st.sampled_from(["system", "user", "assistant", "tool"]),
        st.lists(parts_for(dialect), max_size=4).map(tuple),
        st.none() | words,
    )
    return st.lists(message, max_size=6)


@each_dialect
def test_a_request_is_taken_or_the_argument_is_named(dialect):
    with asyncio.Runner() as runner:
        server = simulator("ok")
        runner.run(server.__aenter__())
        model = model_of(dialect, server)

        @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
        @given(histories(dialect), st.none() | words)
        def check(messages, instructions):
            last = messages[-1] if messages else None
            if (
                dialect == "anthropic_chat"
                and last is not None
                and (last.role == "assistant" or not last.parts)
            ):
                messages.append(Message.user("go on"))  # its newer models do not go on with an answer
            request = ModelRequest(MessageView(messages, 0, len(messages)), instructions)
            try:
                response = runner.run(model.respond(request))
            except ArgumentError as error:
                assert "image" in str(error) or "says nothing" in str(error)  # noqa: PT017 - either may be
            else:
                assert response.message.text

        try:
            check()
        finally:
            runner.run(server.__aexit__(None, None, None))
