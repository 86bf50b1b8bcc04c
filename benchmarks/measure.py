"""What the benchmarks share: clocks, rows, the simulator's process, the rivals' programs.

CPU is `time.process_time`: all threads of the process, nothing of other processes. Cases that are compared are timed
in turns, round by round, and the least of each counts, so that noise of the machine hits them alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
import timeit
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

__all__ = [
    "AGENT_FRAMEWORKS",
    "LOOP",
    "RESULTS",
    "RIVALS",
    "ROOT",
    "Row",
    "SimulatorProcess",
    "child",
    "cpu_of_awaits",
    "cpu_of_statements",
    "figures",
    "publish",
    "quick",
    "rival",
    "rival_row",
    "run_loop",
    "simulator",
]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
AGENT_FRAMEWORKS = ("agno", "pydantic_ai", "openai_agents", "langgraph", "agentscope")
RIVALS = (*AGENT_FRAMEWORKS, "openai", "aiohttp")

SECONDS_A_ROUND = 0.1
ROUNDS = 9


class Row(msgspec.Struct):
    """One line of a benchmark's results.

    Attributes:
        name: what was measured.
        unit: of value, floor and rivals; `x` is a ratio.
        value: Gossamer's figure.
        floor: the same work done by hand, or None.
        rivals: their figures, or in words why there is none.
        target: what is aimed at, in words.
        ok: whether it was reached in this run; None where there is no target, or nothing to compare with.
    """

    name: str
    unit: str
    value: float
    floor: float | None = None
    rivals: dict[str, float | str] = {}
    target: str = ""
    ok: bool | None = None


def quick() -> bool:
    """Tell whether `--quick` was given: fewer rounds, no rivals, nothing written."""
    return "--quick" in sys.argv


# --- clocks -------------------------------------------------------------------------------------------------


def _calibrated(spend: Callable[[int], float], seconds: float) -> int:
    number = 1
    while (spent := spend(number)) < seconds:
        number = max(number * 2, int(number * seconds / max(spent, 1e-6)))
    return number


def cpu_of_statements(statements: dict[str, str], names: dict[str, Any]) -> dict[str, float]:
    """Time statements, which are compiled so that no call is added to what they do.

    Args:
        statements: the code by case.
        names: what the code may use.

    Returns:
        µs of CPU of each, the collector running.
    """
    timers = {
        case: timeit.Timer(code, "gc.enable()", time.process_time, names | {"gc": __import__("gc")})
        for case, code in statements.items()
    }
    seconds, rounds = (0.02, 3) if quick() else (SECONDS_A_ROUND, ROUNDS)
    numbers = {case: _calibrated(timer.timeit, seconds) for case, timer in timers.items()}
    best = dict.fromkeys(timers, float("inf"))
    for _ in range(rounds):
        for case, timer in timers.items():
            best[case] = min(best[case], timer.timeit(numbers[case]) / numbers[case] * 1e6)
    return best


async def cpu_of_awaits(cases: dict[str, Callable[[], Awaitable[Any]]]) -> dict[str, float]:
    """Time what is awaited, on the running loop.

    Returns:
        µs of CPU of `await case()` of each.
    """

    async def spend(function: Callable[[], Awaitable[Any]], number: int) -> float:
        start = time.process_time()
        for _ in range(number):
            await function()
        return time.process_time() - start

    seconds, rounds = (0.02, 3) if quick() else (SECONDS_A_ROUND, ROUNDS)
    numbers: dict[str, int] = {}
    for case, function in cases.items():
        number = 1
        while (spent := await spend(function, number)) < seconds:
            number = max(number * 2, int(number * seconds / max(spent, 1e-6)))
        numbers[case] = number
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for case, function in cases.items():
            best[case] = min(best[case], await spend(function, numbers[case]) / numbers[case] * 1e6)
    return best


# --- loops and processes ------------------------------------------------------------------------------------


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


LOOP = "asyncio" if _loop_factory() is None else "uvloop"


def run_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on uvloop where it is installed, as the product does, else on asyncio's loop."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work)


class SimulatorProcess(msgspec.Struct):
    """A running simulator.

    Attributes:
        url: up to and with `/v1`.
        pid: its process.
    """

    url: str
    pid: int


@contextlib.contextmanager
def simulator(**options: Any) -> Iterator[SimulatorProcess]:
    """Run the simulator in a process of its own, on a free port; options are those of its command line."""
    command = [sys.executable, "-m", "gossamer.simulator"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield msgspec.json.decode(process.stdout.readline(), type=SimulatorProcess)
        finally:
            process.terminate()
            process.wait(10)


def _program(command: list[str], keys: dict[str, Any], seconds: float) -> dict[str, Any]:
    command += [f"{name}={value}" for name, value in keys.items()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().rpartition("\n")[2])


def child(client: str, case: str, **keys: Any) -> dict[str, Any]:
    """Run one load in a process of its own; see `benchmarks.load`."""
    return _program([sys.executable, "-m", "benchmarks.load", client, case], keys, 300)


# --- rivals -------------------------------------------------------------------------------------------------


@functools.cache
def _rival(name: str, case: str, keys: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    python = ROOT / ".venv-rivals" / name / "bin" / "python"
    if quick():
        return {"unsupported": "not run with --quick"}
    if not python.exists():
        return {"unsupported": "run make bench-rivals"}
    try:
        answer = _program(
            [str(python), f"benchmarks/peers/{name}/peer.py", case],
            dict(keys),
            float(os.environ.get("RIVAL_SECONDS", "240")),
        )
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return {"unsupported": f"failed: {str(error).strip().splitlines()[-1][:200]}"}
    _rival_versions[name] = answer.get("versions", {})
    return answer


_rival_versions: dict[str, dict[str, str]] = {}


def rival(name: str, case: str, **keys: Any) -> dict[str, Any]:
    """Run a rival's program once and give its line; `unsupported` says in words why there are no figures."""
    return _rival(name, case, tuple(keys.items()))


def rival_row(
    case: str,
    figure: str | Callable[[dict[str, Any]], float] = "value",
    names: tuple[str, ...] = AGENT_FRAMEWORKS,
    **keys: Any,
) -> dict[str, float | str]:
    """Give a figure of a case of each rival: a number, or in words why there is none.

    Args:
        case: see benchmarks/peers/README.md.
        figure: the key in the program's line, or a function of it.
        names: which rivals.
        **keys: what else the case needs.
    """
    row: dict[str, float | str] = {}
    for name in names:
        answer = rival(name, case, **keys)
        if "unsupported" in answer:
            row[name] = answer["unsupported"]
        else:
            row[name] = answer[figure] if isinstance(figure, str) else figure(answer)
    return row


def figures(rivals: dict[str, float | str]) -> list[float]:
    """The rivals' figures that are numbers."""
    return [value for value in rivals.values() if not isinstance(value, str)]


# --- results ------------------------------------------------------------------------------------------------


def publish(name: str, rows: list[Row]) -> None:
    """Print the rows, and write them to benchmarks/results unless the run is a quick one."""
    for row in rows:
        verdict = {True: "ok  ", False: "MISS", None: "    "}[row.ok]
        floor = f" floor {row.floor:,.4g}" if row.floor is not None else ""
        rivals = "".join(
            f" {rival} {value:,.4g}" for rival, value in row.rivals.items() if not isinstance(value, str)
        )
        target = f" [{row.target}]" if row.target else ""
        print(f"{verdict} {row.name}: {row.value:,.4g} {row.unit};{floor}{rivals}{target}", flush=True)
    if quick():
        return
    for row in rows:
        row.value = _rounded(row.value)
        row.floor = None if row.floor is None else _rounded(row.floor)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n")
    _note_machine(name)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _note_machine(name: str) -> None:
    path = RESULTS / "machine.json"
    known: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    # Whose figures were taken on which machine: those before this run keep theirs.
    cpus = dict.fromkeys(known.get("measured", {}), known.get("cpu")) | known.get("cpus", {}) | {name: model}
    libraries = ("gossamer", "msgspec", "httptools", "uvloop", "prometheus_client")
    known |= {
        "cpu": model,
        "cpus": cpus,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "loop": LOOP,
        "versions": {library: importlib.metadata.version(library) for library in libraries},
    }
    known["rivals"] = known.get("rivals", {}) | _rival_versions
    known["measured"] = known.get("measured", {}) | {name: datetime.now(UTC).date().isoformat()}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(known), indent=2) + b"\n")
