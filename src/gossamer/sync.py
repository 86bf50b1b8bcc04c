"""Runs from code that is not async, on one background event loop a process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from threading import Lock, Thread, get_ident
from typing import Any, TypeVar

from gossamer.errors import ArgumentError
from gossamer.holding import running_loop

__all__ = ["run_blocking"]

T = TypeVar("T")


class _Background:
    """An event loop in a daemon thread, started at the first use."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: Thread | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        with self.lock:
            if self.loop is None:
                self.loop = _new_loop()
                self.thread = Thread(target=self.loop.run_forever, name="gossamer-loop", daemon=True)
                self.thread.start()
            return self.loop

    def runs_here(self) -> bool:
        return self.thread is not None and self.thread.ident == get_ident()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


_background = _Background()


def _renew() -> None:
    global _background  # noqa: PLW0603 - a forked child does not have its parent's thread
    _background = _Background()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def run_blocking(
    start: Callable[[], Coroutine[Any, Any, T]], loop: asyncio.AbstractEventLoop | None = None
) -> T:
    """Run a coroutine on the background loop, or on another one, and wait for it.

    Args:
        start: makes the coroutine; called on the loop, with the caller's context variables.
        loop: the loop of a hub in which the agent takes part; None for the background loop.

    Returns:
        What the coroutine returns.

    Raises:
        ArgumentError: called on the loop itself, which would wait for itself forever.
        KeyboardInterrupt: Ctrl-C was pressed; the coroutine has been cancelled and has cleaned up.
    """
    if loop is not None:
        if loop is running_loop():
            raise ArgumentError(
                "run_sync was called on the event loop of the hub in which the agent takes part; await run() there"
            )
    elif (loop := _background.get()) and _background.runs_here():
        raise ArgumentError(
            "run_sync was called on Gossamer's own event loop, by an inline or async tool perhaps; await run() there"
        )
    outcome: Future[T] = Future()
    tasks: list[asyncio.Task[T]] = []

    def begin() -> None:
        try:
            task = loop.create_task(start())
        except BaseException as error:  # noqa: BLE001 - the caller waits, and must hear of it
            outcome.set_exception(error)
            return
        tasks.append(task)
        task.add_done_callback(settle)

    def settle(task: asyncio.Task[T]) -> None:
        if task.cancelled():
            outcome.cancel()
            outcome.set_running_or_notify_cancel()
        elif (error := task.exception()) is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(task.result())

    def stop() -> None:
        for task in tasks:
            task.cancel()
        if not tasks and outcome.cancel():  # the signal came before the loop had been told to begin
            outcome.set_running_or_notify_cancel()

    try:
        loop.call_soon_threadsafe(begin)
        return outcome.result()
    except KeyboardInterrupt:
        loop.call_soon_threadsafe(stop)
        wait((outcome,))
        raise
