"""How many calls a second? Build client and agent, make one call to a server that answers after 1 ms."""

# ruff: noqa: A005 - run as `python -m benchmarks.http`; nothing imports it by its bare name

from __future__ import annotations

from benchmarks.measure import LOOP, RIVALS, Row, child, figures, publish, quick, rival_row, simulator

# A Go port of agno, as its documentation and measurements on this class of machine have it; not run here.
GO_PORT = {1: 704.0, 8: 3_610.0, 32: 3_691.0}
GO_PORT_NAME = "a Go port (published)"
SECONDS = 1.0 if quick() else 2.0


def rows_for(url: str, concurrency: int) -> list[Row]:
    """Measure one number of calls at once; the most of several rounds counts."""
    rows: list[Row] = []
    keys = {"url": url, "concurrency": concurrency, "seconds": SECONDS}
    clients = {"fresh": ("gossamer", "fresh"), "shared": ("gossamer", "shared"), "floor": ("floor", "shared")}
    most = dict.fromkeys(clients, 0.0)
    cpu = dict.fromkeys(clients, float("inf"))
    for _ in range(1 if quick() else 3):
        for name, (client, mode) in clients.items():
            seen = child(client, "http", mode=mode, **keys)
            most[name] = max(most[name], seen["calls_per_s"])
            cpu[name] = min(cpu[name], seen["cpu_us_per_call"])
    for mode in ("fresh", "shared"):
        rivals = rival_row("http", names=RIVALS, mode=mode, loop=LOOP, **keys)
        rivals_cpu = rival_row("http", "cpu_us_per_call", names=RIVALS, mode=mode, loop=LOOP, **keys)
        # aiohttp is no rival but a raw client, shown beside.
        best = max(figures({name: value for name, value in rivals.items() if name != "aiohttp"}), default=0.0)
        ok = most[mode] > GO_PORT[concurrency] and most[mode] >= 5 * best if best else None
        target = (
            f"> {GO_PORT[concurrency]:,.0f}, ≥ 5x every rival but the raw aiohttp" if mode == "fresh" else ""
        )
        how = "client and agent built for each call" if mode == "fresh" else "one client, one agent"
        shown = rivals | {GO_PORT_NAME: GO_PORT[concurrency]} if mode == "fresh" else rivals
        rows += [
            Row(
                f"{concurrency} at once, {how}",
                "calls/s",
                most[mode],
                most["floor"],
                shown,
                target,
                ok if target else None,
            ),
            Row(f"{concurrency} at once, {how}: CPU a call", "µs", cpu[mode], cpu["floor"], rivals_cpu),
        ]
    return rows


def main() -> None:
    with simulator(latency=0.001) as server:
        rows = [row for concurrency in (1, 8, 32) for row in rows_for(server.url, concurrency)]
    publish("http", rows)


if __name__ == "__main__":
    main()
