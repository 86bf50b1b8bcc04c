"""Models that see no pictures, or read no files, are told of them; the session keeps them for others."""

from __future__ import annotations

import json

import pytest
from tests.integration.dialects.contract import model_of, sent, simulator

from gossamer import Agent, Session, Text, tool
from gossamer.messages import File, Image
from gossamer.models import Capabilities

__all__ = ["sent"]

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16
PDF = b"%PDF-1.7 x"
IMAGE, DOCUMENT = "iVBORw0KGgo", "JVBERi0xLjcgeA=="


@tool(inline=True)
def draw() -> Image:
    """Draw."""
    return Image(data=PNG)


@pytest.mark.parametrize("dialect", ["openai_chat", "ollama_chat"])
async def test_a_session_with_pictures_moves_to_a_model_that_sees_none_and_back(dialect, sent):
    async with simulator({"tool": "draw"}, "one", "two", "three") as server:
        seeing = Agent(model_of(dialect, server), tools=[draw])
        blind = Agent(model_of(dialect, server, capabilities=Capabilities(images=False, files=False)))
        session = Session()
        await seeing.run([Text("draw"), Image(data=PNG), File(data=PDF, name="a.pdf")], session=session)
        await blind.run("and now?", session=session)
        await seeing.run("and again?", session=session)
    for_blind, for_seeing = (json.dumps(body) for body in sent[-2:])
    assert IMAGE not in for_blind
    assert DOCUMENT not in for_blind
    assert for_blind.count("image/png") == 2  # the user's and the tool's, both told
    assert "a.pdf" in for_blind
    assert for_seeing.count(IMAGE) == 2


@pytest.mark.parametrize(("images", "files"), [(True, False), (False, True), (True, True)])
async def test_each_kind_is_told_by_itself(images, files, sent):
    async with simulator() as server:
        model = model_of("openai_chat", server, capabilities=Capabilities(images=images, files=files))
        await Agent(model).run([Text("look"), Image(data=PNG), File(data=PDF, name="a.pdf")])
    body = json.dumps(sent[0])
    assert (IMAGE in body, DOCUMENT in body) == (images, files)
    assert "image/png" in body
    assert "a.pdf" in body
