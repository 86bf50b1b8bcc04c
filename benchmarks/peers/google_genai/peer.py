"""The official Gemini client alone."""

# ruff: noqa: E402 - the process is prepared before the rival is imported

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import common

common.prepare()

from google import genai
from google.genai import types


async def stream() -> dict:
    root = common.setting("url").removesuffix("/v1")
    client = genai.Client(api_key="sk-none", http_options=types.HttpOptions(base_url=root))

    async def run() -> list[str]:
        chunks = await client.aio.models.generate_content_stream(model=common.MODEL, contents=common.PROMPT)
        return [chunk.text async for chunk in chunks if chunk.text]

    return await common.streamed(run)


common.main({"stream": stream}, packages=("google-genai", "httpx2", "pydantic"))
