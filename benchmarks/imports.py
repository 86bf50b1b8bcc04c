"""What does an import cost, and the help of the command line? CPU beyond a bare interpreter, fresh processes."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import RIVALS, Row, publish, quick, rival_row

PROCESSES = 3 if quick() else 12


def cpu_of_process(arguments: list[str]) -> float:
    """ms of CPU that a process and its children take."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(arguments, check=False, capture_output=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.decode()[-1000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


def main() -> None:
    cases = {
        "bare": [sys.executable, "-c", ""],
        "msgspec": [sys.executable, "-c", "import msgspec"],
        "gossamer": [sys.executable, "-c", "import gossamer"],
        "agent": [sys.executable, "-c", "from gossamer import Agent; from gossamer.models import OpenAIChat"],
        "help": [str(Path(sys.executable).with_name("gossamer")), "--help"],
    }
    least = dict.fromkeys(cases, float("inf"))
    for _ in range(PROCESSES):
        for case, arguments in cases.items():
            least[case] = min(least[case], cpu_of_process(arguments))
    beyond = {case: cpu - least["bare"] for case, cpu in least.items()}
    publish(
        "imports",
        [
            Row(
                "import gossamer",
                "ms",
                beyond["gossamer"],
                beyond["msgspec"],
                {},
                "≤ 40 ms",
                beyond["gossamer"] <= 40,
            ),
            Row(
                "import an agent and an OpenAI model",
                "ms",
                beyond["agent"],
                beyond["msgspec"],
                rival_row("import", names=RIVALS),
            ),
            Row("gossamer --help", "ms", beyond["help"], None, {}, "≤ 120 ms", beyond["help"] <= 120),
            Row("a bare interpreter", "ms", least["bare"]),
        ],
    )


if __name__ == "__main__":
    main()
