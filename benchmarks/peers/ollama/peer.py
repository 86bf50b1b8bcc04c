"""The official Ollama client alone."""

# ruff: noqa: E402 - the process is prepared before the rival is imported

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import common

common.prepare()

from ollama import AsyncClient


async def stream() -> dict:
    client = AsyncClient(host=common.setting("url").removesuffix("/v1"))
    messages = [{"role": "user", "content": common.PROMPT}]

    async def run() -> list[str]:
        chunks = await client.chat(model=common.MODEL, messages=messages, stream=True)
        return [chunk.message.content async for chunk in chunks if chunk.message.content]

    return await common.streamed(run)


common.main({"stream": stream}, packages=("ollama", "httpx", "pydantic"))
