"""Tools of MCP servers: started here or reached by URL, on the official package, which loads at the first use."""

from __future__ import annotations

from gossamer.tools.mcp.listing import MCPPrompt, MCPPromptArgument, MCPResource
from gossamer.tools.mcp.server import MCPServer

__all__ = ["MCPPrompt", "MCPPromptArgument", "MCPResource", "MCPServer"]
