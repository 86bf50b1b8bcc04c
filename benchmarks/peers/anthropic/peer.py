"""The official Anthropic client alone."""

# ruff: noqa: E402 - the process is prepared before the rival is imported

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import common

common.prepare()

from anthropic import AsyncAnthropic


async def stream() -> dict:
    root = common.setting("url").removesuffix("/v1")
    async with AsyncAnthropic(base_url=root, api_key="sk-none") as client:

        async def run() -> list[str]:
            events = await client.messages.create(
                model=common.MODEL,
                max_tokens=4096,
                messages=[{"role": "user", "content": common.PROMPT}],
                stream=True,
            )
            return [e.delta.text async for e in events if e.type == "content_block_delta"]

        return await common.streamed(run)


common.main({"stream": stream}, packages=("anthropic", "httpx2", "pydantic"))
