"""What holds for every test: nothing blocks an event loop, no task and no thread is left behind."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tests.watch import Watch, install

_WATCH = install()

# The clients of providers read all certificates of a machine whenever one is made, though a test asks no host of the
# world: here they find one.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("one_certificate.pem"))

# How quick a machine is says nothing about what it tests.
settings.register_profile("gossamer", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gossamer")


@pytest.fixture(autouse=True)
def watch() -> Watch:
    """Fail a test that blocks a loop out of Gossamer's code, or leaks tasks or threads of it.

    A test that provokes this on purpose reads `watch.blocked` or `watch.leaked_tasks` and clears it.
    """
    _WATCH.begin()
    yield _WATCH
    complaints = _WATCH.complaints()
    assert not complaints, "\n".join(complaints)


def pytest_collection_finish() -> None:
    """Leave modules and tests out of garbage collection, from now on.

    They are many and stay to the end; a test that asks for a collection would have each of them looked at.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable():
    """Escape the half characters of a report that goes from a worker to the process that shows it.

    Tests log and compare text that is not valid Unicode; as it is, it could not be sent, and the worker would end.
    """
    return _sendable((yield))


def _sendable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_sendable(key): _sendable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_sendable(one) for one in value)
    return value
