"""A workflow as a picture: Mermaid for Markdown, SVG for anything else; names in it are text and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TypeAlias

import msgspec

from gossamer.flow.workflow.branching import (
    ConditionNode,
    LoopNode,
    MapNode,
    ParallelNode,
    RouterNode,
    SequenceNode,
)
from gossamer.flow.workflow.building import Plan
from gossamer.flow.workflow.human_steps import HumanNode
from gossamer.flow.workflow.leaf import Leaf, Node
from gossamer.flow.workflow.outcome import StepSummary
from gossamer.flow.workflow.runnable_steps import RunnableNode

__all__ = ["Picture", "draw"]

_MAX_CHARS = 36
_COLOURS = {
    "done": ("#e3f4e6", "#2e7d32"),
    "failed": ("#fde7e7", "#c62828"),
    "waiting": ("#fff4d6", "#b26a00"),
    "not_run": ("#f1f1f1", "#8a8a8a"),
    "": ("#eef2fb", "#3b5ba5"),
}
_SAFE = frozenset(" _-.,:!?()+")


class Picture(msgspec.Struct, frozen=True):
    """A drawn workflow. A notebook shows it as it is.

    Attributes:
        mermaid: a flowchart, to stand in a `mermaid` block of Markdown.
        svg: the same as an SVG document.
    """

    mermaid: str
    svg: str

    def _repr_svg_(self) -> str:
        return self.svg


def draw(name: str, plan: Plan, steps: Mapping[str, StepSummary] | None) -> Picture:
    """Draw a workflow.

    Args:
        name: the workflow's.
        plan: what to draw.
        steps: what became of the steps in a run, or None.
    """
    return Picture(_Mermaid(steps).document(plan), _Svg(steps).document(name, plan))


def _summary(node: Node, steps: Mapping[str, StepSummary] | None) -> StepSummary | None:
    return None if steps is None else steps.get(node.path)


def _told(summary: StepSummary | None) -> str:
    """What is written beneath a name: how long it took, how often it ran, and how it ended."""
    if summary is None:
        return ""
    if summary.outcome == "not_run":
        return "not run"
    words = [_seconds(summary.seconds)] if summary.runs or summary.failures else []
    if summary.runs > 1:
        words.append(f"{summary.runs} runs")
    if summary.failures:
        words.append(f"{summary.failures} failed")
    if summary.outcome == "waiting":
        words.append("waiting")
    return ", ".join(words)


def _seconds(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _title(node: Node) -> str:
    if isinstance(node, LoopNode):
        times = f"{node.max_iterations} times" if node.until is None else f"up to {node.max_iterations} times"
        return f"{node.label}: {times}"
    if isinstance(node, MapNode):
        return f"{node.label}: each item, {node.max_concurrency} at once"
    return node.label


def _short(text: str) -> str:
    clean = "".join(one if one.isprintable() else " " for one in text)
    return clean if len(clean) <= _MAX_CHARS else clean[: _MAX_CHARS - 1] + "…"


# --- Mermaid ------------------------------------------------------------------------------------------------

# The nodes that lead out of a part, each with what is written on the way.
_Exits: TypeAlias = Sequence[tuple[str, str]]


class _Mermaid:
    def __init__(self, steps: Mapping[str, StepSummary] | None) -> None:
        self.steps = steps
        self.lines = ["flowchart TD"]
        self.depth = 1

    def document(self, plan: Plan) -> str:
        """Give the flowchart."""
        self.line('begin(["input"])')
        exits = self.part(plan.root, [("begin", "")])
        self.line('finish(["output"])')
        self.arrows(exits, "finish")
        for outcome, (fill, line) in _COLOURS.items():
            if outcome and self.steps is not None:
                self.line(f"classDef {outcome} fill:{fill},stroke:{line}")
        return "\n".join(self.lines) + "\n"

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def arrows(self, exits: _Exits, to: str) -> None:
        for from_, words in exits:
            self.line(f'{from_} -->|"{words}"| {to}' if words else f"{from_} --> {to}")

    def box(self, node: Node, shape: tuple[str, str]) -> str:
        """Draw a node and give its id."""
        name = f"n{node.index}"
        summary = _summary(node, self.steps)
        told = _told(summary)
        words = _as_mermaid(_short(node.label)) + (f"<br/>{_as_mermaid(told)}" if told else "")
        outcome = f":::{summary.outcome}" if summary is not None else ""
        self.line(f'{name}{shape[0]}"{words}"{shape[1]}{outcome}')
        return name

    def part(self, node: Node, entries: _Exits) -> _Exits:
        """Draw a part, with arrows from what leads there, and give what leads on."""
        if isinstance(node, SequenceNode):
            for step in node.steps:
                entries = self.part(step, entries)
            return entries
        if isinstance(node, Leaf):
            return self.leaf(node, entries)
        self.line(f'subgraph s{node.index}["{_as_mermaid(_short(_title(node)))}"]')
        self.depth += 1
        exits = self.inside(node, entries)
        self.depth -= 1
        self.line("end")
        return exits

    def leaf(self, node: Leaf, entries: _Exits) -> _Exits:
        shape = ("[", "]")
        if isinstance(node, HumanNode):
            shape = ("[/", "/]")
        elif isinstance(node, RunnableNode):
            shape = ("([", "])")
        name = self.box(node, shape)
        self.arrows(entries, name)
        if node.fallback is None:
            return [(name, "")]
        return [(name, ""), *self.part(node.fallback, [(name, "fallback")])]

    def inside(self, node: Node, entries: _Exits) -> _Exits:
        if isinstance(node, ParallelNode):
            return [one for branch in node.branches.values() for one in self.part(branch, entries)]
        if isinstance(node, ConditionNode):
            test = self.decision(node.test, entries)
            exits = list(self.part(node.then, [(test, "yes")]))
            exits += [(test, "no")] if node.otherwise is None else self.part(node.otherwise, [(test, "no")])
            return exits
        if isinstance(node, RouterNode):
            choice = self.decision(node.choose, entries)
            exits = [
                one
                for name, way in node.routes.items()
                for one in self.part(way, [(choice, _as_mermaid(_short(name)))])
            ]
            return (
                exits
                if node.default is None
                else exits + list(self.part(node.default, [(choice, "default")]))
            )
        if isinstance(node, LoopNode):
            start = f"b{node.index}"
            self.line(f"{start}(( ))")
            self.arrows(entries, start)
            exits = self.part(node.body, [(start, "")])
            if node.until is None:
                self.arrows([(one, "again") for one, _ in exits], start)
                return exits
            until = self.decision(node.until, exits)
            self.arrows([(until, "no")], start)
            return [(until, "yes")]
        assert isinstance(node, MapNode), "there is no other frame"
        return self.part(node.body, entries)

    def decision(self, node: Node, entries: _Exits) -> str:
        if not isinstance(node, Leaf):
            return self.part(node, entries)[0][0]
        name = self.box(node, ("{", "}"))
        self.arrows(entries, name)
        return name


def _as_mermaid(text: str) -> str:
    """Write text so that Mermaid takes no character of it for its own: letters as they are, the rest by number."""
    return "".join(one if one.isalnum() or one in _SAFE else f"#{ord(one)};" for one in text)


# --- SVG ----------------------------------------------------------------------------------------------------

_GAP = 26
_PAD = 14
_TITLE = 24


class _Shape(msgspec.Struct, frozen=True):
    """Something to draw.

    Attributes:
        width: in pixels.
        height: the same.
        paint: gives its elements, put with its upper left corner at a point.
    """

    width: float
    height: float
    paint: Callable[[float, float], list[str]]


class _Svg:
    def __init__(self, steps: Mapping[str, StepSummary] | None) -> None:
        self.steps = steps

    def document(self, name: str, plan: Plan) -> str:
        """Give the document."""
        inner = _column([_pill("input"), self.part(plan.root), _pill("output")])
        width, height = inner.width + 2 * _PAD, inner.height + 2 * _PAD
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
            f'viewBox="0 0 {width:g} {height:g}" font-family="system-ui, sans-serif" font-size="13" role="img">'
        )
        arrow = (
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>'
        )
        ground = f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>'
        parts = [head, f"<title>{_as_xml(name)}</title>", arrow, ground, *inner.paint(_PAD, _PAD), "</svg>"]
        return "\n".join(parts) + "\n"

    def part(self, node: Node) -> _Shape:
        if isinstance(node, SequenceNode):
            return _column([self.part(step) for step in node.steps])
        if isinstance(node, Leaf):
            box = self.box(node)
            if node.fallback is None:
                return box
            return _row([("", box), ("fallback", self.part(node.fallback))])
        return self.frame(node, self.inside(node))

    def inside(self, node: Node) -> _Shape:
        if isinstance(node, ParallelNode):
            return _row([("", self.part(branch)) for branch in node.branches.values()])
        if isinstance(node, ConditionNode):
            ways = [("yes", self.part(node.then))]
            if node.otherwise is not None:
                ways.append(("no", self.part(node.otherwise)))
            return _column([self.part(node.test), _row(ways)])
        if isinstance(node, RouterNode):
            ways = [(name, self.part(way)) for name, way in node.routes.items()]
            if node.default is not None:
                ways.append(("default", self.part(node.default)))
            return _column([self.part(node.choose), _row(ways)])
        if isinstance(node, LoopNode):
            body = self.part(node.body)
            return body if node.until is None else _column([body, _row([("until", self.part(node.until))])])
        assert isinstance(node, MapNode), "there is no other frame"
        return self.part(node.body)

    def box(self, node: Node) -> _Shape:
        label = _short(node.label)
        summary = _summary(node, self.steps)
        told = _told(summary)
        fill, line = _COLOURS["" if summary is None else summary.outcome]
        width = max(120.0, _width(label), _width(told))
        height = 44.0 if told else 34.0
        round_ = 17 if isinstance(node, RunnableNode) else 2 if isinstance(node, HumanNode) else 6

        def paint(x: float, y: float) -> list[str]:
            middle = x + width / 2
            parts = [
                _rect(x, y, width, height, f'rx="{round_}" fill="{fill}" stroke="{line}"'),
                _text(middle, y + (18 if told else 22), label),
            ]
            if told:
                parts.append(_text(middle, y + 35, told, size=11, colour=line))
            return parts

        return _Shape(width, height, paint)

    def frame(self, node: Node, inner: _Shape) -> _Shape:
        summary = _summary(node, self.steps)
        told = _told(summary)
        title = _short(_title(node)) + (f" ({told})" if told else "")
        _, line = _COLOURS["" if summary is None else summary.outcome]
        width = max(inner.width + 2 * _PAD, _width(title))
        height = inner.height + 2 * _PAD + _TITLE

        def paint(x: float, y: float) -> list[str]:
            return [
                _rect(x, y, width, height, f'rx="8" fill="none" stroke="{line}" stroke-dasharray="5 4"'),
                _text(x + _PAD, y + 18, title, size=12, colour="#555", anchor="start"),
                *inner.paint(x + (width - inner.width) / 2, y + _TITLE + _PAD),
            ]

        return _Shape(width, height, paint)


def _column(shapes: Sequence[_Shape]) -> _Shape:
    """Put shapes beneath each other, with arrows in between."""
    width = max(shape.width for shape in shapes)
    height = sum(shape.height for shape in shapes) + _GAP * (len(shapes) - 1)

    def paint(x: float, y: float) -> list[str]:
        parts: list[str] = []
        for place, shape in enumerate(shapes):
            if place:
                middle = x + width / 2
                parts.append(
                    f'<path d="M{middle:g} {y - _GAP:g}V{y - 2:g}" stroke="#555" fill="none" marker-end="url(#arrow)"/>'
                )
            parts += shape.paint(x + (width - shape.width) / 2, y)
            y += shape.height + _GAP
        return parts

    return _Shape(width, height, paint)


def _row(ways: Sequence[tuple[str, _Shape]]) -> _Shape:
    """Put shapes beside each other, each with what is written above it."""
    head = 18.0 if any(words for words, _ in ways) else 0.0
    widths = [max(shape.width, _width(_short(words))) if words else shape.width for words, shape in ways]
    width = sum(widths) + _GAP * (len(ways) - 1)
    height = head + max(shape.height for _, shape in ways)

    def paint(x: float, y: float) -> list[str]:
        parts: list[str] = []
        for own, (words, shape) in zip(widths, ways, strict=True):
            if words:
                parts.append(_text(x + own / 2, y + 12, _short(words), size=11, colour="#555"))
            parts += shape.paint(x + (own - shape.width) / 2, y + head)
            x += own + _GAP
        return parts

    return _Shape(width, height, paint)


def _pill(words: str) -> _Shape:
    def paint(x: float, y: float) -> list[str]:
        return [
            _rect(x, y, 80, 26, 'rx="13" fill="#fff" stroke="#555"'),
            _text(x + 40, y + 18, words),
        ]

    return _Shape(80, 26, paint)


def _rect(x: float, y: float, width: float, height: float, rest: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" {rest}/>'


def _text(
    x: float, y: float, words: str, size: int = 13, colour: str = "#222", anchor: str = "middle"
) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">{_as_xml(words)}</text>'


def _as_xml(text: str) -> str:
    return escape("".join(one if one.isprintable() else " " for one in text))


def _width(text: str) -> float:
    """About how wide a text is; letters of other scripts may be twice as wide as those of ours."""
    return 24.0 + sum(7.6 if one.isascii() else 13.5 for one in text)
