"""agentscope 1: `fanout_pipeline`, which its second version has no longer.

An agent is the least that one can be there: an `AgentBase` whose `reply` gives a message that lies ready.
"""

# ruff: noqa: E402 - the process is prepared before the rival is imported

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import common

# aiohttp is one of agentscope's own dependencies.
common.prepare(hide_aiohttp=False)

from agentscope.agent import AgentBase
from agentscope.message import Msg
from agentscope.pipeline import fanout_pipeline


class AnsweringAgent(AgentBase):
    """Answers at once."""

    answer = Msg("agent", common.REPLY, "assistant")

    async def reply(self, *messages: object, **named: object) -> Msg:
        return self.answer


async def fanout() -> dict:
    agents = [AnsweringAgent() for _ in range(common.AGENTS)]
    for agent in agents:
        agent.set_console_output_enabled(False)
    message = Msg("user", common.PROMPT, "user")

    async def at_once() -> None:
        answers = await fanout_pipeline(agents, message)
        assert len(answers) == common.AGENTS
        assert all(answer.content == common.REPLY for answer in answers)

    async def in_turn() -> None:
        for agent in agents:
            assert (await agent(message)).content == common.REPLY

    return {
        "value": round(await common.cpu_of_awaits(at_once) / common.AGENTS, 2),
        "in_turn": round(await common.cpu_of_awaits(in_turn) / common.AGENTS, 2),
        "unit": "us",
        "agents": common.AGENTS,
    }


common.main({"fanout": fanout}, packages=("agentscope",))
