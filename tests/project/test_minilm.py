"""The default model with its real weights, on real texts, against the torch reference with the adapter unmerged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedpack import Embedder
from embedpack.errors import CheckpointError
from embedpack.inputs.text_files import read_texts
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import make_plan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.torch.text_model import TextModel
from embedpack_export.sources.minilm import minilm_folder
from tests.helpers.documents import python_blocks
from tests.helpers.tiny_pack import TINY_RERANKER

DATA = Path(__file__).parents[2] / "export/embedpack_export/data"
TEXTS = read_texts(str(DATA / "demo-corpus" / "corpus.jsonl")).texts[:500]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ExportSettings:
    try:
        checkpoint = minilm_folder()
    except CheckpointError as missing:
        pytest.skip(f"no weights of all-MiniLM-L6-v2: {missing}; `embedpack demo` downloads them to the cache")
    folder = tmp_path_factory.mktemp("minilm")
    # A sixth of the shipped calibration texts: faster to export, and no easier to come close with.
    calibration = folder / "calibration.jsonl"
    calibration.write_text(
        "".join((DATA / "calibration.jsonl").read_text("utf-8").splitlines(keepends=True)[::6]), "utf-8"
    )
    settings = ExportSettings(
        checkpoint=checkpoint,
        output=folder / "packs" / "minilm",
        adapters={"retrieval": DATA / "default-model"},
        weights=("fp32", "int8"),
        calibrate=calibration,
    )
    export(settings)
    return settings


@pytest.fixture(scope="module")
def reference(settings: ExportSettings) -> np.ndarray:
    plan = make_plan(settings)
    model = TextModel.load(plan, "retrieval")
    return model.encode(TEXTS, plan.tasks["retrieval"].prompts["passage"])


def distances(settings: ExportSettings, weights: str, reference: np.ndarray) -> np.ndarray:
    """1 - cosine of each text's vector to the reference."""
    vectors = Embedder(settings.output, weights=weights).encode(TEXTS, prompt_name="passage").decode()
    exact = reference.astype(np.float64)
    cosines = (
        (exact * vectors).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(vectors.astype(np.float64), axis=1)
    )
    return 1 - cosines


def test_fp32_equals_the_reference(settings: ExportSettings, reference: np.ndarray) -> None:
    assert distances(settings, "fp32", reference).max() <= 1e-6


def test_int8_is_close_to_the_reference(settings: ExportSettings, reference: np.ndarray) -> None:
    found = distances(settings, "int8", reference)
    assert found.mean() <= 1 - 0.999
    assert np.quantile(found, 0.99) <= 1 - 0.998


def test_a_text_alone_and_in_a_batch_has_the_same_vector(settings: ExportSettings) -> None:
    for weights in settings.weights:
        model = Embedder(settings.output, weights=weights)
        texts = TEXTS[:40]
        together = model.encode(texts).decode().astype(np.float64)
        alone = np.concatenate([model.encode(text).decode() for text in texts]).astype(np.float64)
        assert (
            1 - (together * alone).sum(1) / np.linalg.norm(together, axis=1) / np.linalg.norm(alone, axis=1)
        ).max() <= 1e-6


def test_int8_pack_is_small(settings: ExportSettings) -> None:
    manifest = Embedder(settings.output).pack.manifest
    sizes = {
        name: sum(manifest.files[file].bytes for file in (item.graph, *item.external_data))
        for name, item in manifest.variants.items()
    }
    assert sizes["retrieval-int8"] <= 0.3 * sizes["retrieval-fp32"]


def test_the_code_of_the_documents_runs(settings: ExportSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = python_blocks("README.md")
    search, rerank, chunks, _, _ = python_blocks("docs/guide.md")
    monkeypatch.chdir(settings.output.parents[1])
    names: dict[str, Any] = {}
    exec(code.replace("print(", "scores = ("), names)
    assert names["scores"].argmax() == 0
    (printed,) = re.findall(r"# \[\[([\d. ]+)\]\]", code)
    np.testing.assert_allclose(names["scores"][0], np.array(printed.split(), float), atol=0.1)
    exec(search, names)
    assert names["hits"].indices.tolist() == [[0, 1]]
    Path("packs/reranker").symlink_to(TINY_RERANKER)
    exec(rerank, names)
    assert names["scores"].argmax() == names["best"][0].index
    exec(chunks, names)
    assert (len(names["chunks"]), len(names["many"])) == (2, 3)
