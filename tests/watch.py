"""What every test is watched for: calls that block an event loop, and tasks and threads that outlive the test."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from asyncio import events, runners
from time import monotonic, sleep

import gossamer
from gossamer.tools import thread_statistics

__all__ = ["Watch", "install"]

HOME = gossamer.__path__[0]

# Calls that wait for something outside of the process, as Python's audit events name them.
BLOCKING = frozenset(
    (
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "subprocess.Popen",
        "os.system",
        "sqlite3.connect",
    )
)

# A callback that is still the same after so many looks holds up the loop. Looks are counted, not seconds: on a busy
# machine the one who looks is slowed down as much as the loop is.
TICK = 0.02
MOST_TICKS = 50

# How long what has just been told to stop may take to do so, in seconds.
PATIENCE = 2.0

# Threads that may stay: those of synchronous tools are counted apart, the loop of run_sync is one a process.
LASTING = ("gossamer-tool", "gossamer-loop", "watch-loops", "asyncio_", "pydevd")


class Watch:
    """Takes notes while a test runs.

    Attributes:
        blocked: what blocked a loop.
        leaked_tasks: tasks that were there when their loop was closed.
        patience: how long tasks may take to end, in seconds; 0 where a test lets them last as long as their loop.
    """

    def __init__(self) -> None:
        self.patience = PATIENCE
        self.blocked: list[str] = []
        self.leaked_tasks: list[str] = []
        self.running: dict[int, tuple[object, int]] = {}
        self.threads = set(threading.enumerate())

    def begin(self) -> None:
        self.patience = PATIENCE
        self.blocked.clear()
        self.leaked_tasks.clear()
        self.threads = set(threading.enumerate())

    def complaints(self) -> list[str]:
        return [*self.blocked, *self.leaked_tasks, *_patiently(self._thread_complaints, PATIENCE)]

    def _thread_complaints(self) -> list[str]:
        new = set(threading.enumerate()) - self.threads
        complaints = [f"a thread is left: {one!r}" for one in new if not one.name.startswith(LASTING)]
        tools = thread_statistics()
        alive = sum(one.name == "gossamer-tool" for one in threading.enumerate())
        if tools.idle != tools.threads or tools.waiting or alive > tools.threads + tools.abandoned:
            complaints.append(
                f"a synchronous tool still runs, not counted as abandoned: {tools}, {alive} threads"
            )
        return complaints

    # --- blocking -------------------------------------------------------------------------------------------------

    def audit(self, event: str, arguments: tuple[object, ...]) -> None:
        """See a call that blocks; does nothing on a thread that runs no loop."""
        if event in BLOCKING and events._get_running_loop() is not None:
            self._note(f"{event}{arguments!r}"[:200], sys._getframe(1))

    def sleep(self, seconds: float) -> None:
        """Sleep in place of `time.sleep`, which has no audit event before Python 3.13."""
        if seconds and events._get_running_loop() is not None:
            self._note(f"time.sleep({seconds!r})", sys._getframe(1))
        sleep(seconds)

    def look(self) -> None:
        """Look again and again at what each loop does."""
        while True:
            sleep(TICK)
            self._look_once()  # nothing of what it looked at is held while it sleeps

    def _look_once(self) -> None:
        for thread, (handle, ticks) in list(self.running.items()):
            if ticks == MOST_TICKS:
                self._note(f"{handle!r} ran for {ticks} ticks", sys._current_frames().get(thread))
            if thread in self.running and self.running[thread][0] is handle:
                self.running[thread] = (handle, ticks + 1)

    def _note(self, what: str, frame: object) -> None:
        stack = traceback.extract_stack(frame)
        if any(line.filename.startswith(HOME) for line in stack):
            self.blocked.append(
                f"{what} blocked an event loop:\n{''.join(traceback.format_list(stack[-8:]))}"
            )

    def run_handle(self, handle: events.Handle) -> None:
        """Run a callback of asyncio's own loop, watched."""
        thread = threading.get_ident()
        self.running[thread] = (handle, 0)
        try:
            _run_handle(handle)
        finally:
            self.running.pop(thread, None)

    # --- tasks ----------------------------------------------------------------------------------------------------

    def cancel_all_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note Gossamer's tasks that are still there when a loop is about to be closed."""

        def left() -> list[str]:
            loop.run_until_complete(asyncio.sleep(0))
            return [f"a task is left: {task!r}" for task in asyncio.all_tasks(loop) if _is_ours(task)]

        self.leaked_tasks += _patiently(left, self.patience)
        _cancel_all_tasks(loop)


_run_handle = events.Handle._run
_cancel_all_tasks = runners._cancel_all_tasks


def _is_ours(task: asyncio.Task[object]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(HOME)


def _patiently(complaints, seconds: float) -> list[str]:
    deadline = monotonic() + seconds
    while (found := complaints()) and monotonic() < deadline:
        sleep(0.005)
    return found


def install() -> Watch:
    """Begin to watch; once a process."""
    watch = Watch()
    sys.addaudithook(watch.audit)
    events.Handle._run = lambda handle: watch.run_handle(handle)
    runners._cancel_all_tasks = watch.cancel_all_tasks
    time.sleep = watch.sleep
    threading.Thread(target=watch.look, name="watch-loops", daemon=True).start()
    return watch
