"""What can be seen of Gossamer from outside: metrics and logs. Off until asked for."""

from __future__ import annotations

from gossamer.telemetry.logging import setup_logger
from gossamer.telemetry.metrics import Recorder, disable_metrics, enable_metrics

__all__ = ["Recorder", "disable_metrics", "enable_metrics", "setup_logger"]
