"""`python -m benchmarks [NAME …] [--quick]`: run the named benchmarks, or all of them, one after another."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.measure import ROOT

NAMES = (
    "create",
    "run",
    "trust",
    "journal",
    "turns",
    "workflow",
    "team",
    "code_mode",
    "sandbox",
    "memory",
    "memories",
    "stores",
    "cache",
    "cache_tiers",
    "fanout",
    "mcp",
    "imports",
    "http",
    "stream",
    "scale",
    "inflight",
)


def main() -> int:
    chosen = [argument for argument in sys.argv[1:] if not argument.startswith("-")] or list(NAMES)
    unknown = [name for name in chosen if name not in NAMES] + [
        option for option in sys.argv[1:] if option.startswith("-") and option != "--quick"
    ]
    if unknown:
        sys.stderr.write(
            f"no such benchmark or option: {', '.join(unknown)}; there are {', '.join(NAMES)} and --quick\n"
        )
        return 2
    options = ["--quick"] if "--quick" in sys.argv else []
    failed: list[str] = []
    for name in chosen:
        began = time.perf_counter()
        print(f"--- {name}", flush=True)
        # A process each, so that none pays for what another imported.
        if subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *options], cwd=ROOT, check=False
        ).returncode:
            failed.append(name)
        print(f"    {time.perf_counter() - began:.0f} s", flush=True)
    if failed:
        sys.stderr.write(f"failed: {', '.join(failed)}\n")
    elif not options:
        subprocess.run([sys.executable, "-m", "benchmarks.report"], cwd=ROOT, check=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
