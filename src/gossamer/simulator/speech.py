"""A reply cut into the tokens that are sent one by one."""

from __future__ import annotations

from typing import Literal, NamedTuple

from gossamer.simulator.replies import Finish, Prompt, Reply, ToolUse
from gossamer.simulator.tokens import split

__all__ = ["Section", "Speech", "speech_of"]


class Section(NamedTuple):
    """A stretch of tokens of one kind.

    Attributes:
        kind: `thinking`, `text` or `call`.
        pieces: the tokens; shared between streams that say the same.
        length: how many are said, repeating `pieces` where it is more than there are.
        call: the tool call whose arguments the pieces are; naming the tool costs one token more.
    """

    kind: Literal["thinking", "text", "call"]
    pieces: tuple[str, ...]
    length: int
    call: ToolUse | None = None

    def joined(self) -> str:
        """All tokens as one text."""
        whole, rest = divmod(self.length, len(self.pieces)) if self.pieces else (0, 0)
        return "".join(self.pieces) * whole + "".join(self.pieces[:rest])


class Speech(NamedTuple):
    """Everything that is said, in order.

    Attributes:
        sections: in the order they are sent.
        tokens: of all sections, naming of tools included.
        thinking_tokens: the part of them that is thinking.
        finish: why it ends.
        stopped: the word of the request's `stop` that ended it; empty where none did.
    """

    sections: tuple[Section, ...]
    tokens: int
    thinking_tokens: int
    finish: Finish
    stopped: str = ""


def speech_of(prompt: Prompt, reply: Reply) -> Speech:
    """Cut a reply into tokens and end it where the request's `stop` or `max_tokens` say. O(length of the reply)."""
    left = prompt.max_tokens if prompt.max_tokens is not None else 1 << 60
    sections: list[Section] = []
    tokens = 0
    thinking_tokens = 0
    cut = False
    if reply.thinking and prompt.thinks:
        pieces = split(reply.thinking)
        thinking_tokens = tokens = min(len(pieces), left)
        cut = tokens < len(pieces)
        if tokens:
            sections.append(Section("thinking", pieces, tokens))
    pieces, length, stopped = _text(reply, prompt.stop)
    if length and not cut:
        said = min(length, left - tokens)
        cut = said < length
        tokens += said
        if said:
            sections.append(Section("text", pieces, said))
    for call in reply.calls:
        if cut or tokens == left:
            cut = True
            break
        pieces = split(call.arguments)
        said = min(len(pieces), left - tokens - 1)
        cut = said < len(pieces)
        tokens += said + 1
        sections.append(Section("call", pieces, said, call))
    finish: Finish = "stop"
    if cut:
        finish = "length"
    elif reply.finish is not None:
        finish = reply.finish
    elif reply.calls and prompt.tool_choice != "function":
        # A call that the request forced by name ends with "stop", as the providers do it.
        finish = "tool_calls"
    return Speech(tuple(sections), tokens, thinking_tokens, finish, "" if cut else stopped)


def _text(reply: Reply, stop: tuple[str, ...]) -> tuple[tuple[str, ...], int, str]:
    if not reply.text:
        return (), 0, ""
    pieces = split(reply.text)
    length = len(pieces) if reply.chunks is None else reply.chunks
    if stop:
        text = Section("text", pieces, length).joined()
        ends = [(at, each) for each in stop if (at := text.find(each)) >= 0]
        if ends:
            end, stopped = min(ends)
            pieces = split(text[:end])
            return pieces, len(pieces), stopped
    return pieces, length, ""
