"""The public API keeps its types."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def check(*paths):
    run = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parent.parent,
        timeout=300,
    )
    return [
        f"{Path(found['file']).name}:{found['range']['start']['line'] + 1}: {found['message']}"
        for found in json.loads(run.stdout)["generalDiagnostics"]
    ]


def test_the_public_api_has_the_types_that_it_promises():
    assert check(HERE / "api.py") == []


def test_the_check_finds_what_is_wrong(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from typing import assert_type\nfrom gossamer import Agent\n"
        'assert_type(Agent("offline").run_sync("hi").output, int)\n'
    )
    (found,) = check(wrong)
    assert found.startswith("wrong.py:3: ")
