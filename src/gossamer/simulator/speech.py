"""A reply cut into the tokens that are sent one by one."""

from __future__ import annotations

from typing import Literal, NamedTuple

from gossamer.simulator.hosted import HostedUse
from gossamer.simulator.replies import Finish, Prompt, Reply, ToolUse
from gossamer.simulator.tokens import split

__all__ = ["Section", "Speech", "speech_of"]


class Section(NamedTuple):
    """A stretch of tokens of one kind.

    Attributes:
        kind: `thinking`, `text` or `call`; or a call of the provider's own tool, `hosted`, and what it `found`, which
            are no tokens of the model's.
        pieces: the tokens; shared between streams that say the same.
        length: how many are said, repeating `pieces` where it is more than there are.
        call: the tool call whose arguments the pieces are; naming the tool costs one token more.
        hosted: the call of the provider's own tool.
    """

    kind: Literal["thinking", "text", "call", "hosted", "found"]
    pieces: tuple[str, ...]
    length: int
    call: ToolUse | None = None
    hosted: HostedUse | None = None

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
        hosted: calls of the provider's own tools, made between the thinking and the text.
    """

    sections: tuple[Section, ...]
    tokens: int
    thinking_tokens: int
    finish: Finish
    stopped: str = ""
    hosted: tuple[HostedUse, ...] = ()

    def with_hosted(self) -> list[Section]:
        """The sections, with those of the provider's own tools where they belong: each call, and what it found.

        Where the answer is paused, the last call has found nothing yet, and nothing comes behind it.
        """
        sections = list(self.sections)
        if not self.hosted:
            return sections
        place = 1 if sections and sections[0].kind == "thinking" else 0
        made = [Section(kind, (), 0, None, use) for use in self.hosted for kind in ("hosted", "found")]
        if self.finish == "pause":
            return [*sections[:place], *made[:-2], *sections[place:], made[-2]]
        return [*sections[:place], *made, *sections[place:]]


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
    if finish == "pause" and not prompt.pauses:
        finish = "stop"
    return Speech(tuple(sections), tokens, thinking_tokens, finish, "" if cut else stopped, reply.hosted)


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
