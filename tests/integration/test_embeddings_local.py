"""Embeddings in this process, by the real sentence-transformers on a tiny model with random weights."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import subprocess
import sys
import threading

import pytest

from gossamer import ArgumentError, Usage
from gossamer.models.embeddings import Batching, Embedder, SentenceTransformersEmbedder, embedder

INSTALLED = importlib.util.find_spec("sentence_transformers") is not None
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "cats",
    "dogs",
    "purr",
    "bark",
    "query",
    ":",
    "at",
    "night",
]

needs_extra = pytest.mark.skipif(not INSTALLED, reason="needs the extra: pip install 'gossamer[local]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with random weights: 16 values a vector, and a prompt of its own for queries."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own
        from sentence_transformers import SentenceTransformer, models
        from transformers import BertConfig, BertModel, BertTokenizerFast

        place = tmp_path_factory.mktemp("model")
        tokenizer = BertTokenizerFast(vocab={word: place for place, word in enumerate(WORDS)})
        config = BertConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=32,
        )
        BertModel(config).save_pretrained(place / "bert")
        tokenizer.save_pretrained(place / "bert")
        bert = models.Transformer(str(place / "bert"))
        whole = SentenceTransformer(
            modules=[bert, models.Pooling(16)], device="cpu", prompts={"query": "query : ", "document": ""}
        )
        whole.save(str(place / "whole"))
    return str(place / "whole")


@needs_extra
@pytest.mark.filterwarnings("ignore")
async def test_vectors_in_order(folder):
    model = SentenceTransformersEmbedder(
        folder, device="cpu", batching=Batching(max_texts=2, max_concurrent=1)
    )
    assert isinstance(model, Embedder)
    texts = ["cats purr", "dogs bark", "dogs bark at night", "cats purr"]
    found = await model.embed(texts)
    assert {(vector.typecode, len(vector)) for vector in found.vectors} == {("f", 16)}
    assert list(found.vectors[0]) == pytest.approx(list(found.vectors[3]), abs=1e-5)
    assert list(found.vectors[0]) != pytest.approx(list(found.vectors[1]), abs=1e-3)
    [alone] = (await model.embed([texts[2]])).vectors
    assert list(found.vectors[2]) == pytest.approx(list(alone), abs=1e-5)
    assert found.usage == Usage(model_calls=2)  # nobody is paid for it


@needs_extra
@pytest.mark.filterwarnings("ignore")
async def test_a_query_is_told_apart(folder):
    model = SentenceTransformersEmbedder(folder, device="cpu", normalize=True, dimensions=8)
    [document] = (await model.embed(["cats purr"])).vectors
    [query] = (await model.embed(["cats purr"], "query")).vectors
    [worded] = (await model.embed(["query : cats purr"])).vectors
    assert len(query) == 8
    assert math.hypot(*query) == pytest.approx(1, abs=1e-5)
    assert list(query) == pytest.approx(list(worded), abs=1e-5)
    assert list(query) != pytest.approx(list(document), abs=1e-3)


@needs_extra
@pytest.mark.filterwarnings("ignore")
async def test_the_loop_stays_free_while_the_model_loads_and_computes(folder):
    model = SentenceTransformersEmbedder(folder, device="cpu")
    task = asyncio.create_task(model.embed(["cats purr"] * 50))
    turns = 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert turns > 1
    assert len((await task).vectors) == 50
    assert any(thread.name.startswith("gossamer-embed") for thread in threading.enumerate())


@needs_extra
@pytest.mark.filterwarnings("ignore")
async def test_a_cancelled_call_leaves_the_model_usable(folder):
    model = SentenceTransformersEmbedder(folder, device="cpu")
    task = asyncio.create_task(model.embed(["cats"]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len((await model.embed(["dogs", "cats"])).vectors) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_a_thread_of_its_own():
    """Tried in a process apart, with a model that is not there: it fails in the thread, or waits for ever."""
    script = """
import asyncio, os, sys, warnings
from gossamer.models.embeddings import SentenceTransformersEmbedder
warnings.simplefilter("ignore")
model = SentenceTransformersEmbedder("/there/is/no/such/model", device="cpu")

async def fails():
    try:
        await asyncio.wait_for(model.embed(["cats"]), 20)
    except TimeoutError:
        return False
    except Exception:
        return True
    return False

assert asyncio.run(fails())
child = os.fork()
if child == 0:
    os._exit(0 if asyncio.run(fails()) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=120, check=False).returncode == 0


@needs_extra
@pytest.mark.filterwarnings("ignore")
async def test_a_model_that_is_not_there(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArgumentError, match="cannot load"):
        await SentenceTransformersEmbedder(str(tmp_path), device="cpu").embed(["a"])


def test_by_name():
    model = embedder("local:some/model")
    assert isinstance(model, SentenceTransformersEmbedder)
    assert (model.name, model.provider) == ("some/model", "local")


@pytest.mark.skipif(INSTALLED, reason="the extra is installed")
async def test_without_the_extra():
    with pytest.raises(ArgumentError, match=r"pip install 'gossamer\[local\]'"):
        await SentenceTransformersEmbedder("some/model").embed(["a"])
