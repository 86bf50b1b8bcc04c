"""An MCP server of the standard library alone, which misbehaves as its first argument says."""

from __future__ import annotations

import json
import os
import sys
import time

MODE = sys.argv[1]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOL = {"name": "echo", "description": "Say n.", "inputSchema": SCHEMA}


listed: list[int] = []


def send(message: object) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def note(words: str) -> None:
    """Write down what came in, where a test reads it."""
    if len(sys.argv) > 2:
        with open(sys.argv[2], "a") as file:
            file.write(words + "\n")


def initialize(message: dict) -> None:
    if MODE == "silent":
        time.sleep(3600)
    if MODE == "modern":
        error = {"code": -32022, "message": "no handshake", "data": {"supported": ["2026-07-28"]}}
        send({"id": message["id"], "error": error})
        return
    if MODE == "dies-at-start":
        print("cannot read my settings", file=sys.stderr, flush=True)
        sys.exit(3)
    if MODE == "garbage":
        print("Welcome to the server!\n{not json}\n[1, 2]\n\xff\xfe", flush=True)
    if MODE == "only-garbage":
        while True:
            print("tick", flush=True)
            time.sleep(0.05)
    if MODE == "talks":
        print("x" * 5000 + "\nsecond line", file=sys.stderr, flush=True)
    if MODE == "many-lines":
        for number in range(12_000):
            print(f"line {number}", file=sys.stderr)
        sys.stderr.flush()
    result = {
        "protocolVersion": message["params"]["protocolVersion"],
        "capabilities": {"tools": {"listChanged": True}},
        "serverInfo": {"name": MODE, "version": "1"},
    }
    send({"id": message["id"], "result": result})


def tools() -> list:
    if MODE == "invalid-schemas":
        return [
            TOOL,
            {"name": "no-schema", "inputSchema": "text"},
            {"name": "bad-type", "inputSchema": {"type": "object", "properties": {"n": {"type": "integr"}}}},
            {"name": "no-object", "inputSchema": {"type": "string"}},
            {"name": "large", "inputSchema": {**SCHEMA, "description": "x" * 300_000}},
            {"inputSchema": SCHEMA},
            "not even an object",
        ]
    if MODE == "late-tool":
        listed.append(1)
        return [TOOL] if len(listed) == 1 else [TOOL, {**TOOL, "name": "second"}]
    if MODE == "twins":
        return [TOOL, {**TOOL, "description": "another"}]
    if MODE == "patterns":
        properties = {"n": {"type": "string", "pattern": "^(a+)+$"}}
        return [{**TOOL, "inputSchema": {"type": "object", "properties": properties}}]
    return [TOOL]


def ask(number: int) -> None:
    """Ask a person; the answer comes as a message without a method."""
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    params = {"message": f"Who is {number}?", "requestedSchema": schema}
    send({"id": f"q{number}", "method": "elicitation/create", "params": params})


def call(message: dict) -> None:
    name = message["params"]["name"]
    if MODE == "deaf":
        note("called")
        return
    if MODE == "lists-once":
        send({"method": "notifications/tools/list_changed"})
    if MODE == "asks":
        number = message["params"]["arguments"]["n"]
        for one in range(number):
            ask(one)
        return
    if MODE == "dies":
        print("out of memory", file=sys.stderr, flush=True)
        os._exit(9)
    if MODE == "floods":
        while True:
            sys.stdout.write("x" * 65536)
    if MODE == "flood-of-notifications":
        line = json.dumps(
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}
        )
        for _ in range(20_000):
            sys.stdout.write(line + "\n")
    if MODE == "odd-messages":
        here = message["id"]
        odd = [
            {"id": None, "result": {}},
            {"id": True, "result": {}},
            {"id": 1.5, "result": {}},
            {"id": [1], "result": {}},
            {"id": here, "result": 3},
            {"id": here, "result": None},
            {"id": here, "error": "text"},
            {"method": 7},
            {"method": "notifications/unknown"},
            {"method": "notifications/progress", "params": {"progressToken": {}, "progress": "x"}},
            {"method": "notifications/progress", "params": {"progressToken": here, "progress": 1}},
            {"method": "notifications/cancelled", "params": {"requestId": here}},
            {"method": "notifications/tools/list_changed", "params": {"_meta": 1}},
            {"id": "r1", "method": "ping"},
            {"id": "r2", "method": "roots/list"},
            {"id": "r3", "method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}},
            {"id": "r4", "method": "elicitation/create", "params": {"message": 1}},
            {"id": "r5", "method": "no/such"},
            {"id": "r6", "method": "ping", "params": [1]},
        ]
        for one in odd:
            send(one)
        sys.stdout.write("\x00\n\n   \n[]\n{}\nnull\n" + "[" * 5000 + "\n")
        sys.stdout.flush()
    if MODE == "not-the-protocol":
        send({"id": message["id"], "result": {"content": "a text"}})
        return
    if MODE == "bad-media":
        content = [{"type": "image", "data": "%%%", "mimeType": "image/png"}]
        send({"id": message["id"], "result": {"content": content}})
        return
    if MODE == "another-id":
        send({"id": 999_999, "result": {"content": []}})
        send({"id": message["id"], "error": {"code": -32050, "message": "quota used up"}})
        return
    if MODE == "grandchild":
        if os.fork() == 0:
            time.sleep(3600)
        send_text(message, "forked")
        return
    if MODE == "stubborn":
        send_text(message, str(os.getpid()))
        return
    note(f"called {name}")
    send_text(message, str(message["params"]["arguments"]["n"]))


def send_text(message: dict, text: str) -> None:
    send({"id": message["id"], "result": {"content": [{"type": "text", "text": text}]}})


def modern(message: dict) -> None:
    """The protocol without a handshake: asks by its answer."""
    params = message["params"]
    done = {"resultType": "complete"}
    match message["method"]:
        case "server/discover":
            capabilities = {"tools": {"listChanged": True}}
            cached = {"ttlMs": 0, "cacheScope": "private"}
            found = {**done, **cached, "supportedVersions": ["2026-07-28"], "capabilities": capabilities}
            send({"id": message["id"], "result": found})
        case "tools/list":
            listed = {**done, "tools": [TOOL], "ttlMs": 0, "cacheScope": "private"}
            send({"id": message["id"], "result": listed})
        case "subscriptions/listen":
            about = {"io.modelcontextprotocol/subscriptionId": message["id"]}
            honored = {"notifications": {"toolsListChanged": True}, "_meta": about}
            send({"method": "notifications/subscriptions/acknowledged", "params": honored})
        case "tools/call":
            answers = params.get("inputResponses")
            if not answers:
                schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
                asked = {"message": "Who?", "requestedSchema": schema, "mode": "form"}
                ask = {"who": {"method": "elicitation/create", "params": asked}}
                result = {"resultType": "input_required", "inputRequests": ask, "requestState": "kept"}
            else:
                name = answers["who"].get("content", {}).get("name", answers["who"]["action"])
                content = [{"type": "text", "text": f"{params['requestState']} {name}"}]
                result = {**done, "content": content}
            send({"id": message["id"], "result": result})


if MODE == "stubborn":
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)

for line in sys.stdin:
    incoming = json.loads(line)
    method = incoming.get("method")
    if MODE == "modern" and method != "initialize":
        modern(incoming)
    elif method == "initialize":
        initialize(incoming)
    elif method == "tools/list":
        if MODE == "lists-once":
            listed.append(1)
            if len(listed) > 1:
                continue
        answer = {"jsonrpc": "2.0", "id": incoming["id"], "result": {"tools": tools()}}
        changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        both = [answer, changed] if MODE == "late-tool" and len(listed) == 1 else [answer]
        sys.stdout.write("".join(json.dumps(one) + "\n" for one in both))  # at once, as a pipe may give them
        sys.stdout.flush()
    elif method == "tools/call":
        call(incoming)
    elif method == "notifications/cancelled":
        note("cancelled")
    elif method is None and "result" in incoming and MODE == "asks":
        note(f"{incoming['id']} {incoming['result']['action']}")

if MODE == "stubborn":
    time.sleep(3600)
