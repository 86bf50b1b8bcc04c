"""Plots of code in code mode: the model sees them."""

import msgspec
import pytest

from gossamer import Agent, Image, Text, ToolCall, code_mode, tool
from gossamer.models import ScriptedModel
from gossamer.sandbox import BubblewrapSandbox


@tool
async def prices() -> list[float]:
    """Look up prices."""
    return [3.0, 4.0]


@pytest.mark.usefixtures("bubblewrap")
async def test_the_model_sees_what_code_has_drawn():
    code = "import matplotlib.pyplot as plt\nplt.plot(await prices())\nNone"
    asked = []

    def answer(request):
        asked.append(request.messages[-1])
        if len(asked) == 1:
            return ToolCall("run_code", msgspec.json.encode({"code": code}).decode())
        return "seen"

    async with BubblewrapSandbox(["matplotlib"], warm=1) as sandbox:
        result = await code_mode(Agent(ScriptedModel(answer), tools=[prices]), sandbox).run(
            "Draw the prices."
        )
    assert result.output == "seen"
    text, image = asked[1].parts[0].content
    assert (text, type(image)) == (Text("[images: 1]"), Image)
    assert image.data.startswith(b"\x89PNG")
