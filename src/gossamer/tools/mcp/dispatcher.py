"""The official package's dispatcher, with what a connection must see in the order of the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio.abc
from anyio import TASK_STATUS_IGNORED
from mcp.shared.dispatcher import CallOptions, OnNotify, OnNotifyIntercept, OnRequest
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types import methods

from gossamer.schema import is_array, is_object
from gossamer.telemetry.logging import logger

__all__ = ["Dispatcher"]


class Dispatcher(JSONRPCDispatcher):
    """Tells of changed tools before the answer that follows is given out, and leaves out tools that are none.

    Args:
        streams: the transport's.
        name: whose it is, for the log.
        changed: called when the server says that its tools have changed.
        ended: called when it has ended, or the connection is closed.

    Attributes:
        version: the version of the protocol, once it is agreed on.
    """

    def __init__(
        self, streams: tuple[Any, Any], name: str, changed: Callable[[], None], ended: Callable[[], None]
    ) -> None:
        super().__init__(*streams)
        self.version = ""
        self._name = name
        self._changed = changed
        self._ended = ended

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None, **more: Any
    ) -> dict[str, Any]:
        """Send a request; see the package."""
        raw = await super().send_raw_request(method, params, opts, **more)
        if method == "tools/list":
            self._leave_out_invalid(raw)
        return raw

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: anyio.abc.TaskStatus[None] = TASK_STATUS_IGNORED,
    ) -> None:
        """Read until the server ends; see the package."""

        def intercept(method: str, params: Mapping[str, Any] | None) -> bool:
            if method == "notifications/tools/list_changed":
                self._changed()
            return on_notify_intercept is not None and on_notify_intercept(method, params)

        try:
            await super().run(on_request, on_notify, intercept, task_status=task_status)
        finally:
            self._ended()

    def _leave_out_invalid(self, raw: dict[str, Any]) -> None:
        """Leave out what is no tool at all; one that is not valid must not take the others with it."""
        if self._is_valid(raw) or not is_array(raw.get("tools")):
            return
        rest = {key: value for key, value in raw.items() if key != "tools"}
        for tool in list(raw["tools"]):
            if not self._is_valid({**rest, "tools": [tool]}):
                name = tool.get("name") if is_object(tool) else tool
                logger.warning("MCP server %s: tool %.200r is left out, it is not valid", self._name, name)
                raw["tools"].remove(tool)

    def _is_valid(self, raw: dict[str, Any]) -> bool:
        try:
            methods.parse_server_result("tools/list", self.version or "2025-11-25", raw)
        except (ValueError, KeyError):
            return False
        return True
