"""Every Python block of the documentation runs, and prints what its `# >` lines say."""

import ast
import contextlib
import inspect
import io
import re
from pathlib import Path

import pytest

import gossamer.models.prices
from gossamer.models import PRESETS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def expected(block: str) -> list[str]:
    return [line.removeprefix("# > ") for line in block.splitlines() if line.startswith("# > ")]


def test_expected_lines_are_found() -> None:
    """The formatter rewrites comments: whatever else they become, they must not stop being compared."""
    assert sum(len(expected(block)) for page in PAGES for block in BLOCK.findall(page.read_text())) > 40
    assert not [page.name for page in PAGES if re.search(r"^#>", page.read_text(), re.MULTILINE)]


@pytest.fixture
def own_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page adds to the prices of the process is gone behind it."""
    monkeypatch.setattr(gossamer.models.prices, "_added", {})


@pytest.fixture
def services(page: Path, request: pytest.FixtureRequest) -> None:
    """Skip a page that needs what this machine does not have."""
    if "BubblewrapSandbox(" in "".join(BLOCK.findall(page.read_text())):
        request.getfixturevalue("bubblewrap")


@pytest.mark.usefixtures("own_prices", "services")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
async def test_code_blocks(page: Path) -> None:
    namespace: dict = {"__name__": f"docs_{page.stem}"}
    for match in BLOCK.finditer(page.read_text()):
        block = match.group(1)
        line = page.read_text()[: match.start()].count("\n") + 1
        code = compile("\n" * line + block, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            value = eval(code, namespace)
            if inspect.iscoroutine(value):
                await value
        if expected(block):
            lines = [text.rstrip() for text in printed.getvalue().splitlines()]
            assert lines == [text.rstrip() for text in expected(block)], f"{page.name}, line {line}"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_metric_is_listed() -> None:
    source = (ROOT / "src/gossamer/telemetry/metrics.py").read_text()
    metrics = set(re.findall(r'"(gossamer_[a-z_]+)"', source))
    assert len(metrics) > 10
    assert metrics == set(
        re.findall(r"^\| `(gossamer_\w+)`", (ROOT / "docs/telemetry.md").read_text(), re.MULTILINE)
    )


def test_every_provider_is_listed() -> None:
    cells = [line.split("|")[1:-1] for line in (ROOT / "docs/models.md").read_text().splitlines()]
    rows = {row[0].strip(" `"): row[1:] for row in cells if len(row) == 4}
    for name, preset in PRESETS.items():
        key, url, _ = rows[name]
        assert re.findall(r"`(\w+)`", key) == list(preset.key_envs), name
        assert re.findall(r"`(\w+)`", url) == ([preset.url_env] if preset.url_env else []), name


def test_the_house_names_every_room() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"\w+", page[page.index("```text\nerrors.py") : page.index("## Journal")]))
    source = ROOT / "src/gossamer"
    rooms = {path.stem for path in [*source.iterdir(), *(source / "models").glob("*.py")]}
    rooms = {room for room in rooms if not room.startswith("__") and not room.endswith("_request")}
    assert rooms - {"py"} <= named, rooms - named
