"""What only servers over HTTP have: headers, sessions that are forgotten, networks that fail."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from tests.integration.mcp.serving import calling, free_port, http_server, results

from gossamer import ToolCall
from gossamer.errors import MCPConnectionError, MCPError
from gossamer.tools.mcp import MCPServer


class Token(httpx2.Auth):
    def auth_flow(self, request):
        request.headers["authorization"] = "Bearer token"
        yield request


async def test_headers_and_credentials_reach_the_server():
    async with http_server() as http, MCPServer(url=http.url, headers={"x-tenant": "graz"}) as server:
        assert await server.call("header", {"name": "x-tenant"}) == "graz"
        assert await server.call("header", {"name": "authorization"}) == "none"
    async with http_server() as http, MCPServer(url=http.url, auth=Token()) as server:
        assert await server.call("header", {"name": "authorization"}) == "Bearer token"


class Refused(httpx2.Auth):
    refuses = True

    async def async_auth_flow(self, request):
        if self.refuses:
            raise RuntimeError("the token has run out")
        yield request


async def test_credentials_that_cannot_be_had():
    async with http_server() as http:
        auth = Refused()
        server = MCPServer(url=http.url, auth=auth)
        with pytest.raises(MCPConnectionError, match="the token has run out"):
            await server.call("add", {"a": 1, "b": 1})
        auth.refuses = False
        async with server:
            assert await server.call("add", {"a": 1, "b": 1}) == "2"
            auth.refuses = True
            with pytest.raises(MCPConnectionError, match="the token has run out"):
                await server.call("add", {"a": 1, "b": 1})
            auth.refuses = False
            assert await server.call("add", {"a": 1, "b": 1}) == "2"


class Storage:
    """Keeps what a sign-in gave."""

    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


async def test_the_official_packages_oauth_signs_in():
    asked = []

    def respond(head: bytes, message: dict) -> bytes:
        words = head.decode().lower()
        method, path, _ = head.decode().split("\r\n")[0].split(" ")
        asked.append(f"{method} {path}")
        if path.startswith("/.well-known/oauth-protected-resource"):
            return http(json.dumps({"resource": url, "authorization_servers": [origin]}).encode())
        if path.startswith("/.well-known/"):
            known = {
                "issuer": origin,
                "authorization_endpoint": f"{origin}/authorize",
                "token_endpoint": f"{origin}/token",
                "response_types_supported": ["code"],
            }
            return http(json.dumps(known).encode())
        if path == "/token":
            return http(b'{"access_token": "opened", "token_type": "Bearer", "expires_in": 3600}')
        if "authorization: bearer opened" not in words:
            return http(b"who are you?", "401 Unauthorized", "text/plain", "www-authenticate: Bearer\r\n")
        return plain_answer(message, {"content": [{"type": "text", "text": "come in"}]})

    listening, url = await answering(respond)
    origin = url.removesuffix("/mcp")
    storage = Storage()
    auth = ClientCredentialsOAuthProvider(
        url, storage, client_id="agent", client_secret="secret", issuer=origin
    )
    async with listening, MCPServer(url=url, auth=auth) as server:
        assert await server.call("echo") == "come in"
    assert storage.tokens.access_token == "opened"
    assert asked.count("POST /token") == 1


async def test_the_proxy_of_the_environment_is_asked(monkeypatch):
    asked = []

    def respond(head: bytes, message: dict) -> bytes:
        asked.append(head.split(b"\r\n")[0])
        return plain_answer(message, {"content": [{"type": "text", "text": "through"}]})

    listening, url = await answering(respond)
    monkeypatch.setenv("HTTP_PROXY", url.removesuffix("/mcp"))
    async with listening, MCPServer(url="http://tools.example.com/mcp") as server:
        assert await server.call("echo") == "through"
    assert asked[0] == b"POST http://tools.example.com/mcp HTTP/1.1"


async def test_a_redirect_is_followed_within_the_origin():
    def respond(head: bytes, message: dict) -> bytes:
        if head.startswith(b"POST /mcp "):
            return http(b"", "307 Temporary Redirect", more="location: /other\r\n")
        return plain_answer(message, {"content": [{"type": "text", "text": "moved"}]})

    listening, url = await answering(respond)
    async with listening, MCPServer(url=url) as server:
        assert await server.call("echo") == "moved"


async def test_a_server_that_goes_and_comes_back():
    async with http_server() as http, MCPServer(url=http.url) as server:
        assert await server.call("add", {"a": 1, "b": 1}) == "2"
        calls = [asyncio.ensure_future(server.call("slow", {"seconds": 60})) for _ in range(5)]
        while await server.call("count", {"name": "running"}) != "5":
            pass
        await http.kill()
        came = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(one) for one in came} == {MCPConnectionError}
        with pytest.raises(
            MCPConnectionError, match=rf"127\.0\.0\.1:{http.port}/mcp\): it cannot be reached"
        ):
            await server.call("add", {"a": 1, "b": 1})
        await http.start()
        both = await asyncio.gather(*[server.call("add", {"a": 1, "b": n}) for n in range(30)])
        assert both == [str(1 + n) for n in range(30)]


async def test_a_server_that_is_not_there():
    server = MCPServer(url=f"http://127.0.0.1:{free_port()}/mcp", name="none")
    with pytest.raises(MCPConnectionError, match=r"'none'.*127\.0\.0\.1"):
        await server.call("add")
    with pytest.raises(MCPConnectionError):
        await calling(then="x", tools=[server]).run("x")


async def answering(respond):
    """Serve HTTP by hand: `respond` makes the head and body of an answer to a request's JSON."""

    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.lower().split(b"\r\n")
                        if b"content-length" in line
                    ),
                    0,
                )
                body = await reader.readexactly(length)
                writer.write(respond(head, json.loads(body) if body.startswith(b"{") else {}))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    return listening, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/mcp"


def http(body: bytes, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode()
        + body
    )


def plain_answer(message: dict, tool_result) -> bytes:
    match message.get("method"):
        case "initialize":
            result = {
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "x", "version": "1"},
            }
        case "tools/list":
            result = {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
        case "tools/call":
            result = tool_result
        case _:
            return http(b"", "202 Accepted")
    if isinstance(result, bytes):
        return result
    return http(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            http(b"down for repairs", "503 Service Unavailable", "text/html"),
            "HTTP 503 Service Unavailable: down",
        ),
        (http(b"{}", "401 Unauthorized"), "HTTP 401 Unauthorized"),
        (http(b"x" * 200_000), "a message of more than 100000 bytes"),
        (http(b"data: " + b"x" * 200_000, kind="text/event-stream"), "SSE stream failed"),
        (http(b"not json"), "Failed to parse JSON"),
        (http(b"hello", kind="text/plain"), "Unexpected content type: text/plain"),
        (http(b"\x1f\x8b", more="content-encoding: gzip\r\n"), "compressed its answer"),
        (http(b"", "202 Accepted"), "202 Accepted"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\ncontent-type: application/json\r\n\r\nabc", "127.0.0.1"),
        (b"garbage\r\n\r\n", "127.0.0.1"),
    ],
    ids=["503", "401", "large", "large-event", "no-json", "text", "gzip", "202", "short", "garbage"],
)
async def test_answers_that_are_none(answer, words):
    broken = True

    def respond(head: bytes, message: dict) -> bytes:
        return plain_answer(message, answer if broken else {"content": [{"type": "text", "text": "fine"}]})

    listening, url = await answering(respond)
    async with listening, MCPServer(url=url, max_message_bytes=100_000, timeout=1) as server:
        with pytest.raises(MCPError, match=words):
            await server.call("echo")
        broken = False
        assert await server.call("echo") == "fine"


async def test_a_model_is_told_what_the_server_answered():
    def respond(head: bytes, message: dict) -> bytes:
        return plain_answer(message, http(b"no", "429 Too Many Requests", "text/plain"))

    listening, url = await answering(respond)
    async with listening, (agent := calling(ToolCall.of("echo"), tools=[MCPServer(url=url)])):
        (told,) = results(await agent.run("x"))
    assert told.outcome == "error"
    assert "HTTP 429 Too Many Requests: no" in told.content
