"""What holds for every test: nothing blocks an event loop, no task and no thread is left behind."""

from __future__ import annotations

import pytest
from tests.watch import Watch, install

_WATCH = install()


@pytest.fixture(autouse=True)
def watch() -> Watch:
    """Fail a test that blocks a loop out of Gossamer's code, or leaks tasks or threads of it.

    A test that provokes this on purpose reads `watch.blocked` or `watch.leaked_tasks` and clears it.
    """
    _WATCH.begin()
    yield _WATCH
    complaints = _WATCH.complaints()
    assert not complaints, "\n".join(complaints)
