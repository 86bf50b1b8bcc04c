"""What a command shows: the answer as it comes, tool calls and notes around it."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from gossamer.events import (
    Event,
    MessageFinished,
    OutputRestarted,
    TextDelta,
    ThinkingDelta,
    ToolCallFinished,
    ToolProgress,
)

if TYPE_CHECKING:
    from rich.console import Console

    from gossamer.messages import ToolCall, ToolResult
    from gossamer.usage import Usage

__all__ = ["Screen", "counted", "describe_usage", "printable"]

_SHOWN_CHARS = 300

# Who wrote a text must not move the cursor, recolour or retitle the terminal, turn the order of what is read, or fake a
# question of ours; neither now nor when a file of it is shown.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Screen:
    """Standard output: styled on a terminal, plain in a file or a pipe; control characters are shown, never sent."""

    def __init__(self) -> None:
        self._out = sys.stdout
        self._is_terminal = self._out.isatty()
        self._console: Console | None = None
        self._in_line = ""  # the kind of text that the line under way holds; empty at the start of a line

    def show(self, event: Event) -> None:
        """Show an event of a stream."""
        match event:
            case TextDelta(text):
                self.write(text)
            case ThinkingDelta(text):
                if self._is_terminal:  # in plain text it could not be told from the answer
                    self.write(text, "dim")
            case OutputRestarted(reason):
                self.note(f"the answer is written anew: {reason}")
            case MessageFinished(message):
                for call in message.tool_calls:
                    self.show_call(call)
            case ToolProgress(call, value):
                self.line(f"  … {call.name}: {_shortened(str(value))}", "dim")
            case ToolCallFinished(call, result):
                self.show_result(call, result)
            case _:
                pass

    def show_call(self, call: ToolCall) -> None:
        """Show that a tool is called."""
        self.line(f"→ {call.name} {_shortened(call.arguments)}", "cyan")

    def show_result(self, call: ToolCall, result: ToolResult) -> None:
        """Show what a tool gave."""
        outcome = "" if result.outcome == "ok" else f" ({result.outcome})"
        style = "green" if result.outcome == "ok" else "red"
        self.line(f"← {call.name}{outcome}: {_shortened(result.text)}", style)

    def write(self, text: str, style: str = "") -> None:
        """Write a piece of the answer, at once."""
        if not text:
            return
        if self._in_line and self._in_line != (style or "plain"):
            self.end_line()
        if style and self._is_terminal:
            self._styled(text, style, end="")
        else:
            self._out.write(_visible(text))
        self._in_line = "" if text.endswith("\n") else style or "plain"
        self._out.flush()

    def line(self, text: str, style: str = "") -> None:
        """Write a line of its own."""
        self.end_line()
        if style and self._is_terminal:
            self._styled(text, style, end="\n")
        else:
            self._out.write(_visible(text) + "\n")
        self._out.flush()

    def note(self, text: str) -> None:
        """Write a line about the run rather than of it."""
        self.line(f"[{text}]", "dim")

    def end_line(self) -> None:
        """Go to the start of a line."""
        if self._in_line:
            self._out.write("\n")
            self._in_line = ""

    def _styled(self, text: str, style: str, end: str) -> None:
        if self._console is None:
            from rich.console import Console

            self._console = Console(file=self._out)
        self._console.print(
            _visible(text),
            style=style,
            end=end,
            markup=False,
            highlight=False,
            emoji=False,
            soft_wrap=True,
        )


def printable(text: str) -> str:
    """Give a text as one line that a terminal can be trusted with."""
    return _visible(" ".join(text.split()))


def _visible(text: str) -> str:
    """Show each control character as the escape that Python writes for it; lines and tabs are left."""
    return _UNPRINTABLE.sub(lambda found: _escape(found[0]), text.replace("\r\n", "\n"))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def describe_usage(usage: Usage) -> str:
    """Say what a run used, in one line."""
    words = [counted(usage.model_calls, "model call")]
    if usage.tool_calls:
        words.append(counted(usage.tool_calls, "tool call"))
    if usage.total_tokens:
        cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
        words.append(f"{usage.input_tokens:,} tokens in{cached}, {usage.output_tokens:,} out")
    if usage.cost:
        least = "at least " if usage.unpriced_calls else ""
        words.append(f"{least}${usage.cost:.4f}")
    return ", ".join(words)


def counted(number: int, what: str) -> str:
    """Say how many there are of something: `1 session`, `1,000 sessions`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _shortened(text: Any) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= _SHOWN_CHARS else f"{line[:_SHOWN_CHARS]}… ({len(line):,} characters)"
