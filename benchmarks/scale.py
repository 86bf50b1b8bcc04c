"""How do 10,000 live streams fare in one process? 2 chunks a second each, plain HTTP/1.1, server apart."""

from __future__ import annotations

from benchmarks.measure import Row, child, publish, quick, simulator

A_SECOND = 2
CHUNKS = 16 if quick() else 30


def rows_for(streams: int) -> list[Row]:
    """Measure one number of streams; each client gets a server of its own."""
    best: dict[str, dict[str, float]] = {}
    for _ in range(2 if streams == 10_000 and not quick() else 1):
        for client in ("gossamer", "floor"):
            with simulator(tps=A_SECOND, chunks=CHUNKS) as server:
                seen = child(client, "scale", url=server.url, streams=streams, chunks=CHUNKS)
            assert seen["most_live"] == streams, (
                f"{client}: only {seen['most_live']} of {streams} at once: {seen}"
            )
            known = best.setdefault(client, seen)
            lower = {
                name: min(known[name], seen[name]) for name in known if name not in {"errors", "first_error"}
            }
            best[client] = (
                known
                | lower
                | {"errors": known["errors"] if seen is known else known["errors"] + seen["errors"]}
            )
    ours, floor = best["gossamer"], best["floor"]
    what = f"{streams:,} live streams"
    full = streams == 10_000
    more = ours["p95_ms"] - floor["p95_ms"]
    return [
        Row(f"{what}: errors", "", ours["errors"], floor["errors"], {}, "0", ours["errors"] == 0),
        Row(
            f"{what}: peak memory of the process",
            "MB",
            ours["peak_rss_mb"],
            floor["peak_rss_mb"],
            {},
            "≤ 205 MB" if full else "",
            ours["peak_rss_mb"] <= 205 if full else None,
        ),
        Row(f"{what}: CPU a chunk", "µs", ours["cpu_us_per_chunk"], floor["cpu_us_per_chunk"]),
        Row(f"{what}: sender to consumer, median", "ms", ours["p50_ms"], floor["p50_ms"]),
        Row(
            f"{what}: sender to consumer, 95th percentile",
            "ms",
            ours["p95_ms"],
            floor["p95_ms"],
            {},
            "≤ 135 ms more than the floor" if full else "",
            more <= 135 if full else None,
        ),
    ]


def main() -> None:
    rows: list[Row] = []
    for streams in (1_000, 10_000) if quick() else (1_000, 5_000, 10_000):
        rows += rows_for(streams)
    publish("scale", rows)


if __name__ == "__main__":
    main()
