"""aiohttp as a raw client: the server's events split by line, one `json.loads` each, nothing else."""

# ruff: noqa: E402 - the process is prepared before the rival is imported

from __future__ import annotations

import json
import ssl
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import common

common.prepare(hide_aiohttp=False)

import aiohttp

NOT_AN_AGENT = "an HTTP client: it has no agent, no loop and no tools of its own"
BODY = {"model": common.MODEL, "messages": [{"role": "user", "content": common.PROMPT}]}
HEADERS = {"authorization": "Bearer sk-none"}


def build_session() -> aiohttp.ClientSession:
    verify = ssl.create_default_context(cafile=common.setting("ca")) if common.setting("ca") else True
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=verify), headers=HEADERS)


async def ask(session: aiohttp.ClientSession) -> str:
    async with session.post(common.setting("url") + "/chat/completions", json=BODY) as response:
        assert response.status == 200
        return (await response.json())["choices"][0]["message"]["content"]


async def stream() -> dict:
    async with build_session() as session:

        async def run() -> list[str]:
            pieces = []
            body = BODY | {"stream": True}
            async with session.post(common.setting("url") + "/chat/completions", json=body) as response:
                assert response.status == 200
                async for line in response.content:
                    if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                        continue
                    choices = json.loads(line[6:])["choices"]
                    if choices and (text := choices[0]["delta"].get("content")):
                        pieces.append(text)
            return pieces

        return await common.streamed(run)


async def http() -> dict:
    async def fresh() -> str:
        async with build_session() as session:
            return await ask(session)

    async with build_session() as session:
        return await common.load(fresh, lambda: ask(session))


def imports() -> dict:
    return common.import_cost("import aiohttp")


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
    packages=("aiohttp",),
)
