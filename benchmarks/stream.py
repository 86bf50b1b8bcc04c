"""What does a streamed chunk cost? 50 chunks an answer, one chunk a packet, 20 a second, plain and over TLS."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import (
    AGENT_FRAMEWORKS,
    LOOP,
    RIVALS,
    Row,
    child,
    figures,
    publish,
    quick,
    rival_row,
    simulator,
)

CHUNKS = 50
A_SECOND = 20
RAW_CLIENTS = ("openai", "aiohttp")
# The official client of each other dialect.
OFFICIAL = {
    "openai_responses": "openai",
    "anthropic_chat": "anthropic",
    "gemini_chat": "google_genai",
    "ollama_chat": "ollama",
}


@contextlib.contextmanager
def certificate() -> Iterator[dict[str, str]]:
    """A server's certificate and the authority that signed it, as files."""
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / f"{name}.pem") for name in ("ca", "certificate", "key")}
        authority.cert_pem.write_to_path(files["ca"])
        issued.private_key_pem.write_to_path(files["key"])
        for blob in issued.cert_chain_pems:
            blob.write_to_path(files["certificate"], append=True)
        yield files


def least(url: str, streams: int, ca: str = "", dialect: str = "openai_chat") -> dict[str, dict[str, float]]:
    """The least of several rounds, Gossamer and the floor in turns."""
    keys: dict[str, Any] = {"url": url, "streams": streams, "dialect": dialect} | ({"ca": ca} if ca else {})
    best: dict[str, dict[str, float]] = {}
    for _ in range(1 if quick() else 3):
        for client in ("gossamer", "floor"):
            figures_of_round = child(client, "stream", **keys)
            known = best.setdefault(client, figures_of_round)
            best[client] = {name: min(known[name], figures_of_round[name]) for name in known}
    return best


def rows_for(url: str, streams: int, ca: str = "") -> list[Row]:
    """Measure one number of streams."""
    best = least(url, streams, ca)
    ours, floor = best["gossamer"], best["floor"]
    keys: dict[str, Any] = {"url": url, "streams": streams, "chunks": CHUNKS, "loop": LOOP} | (
        {"ca": ca} if ca else {}
    )
    # Few streams cost everybody more a chunk: more wake-ups of the loop for as many chunks.
    names = RIVALS if streams == 300 else ("agno", *RAW_CLIENTS)
    chunk = rival_row("stream", names=names, **keys)
    run = rival_row("stream", lambda line: line["cpu_ms_per_run"] * 1e3, names=names, **keys)
    memory = rival_row("stream", "peak_rss_mb", names=names, **keys)
    held = rival_row(
        "stream",
        lambda line: round((line["peak_rss_mb"] - line["rss_before_mb"]) * 1024 / streams, 1),
        names=names,
        **keys,
    )
    what = f"{streams} {'stream' if streams == 1 else 'streams'}{' over TLS' if ca else ''}"
    judged = streams == 300 and not ca
    cost, bare = ours["cpu_us_per_chunk"], floor["cpu_us_per_chunk"]
    rows = [
        Row(
            f"{what}: CPU a chunk",
            "µs",
            cost,
            bare,
            chunk,
            "≤ 1.5x the floor" if judged else "",
            cost <= 1.5 * bare if judged else None,
        ),
        Row(f"{what}: CPU a run", "µs", ours["cpu_us_per_run"], floor["cpu_us_per_run"], run),
        Row(f"{what}: peak memory of the process", "MB", ours["peak_rss_mb"], floor["peak_rss_mb"], memory),
    ]
    if streams >= 100:
        rows.append(
            Row(f"{what}: memory a stream", "KB", ours["kb_per_stream"], floor["kb_per_stream"], held)
        )
    if judged:
        frameworks = {name: chunk[name] for name in AGENT_FRAMEWORKS}
        ratios = {
            name: value if isinstance(value, str) else round(value / cost, 1)
            for name, value in frameworks.items()
        }
        best_ratio = min(figures(ratios), default=0.0)
        target = "≥ 10x less than every agent framework"
        rows.insert(
            1,
            Row(
                f"{what}: the best agent framework costs",
                "x",
                best_ratio,
                None,
                ratios,
                target,
                best_ratio >= 10 if best_ratio else None,
            ),
        )
    return rows


def dialect_rows(url: str, dialect: str) -> list[Row]:
    """Measure 300 streams in another dialect, its official client beside."""
    best = least(url, 300, dialect=dialect)
    rivals = rival_row(
        "stream",
        names=(OFFICIAL[dialect],),
        url=url,
        streams=300,
        chunks=CHUNKS,
        loop=LOOP,
        dialect=dialect,
    )
    cost, bare = best["gossamer"]["cpu_us_per_chunk"], best["floor"]["cpu_us_per_chunk"]
    name = f"300 streams in {dialect}: CPU a chunk"
    return [Row(name, "µs", cost, bare, rivals, "≤ 1.5x the floor", cost <= 1.5 * bare)]


def main() -> None:
    rows: list[Row] = []
    with simulator(tps=A_SECOND, chunks=CHUNKS) as server:
        for streams in (100, 300) if quick() else (1, 100, 300):
            rows += rows_for(server.url, streams)
        for dialect in OFFICIAL:
            rows += dialect_rows(server.url, dialect)
    with (
        certificate() as files,
        simulator(tps=A_SECOND, chunks=CHUNKS, certificate=files["certificate"], key=files["key"]) as server,
    ):
        rows += rows_for(server.url, 300, files["ca"])
    publish("stream", rows)


if __name__ == "__main__":
    main()
