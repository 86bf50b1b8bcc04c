"""What was asked and what is answered, apart from any provider's wire format; and the default behaviour."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from gossamer.instances import minimal_instance
from gossamer.simulator.faults import Fault
from gossamer.simulator.hosted import HostedUse, hosted_use

__all__ = ["Finish", "Prompt", "Reply", "ToolUse", "default_reply"]

Finish = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "pause"]
"""Why an answer ends; each wire format has words of its own for it. With `refusal` the text says the refusal. With
`pause` the provider's own tool is still at work, where the format knows that; elsewhere it is `stop`."""

_CALL = re.compile(r"^[ \t]*call[ \t]+([\w.-]+)[ \t]*(\{.*\})?[ \t]*$", re.MULTILINE)


class ToolUse(msgspec.Struct, frozen=True):
    """A tool call that the model makes.

    Attributes:
        name: of the tool.
        arguments: JSON text, or any text where a script wants broken arguments.
    """

    name: str
    arguments: str


class Prompt(msgspec.Struct, frozen=True):
    """One request to the model, as far as it decides the answer.

    Attributes:
        model: the name asked for; it is echoed.
        said: text of the last user message.
        turn: model answers since that message.
        tools: name to parameter schema.
        results: tool results since the last model answer, as (tool name, text).
        results_total: tool results since the last user message.
        tool_choice: `auto`, `none`, `required`, or `function` for the one in `forced`.
        forced: the tool that must be called.
        hosted: the tools of the provider's that may be called, by the names of `hosted.HOSTED`.
        hosted_forced: the one of them that must be called.
        pauses: whether the wire format knows answers that are paused.
        parallel: whether several tools may be called at once.
        schema: the answer's JSON schema, or None.
        json_object: the answer must be some JSON object.
        max_tokens: where to cut the answer, or None.
        stop: where one of these begins, the text ends.
        thinks: whether the model may think; where not, what it thinks is left out.
        stream: whether the answer is to be streamed.
        include_usage: whether a stream ends with the usage.
        tokens: of the whole prompt.
        cached_tokens: of the longest prefix seen before.
        wire: what the wire format needs of the request for its answer; nobody else reads it.
    """

    model: str
    said: str = ""
    turn: int = 0
    tools: dict[str, Any] = {}
    results: tuple[tuple[str, str], ...] = ()
    results_total: int = 0
    tool_choice: str = "auto"
    forced: str = ""
    hosted: tuple[str, ...] = ()
    hosted_forced: str = ""
    pauses: bool = False
    parallel: bool = True
    schema: Any = None
    json_object: bool = False
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    thinks: bool = True
    stream: bool = False
    include_usage: bool = False
    tokens: int = 0
    cached_tokens: int = 0
    wire: Any = None


class Reply(msgspec.Struct, frozen=True):
    """What the model answers, and how it goes wrong.

    Attributes:
        text: said to the user.
        thinking: said before, as reasoning.
        calls: tools called, after the text.
        hosted: tools of the provider's called, before the text.
        chunks: repeat or cut the text to this many tokens; None leaves it as it is.
        finish: why the answer ends; None for the reason that fits.
        silent: the reply only says how to fail or to end; what is said is the default behaviour.
        error: an HTTP status to answer with instead.
        retry_after: seconds, sent with the error.
        message: of the error; empty for the usual one.
        code: the provider's own word for the error; None for the usual one.
        fault: how the answer breaks.
        after: chunks sent before it breaks; None for half of them.
        latency: seconds before the first byte; None for the server's.
        tps: chunks a second; None for the server's.
    """

    text: str = ""
    thinking: str = ""
    calls: tuple[ToolUse, ...] = ()
    hosted: tuple[HostedUse, ...] = ()
    chunks: int | None = None
    finish: Finish | None = None
    silent: bool = False
    error: int | None = None
    retry_after: float | None = None
    message: str = ""
    code: str | None = None
    fault: Fault | None = None
    after: int | None = None
    latency: float | None = None
    tps: float | None = None


def default_reply(prompt: Prompt, chunks: int | None = None) -> Reply:
    """The answer where no script says otherwise; the same prompt always gets the same one.

    - Lines of the form `call NAME {json}` in the last user message call these tools, all at once, or one after
      another where the request forbids parallel calls. Without `{json}` the arguments are the smallest that fit
      the tool's schema. A name that is not among the request's tools is not called.
    - A required or forced tool is called with such arguments also where the message does not ask for it; where any
      tool will do, they are called one after another.
    - A line may name a tool of the provider's too, where the request declares it: `call web_search {"query": "x"}`. It
      is called at once, and what it found is told in the answer.
    - Tool results are quoted: `NAME returned: RESULT`, a line each.
    - A JSON schema is answered with its smallest instance.
    - Anything else is echoed: `You said: MESSAGE`.

    Args:
        prompt: the request.
        chunks: repeat or cut an echo to this many tokens.

    Raises:
        SchemaError: the schema in the request has no instance.
    """
    hosted = _hosted(prompt)
    if prompt.tools and prompt.tool_choice != "none":
        calls = _calls(prompt)
        if calls:
            return Reply(calls=calls, hosted=hosted)
    if prompt.schema is not None:
        return Reply(text=_json(minimal_instance(prompt.schema)), hosted=hosted)
    if prompt.json_object:
        return Reply(text=_json({"echo": prompt.said}))
    if prompt.results:
        return Reply(text="\n".join(f"{name} returned: {text}" for name, text in prompt.results))
    if hosted:
        return Reply(text="\n".join(f"{use.name} found: {use.told()}" for use in hosted), hosted=hosted)
    return Reply(text=f"You said: {prompt.said}", chunks=chunks)


def _hosted(prompt: Prompt) -> tuple[HostedUse, ...]:
    """The calls of the provider's tools that the user asked for, or the request; once, in the first answer."""
    if not prompt.hosted or prompt.turn or prompt.tool_choice == "none":
        return ()
    asked = [
        (name, text)
        for name, text in _CALL.findall(prompt.said)
        if name in prompt.hosted and name not in prompt.tools
    ]
    forced = prompt.hosted_forced
    if forced:
        asked = [(name, text) for name, text in asked if name == forced] or [(forced, "")]
    elif not asked and prompt.tool_choice == "required" and not prompt.tools:
        asked = [(prompt.hosted[0], "")]
    return tuple(hosted_use(name, _object(text)) for name, text in asked)


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def _calls(prompt: Prompt) -> tuple[ToolUse, ...]:
    asked = [(name, text) for name, text in _CALL.findall(prompt.said) if name in prompt.tools]
    if prompt.tool_choice == "function":
        asked = [(name, text) for name, text in asked if name == prompt.forced] or [(prompt.forced, "")]
    wanted = asked[prompt.results_total :]
    if not wanted and prompt.tool_choice != "auto":
        # In turn, so that a request which always wants some tool comes to the one that ends it.
        names = tuple(prompt.tools)
        wanted = asked or [(names[prompt.results_total % len(names)], "")]
    if not prompt.parallel:
        wanted = wanted[:1]
    elif prompt.results_total and prompt.tool_choice == "auto":
        wanted = []
    return tuple(ToolUse(name, text or _json(minimal_instance(prompt.tools[name]))) for name, text in wanted)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
