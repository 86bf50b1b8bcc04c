"""Identifiers: unique in threads, processes and forks; sortable."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from gossamer.ids import new_id

MAKE = "from gossamer.ids import new_id\nprint(*[new_id() for _ in range(100)])"


def test_ids_of_one_process_sort_in_the_order_of_their_making():
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {len(one) for one in made} == {33}


def test_ids_are_unique_across_threads():
    made: list[str] = []

    def make():
        made.extend([new_id() for _ in range(5_000)])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 40_000


def test_ids_are_unique_across_processes():
    runs = [
        subprocess.run([sys.executable, "-c", MAKE], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    made = " ".join(run.stdout for run in runs).split()
    assert len(set(made)) == 300


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_ids_are_unique_across_forks():
    program = (
        "import os, sys\nfrom gossamer.ids import new_id\nnew_id()\n"
        "child = os.fork()\nif child:\n    os.waitpid(child, 0)\n"
        "print(*[new_id() for _ in range(100)], flush=True)\nos._exit(0)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert len(set(run.stdout.split())) == 200
