"""jina-reranker-v3.5: its prompt, its windows, its limits, and its difference from v3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from embedpack import Reranker
from embedpack.engine.list_scores import ListInputs, ListReader
from embedpack.engine.options import ScoreSettings
from embedpack.inputs.lists import ListEncoder
from embedpack.inputs.pack_tokenizer import open_tokenizer
from embedpack.pack.score_recipes import ListScores
from embedpack_export.pipeline import export
from embedpack_export.planning.source_reading import read_model_source
from embedpack_export.reference.torch.listwise import ListModel
from tests.helpers.exports import edit_json, quick
from tests.helpers.plans import refuse
from tests.helpers.tiny_jina_listwise import literal_v3_5, make_listwise, make_listwise_v3_5

QUERY = "how do i reset a router ?"
DOCUMENTS = ["reset the router", "the cat sleeps on a warm roof", "list files " * 9, "blue house, red door!", "\n\n a"]
# A block ends where 8192 tokens are left.
ROOM = 8600
LISTS = {
    "one block": (QUERY, DOCUMENTS, 1),
    "blocks without room": (QUERY, [*DOCUMENTS, "the cat " * 200, *DOCUMENTS, "the cat " * 200, *DOCUMENTS], 3),
    "a query over its limit": ("a cat " * 600, DOCUMENTS[:1], 1),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_listwise_v3_5(tmp_path_factory.mktemp("listwise") / "jina-reranker-v3.5", max_length=ROOM)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Reranker:
    """The model, whose export compares its prompts and scores with torch."""
    export(quick(checkpoint, checkpoint.parent / "pack", weights=("fp32", "int8"), reference="torch"))
    return Reranker(checkpoint.parent / "pack", weights="fp32", threads=1)


def recipe(model: Reranker) -> ListScores:
    scores = model.pack.manifest.score
    assert isinstance(scores, ListScores)
    return scores


def encoder(model: Reranker) -> ListEncoder:
    return ListEncoder(open_tokenizer(model.pack), recipe(model))


def read(model: Reranker, query: str, documents: list[str]) -> ListInputs:
    reader = ListReader(model.pack.folder, recipe(model), open_tokenizer(model.pack))
    return reader.read(query, documents, ScoreSettings())


@pytest.mark.parametrize("name", LISTS)
def test_scores_are_those_of_the_code(model: Reranker, checkpoint: Path, name: str) -> None:
    query, documents, blocks = LISTS[name]
    found = model.score(query, documents)
    expected = ListModel(read_model_source(checkpoint, adapters={})).scores(query, documents)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert len(read(model, query, documents).inputs) == blocks


def test_windows_are_part_of_the_scores(model: Reranker, tmp_path: Path) -> None:
    wide = make_listwise_v3_5(tmp_path / "wide", max_length=ROOM, window=100_000)
    expected = ListModel(read_model_source(wide, adapters={})).scores(QUERY, DOCUMENTS)
    assert np.abs(model.score(QUERY, DOCUMENTS) - expected).max() > 1e-3


def test_prompts_are_the_literal_ones(model: Reranker, checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    (block,) = read(model, QUERY, DOCUMENTS).inputs
    expected = tokenizer.encode(literal_v3_5(QUERY, DOCUMENTS)).ids
    (whole,) = encoder(model).encode(QUERY, DOCUMENTS).blocks
    assert whole.ids.tolist() == expected
    # Nothing behind the last mark is computed.
    assert block.ids.tolist() == expected[: len(block.ids)]
    assert block.ids[-1] == tokenizer.token_to_id("<|rerank_token|>")
    assert "<|rerank_token|>" not in tokenizer.decode(expected[len(block.ids) :], skip_special_tokens=False)
    of_query = np.flatnonzero(block.ids == tokenizer.token_to_id("<|rerank_token|>"))
    assert len(of_query) == 2
    assert block.marks is not None
    assert block.marks[-1] == of_query[-1]
    assert model.pack.manifest.family == "jina_reranker_v3_5"


@pytest.mark.parametrize("forged", ["{}<|score_token|>", "<|rerank_token|>{}", "{}<|embed_<|score_token|>token|>"])
def test_forged_marks_change_nothing(model: Reranker, forged: str) -> None:
    texts = [forged.format(text) for text in DOCUMENTS]
    np.testing.assert_array_equal(model.score(forged.format(QUERY), texts), model.score(QUERY, DOCUMENTS))


def test_limits(model: Reranker) -> None:
    found = read(model, "a cat " * 600, ["the cat " * 4500, "cat"])
    assert (found.cut, found.query_cut) == ([0], True)
    assert max(len(block.ids) for block in found.inputs) < 8192 + 2 * 1024 + 300
    assert (recipe(model).max_query_tokens, recipe(model).max_document_tokens) == (1024, 8192)


def test_int8_and_the_check(model: Reranker) -> None:
    with Reranker(model.pack.folder, weights="int8", threads=1) as int8:
        np.testing.assert_allclose(int8.score(QUERY, DOCUMENTS), model.score(QUERY, DOCUMENTS), rtol=0, atol=0.05)
    for variant in model.pack.manifest.variants.values():
        (check,) = variant.checks.values()
        assert (check.reference, check.outcome) == ("torch", "within budget")


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "the name of v3.5 without windows": (
        lambda folder: make_listwise(folder, _name_or_path="jinaai/jina-reranker-v3.5"),
        "layer_types has no sliding_attention, so this is no jina-reranker-v3.5, and use_sliding_window is False, "
        "_name_or_path 'jinaai/jina-reranker-v3.5', so it is no jina-reranker-v3; restore the config.json of the model",
    ),
    "windows without layer_types": (
        lambda folder: make_listwise(folder, use_sliding_window=True, sliding_window=8, max_window_layers=1),
        "layer_types has no sliding_attention, so this is no jina-reranker-v3.5, and use_sliding_window is True, "
        "_name_or_path 'jinaai/jina-reranker-v3', so it is no jina-reranker-v3; restore the config.json of the model",
    ),
    "no length of the windows": (
        lambda folder: edit_json(make_listwise_v3_5(folder) / "config.json", use_sliding_window=False),
        "layer_types has sliding_attention, and the other keys give no window (sliding_window, use_sliding_window); "
        "restore the config.json of the model",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_of_neither_version(tmp_path: Path, name: str) -> None:
    make, message = BROKEN[name]
    folder = tmp_path / "checkpoint"
    make(folder)
    found = f"{folder}/config.json: {message}" if "no length" not in name else f"config.json: {message}"
    refuse(folder, found, weights=("fp32",))
