"""The simulator's counts as a page for browsers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from gossamer.simulator.stats import SimulatorStats

__all__ = ["stats_page"]

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="2">
<link rel="icon" href="data:,">
<title>Gossamer simulator</title>
<style>
:root {{ color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent); }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.25rem; }}
h2 {{ font-size: 1rem; margin: 2rem 0 .5rem; }}
dl {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem; margin: 0; }}
dt {{ opacity: .7; }}
dd {{ margin: 0; font-size: 1.4rem; font-variant-numeric: tabular-nums; }}
div.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: right; padding: .3rem .8rem; border-bottom: 1px solid var(--line); }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
td {{ font-variant-numeric: tabular-nums; }}
</style>
<h1>Gossamer simulator</h1>
<dl>{numbers}</dl>
<h2>Wire formats</h2>
<div class="wide">{dialects}</div>
<h2>Errors and faults</h2>
<div class="wide">{errors}</div>
<p>The same as JSON: <code>curl</code> this address. The page renews itself every two seconds.</p>
</html>
"""


def stats_page(stats: SimulatorStats) -> bytes:
    """A page that shows the counts: complete in itself, light or dark as the reader has it, without scripts."""
    numbers = {
        "Requests": stats.requests,
        "Connections": stats.connections,
        "Streams now": stats.streams,
        "Streams at most": stats.streams_peak,
        "Chunks": stats.chunks,
        "Prompt tokens": stats.prompt_tokens,
        "of them cached": stats.cached_tokens,
        "Completion tokens": stats.completion_tokens,
        "Embeddings": stats.embeddings,
        "Disconnects": stats.disconnects,
    }
    head = ("Format", "Requests", "Streamed", "Prompt tokens", "Completion tokens", "Errors")
    dialects = [
        (name, each.requests, each.streamed, each.prompt_tokens, each.completion_tokens, each.errors)
        for name, each in sorted(stats.dialects.items())
    ]
    return _PAGE.format(
        numbers="".join(f"<div><dt>{name}</dt><dd>{value:,}</dd></div>" for name, value in numbers.items()),
        dialects=_table(head, dialects) if dialects else "<p>Nothing was asked yet.</p>",
        errors=_table(("Kind", "Count"), sorted(stats.errors.items())) if stats.errors else "<p>None.</p>",
    ).encode()


def _table(head: tuple[str, ...], rows: Sequence[Sequence[str | int]]) -> str:
    lines = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{lines}</table>"


def _cell(value: str | int) -> str:
    return escape(value) if isinstance(value, str) else f"{value:,}"
