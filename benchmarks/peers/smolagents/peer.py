"""smolagents: its local executor, which walks the syntax tree in this very process and isolates nothing."""

# ruff: noqa: E402 - the process is prepared before the rival is imported

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import common

common.prepare()

from smolagents.local_python_executor import LocalPythonExecutor

ROUNDS = 300


async def sandbox() -> dict:
    def fresh() -> None:
        executor = LocalPythonExecutor(additional_authorized_imports=[])
        executor.send_tools({})
        assert executor("1 + 1").output == 2

    kept = LocalPythonExecutor(additional_authorized_imports=[])
    kept.send_tools({})
    taken = {"fresh_ms": [], "kept_ms": []}
    for _ in range(ROUNDS):
        for name, work in (("fresh_ms", fresh), ("kept_ms", lambda: kept("1 + 1"))):
            began = time.perf_counter()
            work()
            taken[name].append((time.perf_counter() - began) * 1e3)
    return {name: round(sorted(values)[ROUNDS // 2], 4) for name, values in taken.items()}


common.main({"sandbox": sandbox}, packages=("smolagents",))
