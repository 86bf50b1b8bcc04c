"""What is asked of a session: a tool's result, with whatever the server wants to know first; lists, page by page."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

import mcp_types as types
from mcp.client.subscriptions import SubscriptionLost, listen
from mcp.shared.exceptions import MCPError as WireError

from gossamer.errors import MCPError, MCPToolError
from gossamer.telemetry.logging import logger
from gossamer.tools.mcp.calls import Ongoing, ask
from gossamer.tools.mcp.content import Content, content_of, words_in
from gossamer.tools.mcp.result import CallResult
from gossamer.tools.mcp.session import Session
from gossamer.tools.mcp.settings import Settings

__all__ = ["call_tool", "followed", "list_all"]

Page = TypeVar("Page", bound=types.PaginatedResult)
Item = TypeVar("Item")

# Most pages of a list, and most rounds of questions before a result.
_MAX_PAGES = 100
_MAX_ROUNDS = 10


async def call_tool(
    session: Session,
    name: str,
    arguments: dict[str, Any],
    ongoing: Ongoing,
    settings: Settings,
    relist: Callable[[Session], Awaitable[None]],
) -> Content:
    """Call a tool and give its result.

    Raises:
        MCPToolError: the tool says that it failed.
        MCPError: the server asks without end, or sent what cannot be read.
        mcp.shared.exceptions.MCPError: the server refused the call, or the connection broke.
    """
    result: CallResult | types.CallToolResult
    ongoing.is_sent = True
    if session.without_handshake:
        result = await _call_with_answers(session, name, arguments, ongoing, settings, relist)
    else:
        result = await session.call(name, arguments, ongoing.note)
    content = content_of(result, settings.max_result_chars)
    if result.is_error:
        said = content if isinstance(content, str) else words_in(content)
        raise MCPToolError(said or "the tool failed and did not say why", server=settings.name)
    return content


async def _call_with_answers(
    session: Session,
    name: str,
    arguments: dict[str, Any],
    ongoing: Ongoing,
    settings: Settings,
    relist: Callable[[Session], Awaitable[None]],
) -> types.CallToolResult:
    """Call a tool of a server without a handshake: it asks by its answer, and is called again with what it asked for."""
    answers: types.InputResponses | None = None
    state: str | None = None
    again = True
    for _ in range(_MAX_ROUNDS):
        try:
            result = await session.call_tool(
                name,
                arguments,
                progress_callback=ongoing.note,
                input_responses=answers,
                request_state=state,
                allow_input_required=True,
            )
        except WireError as error:
            if error.code != types.HEADER_MISMATCH or not again:
                raise
            again = False
            await relist(session)  # its schema has changed, and the headers of the call with it
            continue
        if isinstance(result, types.CallToolResult):
            return result
        state = result.request_state
        answers = await _answers(result, ongoing, settings)
    raise MCPError(f"{name} asked more than {_MAX_ROUNDS} times in a row", server=settings.name)


async def _answers(
    result: types.InputRequiredResult, ongoing: Ongoing, settings: Settings
) -> types.InputResponses | None:
    answers: types.InputResponses = {}
    for key, request in (result.input_requests or {}).items():
        if not isinstance(request, types.ElicitRequest) or not settings.elicitation:
            raise MCPError(
                f"the server asks for {request.method}, which was not offered", server=settings.name
            )
        answers[key] = await ask((ongoing,), request.params, settings.name)
    if not answers:
        await asyncio.sleep(0.05)  # it asks for time
    return answers or None


async def list_all(
    ask: Callable[..., Awaitable[Page]], items_of: Callable[[Page], Iterable[Item]]
) -> list[Item]:
    """Ask for all pages of a list, of a hundred pages the first.

    Args:
        ask: asks a session for a page.
        items_of: what a page holds.
    """
    items: list[Item] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await ask(params=types.PaginatedRequestParams(cursor=cursor) if cursor else None)
        items += items_of(page)
        cursor = page.next_cursor
        if not cursor:
            break
    return items


@contextlib.asynccontextmanager
async def followed(session: Session, changed: Callable[[], None], name: str) -> AsyncGenerator[None, None]:
    """Listen to a server that tells of changed tools only when asked to."""

    async def follow() -> None:
        try:
            async with listen(session, tools_list_changed=True) as events:
                async for _ in events:
                    changed()
        except (SubscriptionLost, WireError) as error:
            logger.warning("MCP server %s does not tell of changed tools any more: %s", name, error)

    task = asyncio.get_running_loop().create_task(follow(), name=f"gossamer-mcp-changes-{name}")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,), timeout=1.0)
