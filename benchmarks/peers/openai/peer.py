"""The official OpenAI client alone: what every framework built on it pays before its own work."""

# ruff: noqa: E402 - the process is prepared before the rival is imported

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import common

common.prepare()

from openai import AsyncOpenAI

NOT_AN_AGENT = "a client: it has no agent, no loop and no tools of its own"
MESSAGES = [{"role": "user", "content": common.PROMPT}]


def build_client() -> AsyncOpenAI:
    return AsyncOpenAI(base_url=common.setting("url"), http_client=common.openai_http_client())


async def ask(client: AsyncOpenAI) -> str:
    answer = await client.chat.completions.create(model=common.MODEL, messages=MESSAGES)
    return answer.choices[0].message.content


async def stream() -> dict:
    async with build_client() as client:

        async def run_responses() -> list[str]:
            events = await client.responses.create(
                model=common.MODEL, input=common.PROMPT, stream=True, store=False
            )
            return [e.delta async for e in events if e.type == "response.output_text.delta"]

        async def run() -> list[str]:
            events = await client.chat.completions.create(model=common.MODEL, messages=MESSAGES, stream=True)
            return [
                e.choices[0].delta.content async for e in events if e.choices and e.choices[0].delta.content
            ]

        responses = common.setting("dialect") == "openai_responses"
        return await common.streamed(run_responses if responses else run)


async def http() -> dict:
    async def fresh() -> str:
        async with build_client() as client:
            return await ask(client)

    async with build_client() as client:
        return await common.load(fresh, lambda: ask(client))


def imports() -> dict:
    return common.import_cost("from openai import AsyncOpenAI")


common.main(
    {
        "create": NOT_AN_AGENT,
        "create_tools": NOT_AN_AGENT,
        "run": NOT_AN_AGENT,
        "run_tool": NOT_AN_AGENT,
        "memory": "it keeps no history: the caller does",
        "turns": "it keeps no history: the caller does",
        "stream": stream,
        "http": http,
        "import": imports,
    },
    packages=("openai", "httpx2", "httpcore2", "pydantic", "aiohttp"),
)
