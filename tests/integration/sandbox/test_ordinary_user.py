"""The suites of sandboxes again, as a user of this machine who has nothing: root runs them by themselves."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SUITES = ("test_hostile.py", "test_bubblewrap.py", "test_bubblewrap_defects.py")
USER = 61_234


def opened(folders: set[Path]) -> str:
    """Give what a shell does, in mounts of its own, so that everybody can enter some folders; nothing else changes."""
    lines: list[str] = []
    closed: dict[Path, list[Path]] = {}
    for folder in sorted(folders):
        barred = [one for one in reversed((folder, *folder.parents)) if not one.stat().st_mode & 0o001]
        if barred:
            closed.setdefault(barred[0], []).append(folder)
    for top, inside in closed.items():
        kept = [(f"/run/kept{number}", folder) for number, folder in enumerate(inside)]
        lines += [f"mkdir {at}; mount --bind {shlex.quote(str(folder))} {at}" for at, folder in kept]
        lines.append(f"mount -t tmpfs -o mode=755 none {shlex.quote(str(top))}")
        lines += [
            f"mkdir -p {shlex.quote(str(folder))}; mount --move {at} {shlex.quote(str(folder))}"
            for at, folder in kept
        ]
    return "\n".join(["set -e", "mount -t tmpfs none /run", *lines])


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs the suites themselves")
def test_the_suites_hold_for_an_ordinary_user():
    with tempfile.TemporaryDirectory() as home:
        os.chown(home, USER, USER)
        pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={home}/tests"]
        as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
        command = shlex.join([*as_user, *pytest_, *(f"tests/integration/sandbox/{name}" for name in SUITES)])
        done = subprocess.run(
            [
                *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
                f"{opened({ROOT, Path(sys.prefix), Path(sys.base_prefix)})}\nexec {command}",
            ],
            cwd=ROOT,
            env={**os.environ, "HOME": home, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "%]" in done.stdout
    assert "skipped" not in done.stdout
