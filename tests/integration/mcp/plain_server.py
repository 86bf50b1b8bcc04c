"""A small MCP server that behaves: run over standard streams, or over HTTP with `--http PORT`."""

from __future__ import annotations

import base64
import os
import sys
from typing import Annotated

import anyio
import mcp_types as types
from mcp.server.mcpserver import Context, Image, MCPServer
from pydantic import BaseModel, Field

server = MCPServer("plain", instructions="Use add for sums.")
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
COUNTS = {"running": 0, "most": 0, "started": 0, "cancelled": 0}


class Name(BaseModel):
    name: str


class Place(BaseModel):
    city: str
    floor: Annotated[int, Field(ge=0)]


@server.tool(annotations=types.ToolAnnotations(readOnlyHint=True))
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def environment(name: str) -> str:
    """Tell an environment variable."""
    return os.environ.get(name, "not set")


@server.tool()
def pid() -> str:
    """Tell the process id."""
    return str(os.getpid())


@server.tool()
def fails() -> str:
    """Fail."""
    raise ValueError("no such flight")


@server.tool()
def picture() -> Image:
    """Show a picture."""
    return Image(data=PNG, format="png")


@server.tool(structured_output=False)
def mixed() -> list[object]:
    """Say everything that can be said."""
    return [
        types.TextContent(type="text", text="first"),
        types.AudioContent(type="audio", data=base64.b64encode(b"RIFFxxxx").decode(), mimeType="audio/wav"),
        types.EmbeddedResource(
            type="resource",
            resource=types.TextResourceContents(uri="note://1", mimeType="text/plain", text="a note"),
        ),
        types.EmbeddedResource(
            type="resource",
            resource=types.BlobResourceContents(
                uri="file:///x/report.pdf",
                mimeType="application/pdf",
                blob=base64.b64encode(b"%PDF-1").decode(),
            ),
        ),
        types.ResourceLink(type="resource_link", uri="note://2", name="two", description="another note"),
    ]


@server.tool()
def huge(size: int) -> str:
    """Say a lot."""
    return "x" * size


@server.tool()
async def slow(seconds: float) -> str:
    """Wait."""
    COUNTS["running"] += 1
    COUNTS["started"] += 1
    COUNTS["most"] = max(COUNTS["most"], COUNTS["running"])
    try:
        await anyio.sleep(seconds)
    except BaseException:
        COUNTS["cancelled"] += 1
        raise
    finally:
        COUNTS["running"] -= 1
    return "done"


@server.tool()
def count(name: str) -> int:
    """Tell a count."""
    return COUNTS[name]


@server.tool()
async def steps(context: Context, many: int) -> str:
    """Report progress."""
    for step in range(many):
        await context.report_progress(step + 1, many, f"step {step + 1}")
        await anyio.sleep(0)
    return "walked"


@server.tool()
async def greet(context: Context) -> str:
    """Ask for a name."""
    COUNTS["started"] += 1
    answer = await context.elicit("Who are you?", Name)
    return f"Hello {answer.data.name}" if answer.action == "accept" else f"nobody: {answer.action}"


@server.tool()
async def move(context: Context) -> str:
    """Ask for two things, one after the other."""
    first = await context.elicit("Who are you?", Name)
    second = await context.elicit("Where to?", Place)
    if first.action != "accept" or second.action != "accept":
        return "stays"
    return f"{first.data.name} to {second.data.city}, floor {second.data.floor}"


@server.tool(name="shop.items/list now")
def odd_name() -> str:
    """Have a name that providers do not take."""
    return "listed"


@server.tool()
async def learn(context: Context) -> str:
    """Learn one more tool."""

    def learned() -> str:
        """Be new."""
        return "new"

    server.add_tool(learned)
    await context.session.send_tool_list_changed()
    return "learned"


@server.tool()
async def forget(context: Context) -> str:
    """Forget a tool."""
    server.remove_tool("add")
    await context.session.send_tool_list_changed()
    return "forgotten"


@server.tool()
async def die() -> str:
    """End the process in the middle of a call."""
    print("about to die", file=sys.stderr, flush=True)
    os._exit(7)


@server.tool()
def header(context: Context, name: str) -> str:
    """Tell a header of the request."""
    return (context.headers or {}).get(name, "none")


@server.resource("note://1", mime_type="text/plain", description="The first note")
def note() -> str:
    return "buy milk"


@server.resource("picture://1", mime_type="image/png")
def picture_resource() -> bytes:
    return PNG


@server.prompt()
def review(code: str) -> str:
    """Review some code."""
    return f"Review this: {code}"


if __name__ == "__main__":
    print("plain server starts", file=sys.stderr, flush=True)
    if "--http" in sys.argv:
        server.run("streamable-http", port=int(sys.argv[sys.argv.index("--http") + 1]))
    else:
        server.run("stdio")
