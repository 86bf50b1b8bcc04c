"""What the metrics tell of sandboxes."""

import asyncio
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from gossamer import disable_metrics, enable_metrics
from gossamer.errors import (
    CodeError,
    SandboxClosedError,
    SandboxCrashedError,
    SandboxFileError,
    SandboxMemoryError,
    SandboxTimeoutError,
)
from gossamer.sandbox.outcome import note_run
from gossamer.telemetry.metrics import Recorder


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    yield enable_metrics(CollectorRegistry())
    disable_metrics()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (CodeError("no", kind="ValueError"), "code"),
        (SandboxTimeoutError("no", limit="timeout", allowed=1), "timeout"),
        (SandboxMemoryError("no", limit="memory_bytes", allowed=1), "memory_bytes"),
        (SandboxCrashedError("no"), "crashed"),
        (SandboxClosedError("no"), "closed"),
        (SandboxFileError("no"), "file"),
        (asyncio.CancelledError(), "cancelled"),
        (KeyError("of the host"), "host"),
    ],
)
def test_a_run_is_noted_by_how_it_ended(
    recorder: Recorder, error: BaseException | None, outcome: str
) -> None:
    note_run("monty", error, 0.5)
    labels = {"sandbox": "monty", "outcome": outcome}
    value = recorder.registry.get_sample_value
    assert value("gossamer_sandbox_run_duration_seconds_count", labels) == 1
    assert value("gossamer_sandbox_run_duration_seconds_sum", labels) == 0.5


def test_waits_and_starts_are_noted(recorder: Recorder) -> None:
    recorder.sandbox_waited("bubblewrap", 2)
    recorder.sandbox_started("bubblewrap")
    recorder.sandbox_started("bubblewrap")
    value = recorder.registry.get_sample_value
    assert value("gossamer_sandbox_wait_seconds_sum", {"sandbox": "bubblewrap"}) == 2
    assert value("gossamer_sandbox_starts_total", {"sandbox": "bubblewrap"}) == 2
    assert value("gossamer_sandbox_starts_total", {"sandbox": "monty"}) is None


def test_nothing_is_noted_while_metrics_are_off() -> None:
    note_run("monty", None, 0.5)
