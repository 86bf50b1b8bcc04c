"""The wire formats that streams are measured in, by the standard library alone: what is asked, where the text is."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.parse
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["WIRES", "Wire", "read_pieces"]


class Wire(NamedTuple):
    """A provider's format.

    Attributes:
        path: of a streamed answer, behind the server's root; `{model}` stands for the model.
        body: makes the request of model and prompt.
        text: the text in a frame, None where it has none.
        headers: that the provider asks for.
    """

    path: str
    body: Callable[[str, str], dict[str, Any]]
    text: Callable[[dict[str, Any]], str | None]
    headers: dict[str, str]


def _said(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _chat_text(frame: dict[str, Any]) -> str | None:
    return frame["choices"][0]["delta"].get("content") if frame["choices"] else None


def _gemini_text(frame: dict[str, Any]) -> str | None:
    parts = frame["candidates"][0].get("content", {}).get("parts", []) if frame.get("candidates") else []
    return parts[0].get("text") if parts else None


WIRES = {
    "openai_chat": Wire(
        "/v1/chat/completions",
        lambda model, prompt: {"model": model, "stream": True, "messages": _said(prompt)},
        _chat_text,
        {"Authorization": "Bearer sk-none"},
    ),
    "openai_responses": Wire(
        "/v1/responses",
        lambda model, prompt: {"model": model, "stream": True, "store": False, "input": _said(prompt)},
        lambda frame: frame["delta"] if frame["type"] == "response.output_text.delta" else None,
        {"Authorization": "Bearer sk-none"},
    ),
    "anthropic_chat": Wire(
        "/v1/messages",
        lambda model, prompt: {
            "model": model,
            "stream": True,
            "max_tokens": 4096,
            "messages": _said(prompt),
        },
        lambda frame: frame["delta"]["text"] if frame["type"] == "content_block_delta" else None,
        {"x-api-key": "sk-none", "anthropic-version": "2023-06-01"},
    ),
    "gemini_chat": Wire(
        "/v1beta/models/{model}:streamGenerateContent?alt=sse",
        lambda model, prompt: {"contents": [{"role": "user", "parts": [{"text": prompt}]}]},
        _gemini_text,
        {"x-goog-api-key": "sk-none"},
    ),
    "ollama_chat": Wire(
        "/api/chat",
        lambda model, prompt: {"model": model, "stream": True, "messages": _said(prompt)},
        lambda frame: frame["message"]["content"],
        {},
    ),
}


def read_pieces(root: str, dialect: str, model: str, prompt: str, ca: str = "") -> list[str]:
    """Read a streamed answer and give its pieces of text.

    Args:
        root: the server's URL without a path.
        dialect: one of `WIRES`.
        model: the model's name.
        prompt: what is asked.
        ca: a PEM file of the authority to trust, for an https URL.
    """
    wire = WIRES[dialect]
    parts = urllib.parse.urlsplit(root)
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca or None)
        connection = http.client.HTTPSConnection(parts.netloc, timeout=60, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    headers = {"Content-Type": "application/json", **wire.headers}
    connection.request("POST", wire.path.format(model=model), json.dumps(wire.body(model, prompt)), headers)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    if response.status != 200:
        raise RuntimeError(f"the server answered {response.status}: {data[:300]!r}")
    lines = [line.removeprefix(b"data: ") for line in data.splitlines()]
    texts = [wire.text(json.loads(line)) for line in lines if line.startswith(b"{")]
    return [text for text in texts if text]
