"""`python -m gossamer.simulator`: a simulator in its own process, for tests and benchmarks.

Prints one line of JSON, `{"url": ..., "pid": ...}`, when it listens; ends on SIGTERM and SIGINT.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from gossamer.errors import ArgumentError
from gossamer.simulator.faults import RATE_FAULTS
from gossamer.simulator.serve import serve
from gossamer.simulator.server import Simulator

__all__: list[str] = []


def _announce(simulator: Simulator) -> str:
    return json.dumps({"url": simulator.url, "pid": os.getpid()})


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gossamer.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before the first byte")
    parser.add_argument(
        "--tps", type=float, default=0.0, help="chunks a second in each answer; 0: at full speed"
    )
    parser.add_argument("--chunks", type=int, help="tokens of the default answer")
    parser.add_argument("--error-rate", type=float, default=0.0, help="share of requests that fail, 0 to 1")
    parser.add_argument(
        "--fault", action="append", choices=RATE_FAULTS, dest="faults", help="may be repeated"
    )
    parser.add_argument("--script", help="JSON file of replies")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--certificate", help="PEM file; with --key the server speaks TLS")
    parser.add_argument("--key", help="PEM file of the certificate's key")
    options = vars(parser.parse_args())
    options["faults"] = options["faults"] or RATE_FAULTS
    try:
        serve(announce=_announce, **options)
    except ArgumentError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(_main())
