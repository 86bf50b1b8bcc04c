"""How do 10,000 runs in teams of 10 fare in one process, each streaming over HTTP at 2 chunks a second?"""

from __future__ import annotations

from benchmarks.measure import Row, child, publish, quick, simulator

A_SECOND = 2
CHUNKS = 16 if quick() else 60
TEAM = 10


def rows_for(runs: int) -> list[Row]:
    """Measure one number of runs; each client gets a server of its own."""
    seen = {}
    for client, case in (("gossamer", "inflight"), ("floor", "scale")):
        with simulator(tps=A_SECOND, chunks=CHUNKS) as server:
            seen[client] = child(client, case, url=server.url, streams=runs, chunks=CHUNKS)
        assert seen[client]["most_live"] == runs, (
            f"{client}: only {seen[client]['most_live']} of {runs} at once"
        )
    ours, floor = seen["gossamer"], seen["floor"]
    what = f"{runs:,} runs in teams of {TEAM}"
    return [
        Row(f"{what}: errors", "", ours["errors"], floor["errors"], {}, "0", ours["errors"] == 0),
        Row(f"{what}: peak memory of the process", "MB", ours["peak_rss_mb"], floor["peak_rss_mb"]),
        Row(f"{what}: CPU a chunk", "µs", ours["cpu_us_per_chunk"], floor["cpu_us_per_chunk"]),
        Row(f"{what}: sender to consumer, median", "ms", ours["p50_ms"], floor["p50_ms"]),
        Row(f"{what}: sender to consumer, 95th percentile", "ms", ours["p95_ms"], floor["p95_ms"]),
    ]


def main() -> None:
    rows: list[Row] = []
    for runs in (500,) if quick() else (1_000, 10_000):
        rows += rows_for(runs)
    publish("inflight", rows)


if __name__ == "__main__":
    main()
