"""`python -m benchmarks.report`: docs/benchmarks.md, its plots and the README's table, out of benchmarks/results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.measure import AGENT_FRAMEWORKS, RESULTS, ROOT, Row

DOCS = ROOT / "docs"
PLOTS = DOCS / "plots"
MARKER = "<!-- benchmarks -->"

# A benchmark's heading and what is to be known about it, in the order of the page.
CHAPTERS = {
    "create": (
        "Building an agent",
        "The floor is the bare struct with the same fields, nothing checked. A rival's retained bytes are those of its own agent.",
    ),
    "run": (
        "A run on a model in the same process",
        "The model's answers lie ready, so all that is measured is the run. The floor is the same work as one coroutine by hand. The rivals' models are as simple.",
    ),
    "trust": (
        "Guardrails, toolkits, approvals",
        "What each adds to a run that needs none of it in the end: nothing is found, one tool of a hundred is used, nobody has to decide. The floors are the bare searches, and the run with that one tool.",
    ),
    "journal": (
        "Adding a message to a full history",
        "Gossamer's window lets old messages go; the floor is a list that grows beside a deque that forgets. No rival bounds its history.",
    ),
    "turns": (
        "A turn of a long session",
        "Gossamer's figures include the encoding of the whole request for the wire; the rivals' do not, and end at message 1,000. The floor is one copy of as many bytes.",
    ),
    "workflow": (
        "A step of a workflow",
        "Ten async functions one after the other; the floor awaits them by hand. On disk means that what a step gave is there before the next one begins: langgraph with its SQLite checkpointer and durability=sync, each of 200 workflows in a thread of its own name; agno keeps a run at its end.",
    ),
    "stores": (
        "Sessions in a store",
        "Wall-clock time, for most of it is waiting for a disk that syncs; Postgres runs on the same machine. 200 sessions are written to at once, and each waits for the disk before it goes on. The floor of an append is the same records put into a table by hand, 200 a transaction; that of the loop's delay is the same talk in memory. agno keeps sessions with SqliteDb and gives the model the last 50 runs, langgraph with AsyncSqliteSaver and gives it everything, for it has no view.",
    ),
    "memory": (
        "Working memory",
        "1,000 messages, 250 of them results of 10,000 characters, are brought into a budget of tokens: counted, moved and recorded. The floor makes the short messages and one new list of them, nothing counted. agentscope always asks its model, so it stands beside the row with summaries, whose model answers at once for all. Turns are on a model whose answer lies ready; their floor is the same turn of an agent without memory.",
    ),
    "memories": (
        "Long-term memory",
        "A memory has 15 words by Zipf's law, a query six. The floor of a search is FTS5 asked for all words by itself; Gossamer ranks those with the rarer words and weighs the others among the best, which the share tells the price of. The floor of a memory kept is its row and its entry in the index in one transaction with 199 others; Gossamer also looks for one that says the same, and notes whose it is. A run with memory retrieves from 1,000 memories and leaves an extraction, which is synced to disk and done in the background by a model that answers at once; its floor is the same run without memory.",
    ),
    "cache": (
        "An answer from a cache",
        "A cached hit is a run whose model is asked through CachedModel, less the same run without it. Its floor encodes the request, hashes it, looks it up in a dict and decodes the answer, once. The floor of a hit with so many messages is their hash alone; of a look into the memory cache, a look into a dict, and an await of nothing.",
    ),
    "cache_tiers": (
        "A cache in two tiers",
        "Memory's figures are CPU; where Redis is asked once, the wall's clock counts, on a loopback connection to a server that the benchmark starts, with a value of 100 characters. The floors are a look into a dict, a look into cachebox, an await of nothing, and a bare GET or SET of the official client with the same value in msgpack. The floor of misses at once is as many tasks that wait for one future. aiocache's memory has no bound and its values are JSON in Redis; cashews looks into memory on the client's side, and pickles.",
    ),
    "fanout": (
        "Ten thousand agents at once",
        "The agents' models answer out of the same process, at once or after one round of the loop. The floor is plain `asyncio.gather` of the same runs, and for the hub a run without one. The run itself is what it costs awaited one after another. The rival's agent does nothing but return a message.",
    ),
    "mcp": (
        "A call of an MCP server's tool",
        "The server stands on the official package and runs in a process of its own, whose CPU is not counted. The floor is the official client by itself, with nothing around it. Gossamer's figure includes decoding the arguments, checking them against the server's schema, the place among the calls, a task that outlives the pause of a run, and the result as a part. It does not include checking structured results against the server's schema, which the official client does and Gossamer does not.",
    ),
    "team": (
        "Teams",
        "The members' models answer at once, but for the row in which they wait. What is taken off a delegation is the same agents run by plain gather, each in a session and a task of its own, as in a team. agno's leader sends the question to all members in one call; its figure is less its own members run by gather. A chunk is one of a model in the same process.",
    ),
    "code_mode": (
        "Code that calls tools",
        "The code runs in Monty, in processes of its own, whose CPU is not counted. The floor is the same code with the plain function in the tool's place; Gossamer's figure adds all that a call of a tool passes, and its records. What a run without calls costs is taken off both.",
    ),
    "sandbox": (
        "Sandboxes",
        "Milliseconds on the wall, the median, of `1 + 1`. The floor of Monty is the library by itself. `python -c` is a bare interpreter without any isolation, started for each; smolagents' local executor walks the syntax tree in the process that asks, and isolates nothing. Memory counts what processes share by its share.",
    ),
    "imports": ("Imports", "CPU beyond a bare interpreter. The floor is `import msgspec`."),
    "http": (
        "Calls to a server that answers after 1 ms",
        "More is better for calls a second. The floor is httptools under an asyncio protocol, connections kept. The Go port's figures are published ones, on another machine of this class.",
    ),
    "stream": (
        "A streamed chunk",
        "50 chunks an answer, one a packet, 20 a second, the server in a process of its own. The floor is httptools under an asyncio protocol, with a queue and its consumer. `openai` and `aiohttp` are clients without an agent. A rival that cannot keep up finds several chunks in one read, which makes each cheaper.",
    ),
    "scale": (
        "Ten thousand live streams",
        "2 chunks a second each. The time from sender to consumer is taken from a stamp in the chunk; sender and consumer share a clock.",
    ),
    "inflight": (
        "Ten thousand runs in teams of ten",
        "The same load, as members of teams that ask ten at once; every chunk is read through the stream of its team. The floor is the client of the chapter above, without agents or teams.",
    ),
}

# Rows of the README: benchmark, row, how it is called there.
README_ROWS = (
    ("create", "build an agent with 4 tools", "build an agent with 4 tools"),
    ("run", "simple run", "one run on an in-process model"),
    ("run", "run with one async tool", "one run with one tool call"),
    ("turns", "turn at message 1,000", "a turn at message 1,000"),
    ("stream", "300 streams: CPU a chunk", "one streamed chunk, 300 streams"),
    ("stream", "300 streams over TLS: CPU a chunk", "the same over TLS"),
    ("scale", "10,000 live streams: peak memory of the process", "10,000 live streams, peak memory"),
    ("imports", "import an agent and an OpenAI model", "import an agent and an OpenAI model"),
)

# Plots: file, benchmark, rows by the words under their bars.
PLOTTED = {
    "runs": (
        "run",
        {"simple run": "simple run", "with one async tool": "run with one async tool"},
        "CPU of a run, µs, logarithmic",
    ),
    "stream": (
        "stream",
        {"plain": "300 streams: CPU a chunk", "TLS": "300 streams over TLS: CPU a chunk"},
        "CPU of a streamed chunk, µs, logarithmic",
    ),
    "turns": (
        "turns",
        {f"{count:,}": f"turn at message {count:,}" for count in (10, 100, 1_000, 10_000)},
        "CPU of a turn by messages so far, µs, logarithmic",
    ),
}


def load() -> dict[str, list[Row]]:
    """The rows of every benchmark that was run."""
    results: dict[str, list[Row]] = {}
    for name in CHAPTERS:
        path = RESULTS / f"{name}.json"
        if path.exists():
            results[name] = msgspec.json.decode(path.read_bytes(), type=list[Row])
    return results


def number(value: float | str | None) -> str:
    """A figure as it is shown: three digits that count, thousands separated."""
    if value is None:
        return ""
    if isinstance(value, str):
        return "—"
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(rows: list[Row]) -> list[str]:
    """The rows as Markdown, with a column for each rival that any of them names."""
    rivals = list(dict.fromkeys(name for row in rows for name in row.rivals))
    head = ["", "unit", "Gossamer", "floor", *(name.replace("_", "-") for name in rivals), "target", ""]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (2 + len(rivals)) + "---|---|"]
    for row in rows:
        verdict = {True: "reached", False: "**missed**", None: ""}[row.ok]
        shown = [number(row.rivals.get(name)) for name in rivals]
        cells = [
            row.name,
            row.unit,
            f"**{number(row.value)}**",
            number(row.floor),
            *shown,
            row.target,
            verdict,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def reasons(rows: list[Row]) -> list[str]:
    """Why figures of rivals are missing, each reason once."""
    told = {(name, value) for row in rows for name, value in row.rivals.items() if isinstance(value, str)}
    return [f"- {name.replace('_', '-')}: {why}" for name, why in sorted(told)]


def losses(results: dict[str, list[Row]]) -> list[str]:
    """Every target that was missed, and every row in which a rival is ahead."""
    lines: list[str] = []
    for rows in results.values():
        for row in rows:
            if row.ok is False:
                lines.append(f"- {row.name}: {number(row.value)} {row.unit}, the target is {row.target}.")
            if row.unit == "x":
                continue
            more_is_better = row.unit == "calls/s"
            for name, value in row.rivals.items():
                if not isinstance(value, str) and (
                    value > row.value if more_is_better else value < row.value
                ):
                    lines.append(
                        f"- {row.name}: {name.replace('_', '-')} is ahead, {number(value)} against {number(row.value)} {row.unit}."
                    )
    return lines


def _cpu(machine: dict[str, Any]) -> str:
    """The machine on which most of the figures were taken."""
    cpus = list(machine.get("cpus", {}).values())
    return max(cpus, key=cpus.count) if cpus else str(machine.get("cpu"))


def _other_cpu(name: str, machine: dict[str, Any]) -> str:
    cpu = machine.get("cpus", {}).get(name, _cpu(machine))
    return "" if cpu == _cpu(machine) else f", measured on {cpu}"


def page(results: dict[str, list[Row]], machine: dict[str, Any]) -> str:
    """docs/benchmarks.md."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items())
    lines = [
        "# Benchmarks",
        "",
        "<!-- Written by `make bench-report`; do not edit. -->",
        "",
        "`make bench-rivals` installs the rivals, `make bench` measures, `make bench-report` writes this page. Floor and rivals",
        "run in the same run as Gossamer, answers are checked inside every benchmark, and the least of several rounds counts.",
        "",
        f"Machine: {_cpu(machine)}, {machine.get('cores')} cores, {machine.get('system')}. {machine.get('python')}, event loop",
        f"{machine.get('loop')} for Gossamer, the floor and the rivals' streams and calls. {versions}.",
        "",
    ]
    rivals = machine.get("rivals", {})
    if rivals:
        lines += ["| rival | versions |", "|---|---|"]
        for name, known in sorted(rivals.items()):
            shown = ", ".join(
                f"{package} {version}" for package, version in known.items() if package != "python"
            )
            lines.append(f"| {name.replace('_', '-')} | {shown} |")
        lines.append("")
    lines += [
        "What each rival's figure stands for is told in [its README](../benchmarks/peers/README.md).",
        "",
        "## Where it falls short",
        "",
    ]
    lines += losses(results) or ["Every target was reached, and no rival is ahead in any row."]
    for name, (heading, note) in CHAPTERS.items():
        if name not in results:
            continue
        lines += [
            "",
            f"## {heading}",
            "",
            note,
            "",
            f"`python -m benchmarks.{name}`{_other_cpu(name, machine)}",
            "",
            *table(results[name]),
        ]
        missing = reasons(results[name])
        if missing:
            lines += ["", "No figure (—):", "", *missing]
        lines += [
            line
            for plot, (source, _, title) in PLOTTED.items()
            if source == name and (PLOTS / f"{plot}.svg").exists()
            for line in ("", f"![{title}](plots/{plot}.svg)")
        ]
    return "\n".join(lines) + "\n"


def readme_table(results: dict[str, list[Row]]) -> str:
    """The short table of the README."""
    rivals = list(AGENT_FRAMEWORKS)
    lines = [
        "| | Gossamer | by hand | " + " | ".join(name.replace("_", "-") for name in rivals) + " |",
        "|---|" + "---:|" * (2 + len(rivals)),
    ]
    for benchmark, name, title in README_ROWS:
        for row in results.get(benchmark, ()):
            if row.name == name:
                shown = [number(row.rivals.get(rival)) for rival in rivals]
                value, floor = f"**{number(row.value)} {row.unit}**", number(row.floor)
                lines.append("| " + " | ".join([title, value, floor, *shown]) + " |")
    return "\n".join(lines)


def write_readme(fragment: str) -> None:
    """Put the table between the markers of the README, where it has them."""
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    pieces = text.split(MARKER)
    if len(pieces) != 3:
        print(f"README.md has not two markers {MARKER}; its table was left alone")
        return
    path.write_text(f"{pieces[0]}{MARKER}\n{fragment}\n{MARKER}{pieces[2]}", encoding="utf-8")


def plot(results: dict[str, list[Row]]) -> None:
    """Draw the plots whose rows are there."""
    import matplotlib as mpl

    mpl.use("svg")
    # The same figures give the same file.
    mpl.rcParams["svg.hashsalt"] = "gossamer"
    from matplotlib import pyplot as plt

    PLOTS.mkdir(parents=True, exist_ok=True)
    for name, (benchmark, wanted, title) in PLOTTED.items():
        by_name = {row.name: row for row in results.get(benchmark, ())}
        bars = {words: by_name[row] for words, row in wanted.items() if row in by_name}
        if not bars:
            continue
        series: dict[str, list[float]] = {"by hand": [row.floor or 0.0 for row in bars.values()]}
        series["Gossamer"] = [row.value for row in bars.values()]
        for rival in dict.fromkeys(rival for row in bars.values() for rival in row.rivals):
            found = [row.rivals.get(rival, 0.0) for row in bars.values()]
            series[rival.replace("_", "-")] = [
                value if not isinstance(value, str) else 0.0 for value in found
            ]
        figure, axes = plt.subplots(figsize=(7, 3))
        width = 0.8 / len(series)
        for place, (label, values) in enumerate(series.items()):
            shade = {"Gossamer": "tab:red", "by hand": "0.7"}.get(label)
            spots = [index + place * width for index in range(len(bars))]
            axes.bar(spots, values, width, label=label, color=shade)
        axes.set_yscale("log")
        axes.set_xticks([index + 0.4 - width / 2 for index in range(len(bars))], list(bars))
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=7, ncols=2)
        figure.tight_layout()
        figure.savefig(PLOTS / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    results = load()
    path: Path = RESULTS / "machine.json"
    machine: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    DOCS.mkdir(exist_ok=True)
    try:
        plot(results)
    except ImportError:
        print("matplotlib is missing, so no plots were drawn: pip install 'gossamer[bench]'")
    (DOCS / "benchmarks.md").write_text(page(results, machine), encoding="utf-8")
    write_readme(readme_table(results))
    print(f"docs/benchmarks.md: {', '.join(results) or 'nothing was measured yet'}")


if __name__ == "__main__":
    main()
