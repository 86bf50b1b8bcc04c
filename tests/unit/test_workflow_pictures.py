"""Pictures of workflows: what they show, and that names stay text."""

from __future__ import annotations

import asyncio
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer import (
    Agent,
    ArgumentError,
    Condition,
    HumanInput,
    Loop,
    Map,
    Parallel,
    Router,
    Step,
    Workflow,
)
from gossamer.errors import StepFailedError


def work(value):
    return value


def texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)
    return ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]


EVERYTHING = Workflow(
    "everything",
    [
        Step(work, name="first", fallback=Step(work, name="instead")),
        Agent("offline", name="bot"),
        Parallel({"left": work, "right": [Step(work, name="deep")]}),
        Condition(lambda value: True, work, Step(work)),
        Router(lambda value: "a", {"a": work, "b": HumanInput("Sure?")}, default=work),
        Loop(work, until=lambda value: True, max_iterations=7, name="again"),
        Loop(work, max_iterations=3),
        Map(work, max_concurrency=4),
        Workflow("inner", [work]),
    ],
)


def test_a_picture_shows_every_step():
    picture = EVERYTHING.visualize()
    shown = texts(picture.svg)
    for words in (
        "first", "instead", "fallback", "bot", "parallel", "deep", "condition", "yes", "no", "router", "a", "b",
        "default", "Sure?", "again: up to 7 times", "until", "loop: 3 times", "map: each item, 4 at once", "inner",
        "input", "output",
    ):  # fmt: skip
        assert words in shown, words
    assert picture._repr_svg_() == picture.svg
    assert not re.search(r"\d (ms|s|µs)", picture.svg)
    for node in EVERYTHING.plan.nodes:
        if node.kind in {"step", "agent", "human", "workflow"}:
            assert f"n{node.index}" in picture.mermaid
    assert picture.mermaid.startswith("flowchart TD\n")
    assert picture.mermaid.count("subgraph") == picture.mermaid.count("    end\n") == 6


async def test_a_picture_of_a_run_has_its_times_and_outcomes():
    async def slow(value):
        await asyncio.sleep(0.002)
        return value

    async def fails(value):
        raise OSError

    workflow = Workflow(
        "w",
        [
            Map(slow, name="each"),
            Step(fails, fallback=Step(work)),
            HumanInput("Go on?"),
            Step(work, name="last"),
        ],
    )
    result = await workflow.run([1, 2, 3])
    picture = workflow.visualize(result)
    shown = texts(picture.svg)
    assert any(re.fullmatch(r"\d+\.\d ms, 3 runs", words) for words in shown)
    assert any(words.endswith("1 failed") for words in shown)
    assert "waiting" in shown
    assert "not run" in shown
    assert re.search(r'n\d+\["slow<br/>[\d.]+ ms, 3 runs"\]:::done', picture.mermaid)
    assert re.search(r'\["fails<br/>\S+ \S+, 1 failed"\]:::failed', picture.mermaid)
    assert re.search(r"<br/>waiting.*:::waiting", picture.mermaid)
    with pytest.raises(ArgumentError, match="one of workflow 'everything', and this is not"):
        EVERYTHING.visualize(result)
    with pytest.raises(ArgumentError):
        workflow.visualize("result")


async def test_a_picture_of_a_run_that_failed():
    async def fails(value):
        raise OSError

    workflow = Workflow("w", [Step(work, name="first"), Loop(fails, name="again"), Step(work, name="last")])
    with pytest.raises(StepFailedError) as caught:
        await workflow.run(1)
    outcomes = {place: step.outcome for place, step in caught.value.steps.items()}
    assert outcomes == {"first": "done", "again": "failed", "again/fails": "failed", "last": "not_run"}
    mermaid = workflow.visualize(caught.value).mermaid
    assert ":::failed" in mermaid
    assert ":::not_run" in mermaid


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4))
def test_hostile_names_stay_text(words):
    picture = Workflow("w", [HumanInput(question) for question in words]).visualize()
    root = ET.fromstring(picture.svg)
    assert {element.tag.partition("}")[2] for element in root.iter()} <= {
        "svg", "title", "defs", "marker", "path", "rect", "text",
    }  # fmt: skip
    for line in picture.mermaid.splitlines():
        label = re.fullmatch(r'    n\d+\[/"(.*)"/\]', line)
        if label:
            assert not set(label[1]) & set('"<>&`|{}[]\\;%') - {";"}
            assert re.fullmatch(r"([\w _\-.,:!?()+]|#\d+;|[^\x00-\x7f])*", label[1]), label[1]


async def test_markup_in_names_is_escaped():
    hostile = ['"} click n1 "x"', "<script>alert(1)", "a|b--> c", "`code` %%{init}%%", "&amp;quot;", "end"]
    workflow = Workflow(
        "<b>", [Parallel(dict.fromkeys(hostile, work)), Router(lambda v: "end", dict.fromkeys(hostile, work))]
    )
    picture = workflow.visualize(await workflow.run(1))
    assert "<script>" not in picture.svg
    assert "<script>" not in picture.mermaid
    assert '"} click' not in picture.mermaid
    assert "&lt;script&gt;alert(1)" in picture.svg
    assert "%%{" not in picture.mermaid
    assert "#60;script#62;" in picture.mermaid
