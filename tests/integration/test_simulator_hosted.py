"""The simulator's tools of the provider's own: what it refuses, as the providers do, and what a script may say."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.integration.test_simulator_strictness import ask

from gossamer.errors import ArgumentError
from gossamer.simulator import Script

USER = {"role": "user", "content": "x"}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
FUNCTION = {"name": "f", "description": "", "parametersJsonSchema": {"type": "object"}}
PAGE = {"type": "web_search_result", "url": "https://a.example", "title": "A"}


def responses(**more):
    return "/v1/responses", {"model": "m", "input": "x", **more}


def messages(*said, **more):
    return "/v1/messages", {"model": "m", "max_tokens": 9, "tools": [SEARCH], "messages": list(said), **more}


def contents(model, *tools, **more):
    said = [{"role": "user", "parts": [{"text": "x"}]}]
    return f"/v1beta/models/{model}:generateContent", {"contents": said, "tools": list(tools), **more}


def assistant(*blocks):
    return {"role": "assistant", "content": list(blocks)}


CALL = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}


def found(call_id="srvtoolu_1", *pages):
    return {"type": "web_search_tool_result", "tool_use_id": call_id, "content": list(pages)}


REFUSED = {
    "a container is missing": (
        responses(tools=[{"type": "code_interpreter"}]),
        "Missing required parameter: 'tools[0].container'",
    ),
    "stores are missing": (responses(tools=[{"type": "file_search"}]), "'tools[0].vector_store_ids'"),
    "no such type": (responses(tools=[{"type": "telepathy"}]), "Invalid value: 'telepathy'"),
    "a choice that is not declared": (
        responses(tools=[{"type": "web_search"}], tool_choice={"type": "file_search"}),
        "Tool choice 'file_search' not found",
    ),
    "a call without its id": (
        responses(input=[{"type": "web_search_call", "status": "completed", "action": {}}]),
        "Missing required parameter: 'input[0].id'",
    ),
    "a call without its container": (
        responses(input=[{"type": "code_interpreter_call", "id": "ci", "status": "completed"}]),
        "Missing required parameter: 'input[0].container_id'",
    ),
    "options that are none": (
        ("/v1/chat/completions", {"model": "m", "messages": [USER], "web_search_options": {"depth": 3}}),
        "web_search_options",
    ),
    "a name that is another": (
        messages(USER, tools=[{"type": "code_execution_20250825", "name": "web_search"}]),
        "Input should be 'code_execution'",
    ),
    "a lost result": (
        messages(USER, assistant(CALL), USER),
        "`web_search` tool use with id `srvtoolu_1` was found without a corresponding",
    ),
    "a result of nothing": (messages(USER, assistant(found("srvtoolu_9")), USER), "srvtoolu_9"),
    "an id of another kind": (
        messages(USER, assistant({**CALL, "id": "toolu_1"}, found("toolu_1")), USER),
        "String should match pattern",
    ),
    "a page that was changed": (
        messages(USER, assistant(CALL, found("srvtoolu_1", {**PAGE, "encrypted_content": "AAAA"})), USER),
        "Invalid `encrypted_content`",
    ),
    "no such container": (messages(USER, container="mine"), "no container 'mine'"),
    "functions beside a search, before Gemini 3": (
        contents("gemini-2.5-flash", {"googleSearch": {}}, {"functionDeclarations": [FUNCTION]}),
        "cannot be combined",
    ),
    "JSON beside a search, before Gemini 3": (
        contents(
            "gemini-2.5-flash",
            {"googleSearch": {}},
            generationConfig={"responseMimeType": "application/json"},
        ),
        "Tool use with a response mime type",
    ),
    "functions beside a search that nobody wants to hear of": (
        contents("gemini-3-flash", {"google_search": {}}, {"functionDeclarations": [FUNCTION]}),
        "include_server_side_tool_invocations",
    ),
}


@pytest.mark.parametrize(("asked", "says"), REFUSED.values(), ids=REFUSED)
async def test_what_the_provider_refuses(asked, says):
    status, answer = await ask(*asked)
    assert status == 400
    assert says in json.dumps(answer, ensure_ascii=False)


@pytest.mark.parametrize(
    "asked",
    [
        responses(tools=[{"type": "web_search"}], tool_choice="required"),
        responses(
            tools=[{"type": "mcp", "server_label": "a"}], tool_choice={"type": "mcp", "server_label": "a"}
        ),
        messages(USER, assistant(CALL, found()), USER),
        messages(USER, assistant(CALL, found("srvtoolu_1")), USER, container="container_1"),
        messages(USER, assistant(CALL)),
        contents("gemini-2.5-flash", {"googleSearch": {}}, {"codeExecution": {}}),
        contents(
            "gemini-3-flash",
            {"googleSearch": {}, "functionDeclarations": [FUNCTION]},
            toolConfig={"includeServerSideToolInvocations": True},
        ),
    ],
)
async def test_what_the_provider_takes(asked):
    status, answer = await ask(*asked)
    assert status == 200, answer


async def test_the_result_of_a_paused_call_comes_first():
    _, answer = await ask(*messages(USER, assistant(CALL)))
    assert answer["content"][0]["tool_use_id"] == "srvtoolu_1"
    assert [block["type"] for block in answer["content"]] == ["web_search_tool_result", "text"]


async def test_outputs_of_code_are_told_to_who_asks_for_them():
    tools = [{"type": "code_interpreter", "container": {"type": "auto"}}]
    asked = {"tools": tools, "input": 'call code_execution {"code": "1"}'}
    _, without = await ask(*responses(**asked))
    _, told = await ask(*responses(**asked, include=["code_interpreter_call.outputs"]))
    assert without["output"][0]["outputs"] is None
    assert told["output"][0]["outputs"] == [{"type": "logs", "logs": "simulated\n"}]


async def test_what_is_not_declared_is_not_called():
    answers = await asyncio.gather(
        ask(*responses(input="call web_search {}")),
        ask(*messages({"role": "user", "content": "call code_execution {}"})),
        ask(*responses(input="call web_search {not json", tools=[{"type": "web_search"}])),
    )
    assert "You said: call web_search" in json.dumps(answers[0][1])
    assert answers[1][1]["content"][0]["type"] == "text"
    assert "You said" in json.dumps(answers[2][1])


@pytest.mark.parametrize(
    ("hosted", "says"),
    [
        ([{"tool": "web_search", "result": "a page"}], "a list of objects with `url` and `title`"),
        ([{"tool": "web_search", "result": [{"url": "u"}]}], "a list of objects with `url` and `title`"),
        ([{"tool": "code_execution", "result": 7}], "the text that it printed"),
        ([{"tool": "telepathy"}], "Invalid enum value 'telepathy'"),
        ([{"tool": "web_search", "query": "x"}], "unknown field `query`"),
    ],
)
def test_a_script_that_is_none(hosted, says):
    with pytest.raises(ArgumentError, match=r"script: .*reply 1") as caught:
        Script([{"hosted": hosted}])
    assert says in str(caught.value)
