"""Examples of docs/vector-stores.md: each store returns the rows that `search` returns."""

from __future__ import annotations

import re
import shutil
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embedpack import Embeddings, search
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import quantize, unit
from tests.helpers.tiny_pack import TINY_PACK

PAGE = (Path(__file__).parents[2] / "docs" / "vector-stores.md").read_text("utf-8")
INSTALL = {
    "faiss": "faiss-cpu",
    "sqlite_vec": "sqlite-vec",
    "qdrant_client": "qdrant-client",
    "sentence_transformers": "sentence-transformers",
}
START, *SECTIONS = re.findall(
    r"(?:^## ([^\n]*)\n(?:(?!^## ).)*?)?^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
)
EXAMPLES = dict(SECTIONS)
CODED = ["Binary codes and rescoring", "sentence-transformers"]


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Names after the first example of the page, with the tiny pack in place of packs/minilm."""
    shutil.copytree(TINY_PACK, tmp_path / "packs" / "minilm")
    monkeypatch.chdir(tmp_path)
    defined: dict[str, Any] = {}
    exec(START[1], defined)
    return defined


def run(section: str, names: dict[str, Any]) -> list[int]:
    """Nearest rows of an example; the test is skipped where its package is not installed."""
    code = EXAMPLES[section]
    for module in re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE):
        pytest.importorskip(module, reason=f"needs pip install {INSTALL.get(module, module)}")
    if "enable_load_extension" in code and not hasattr(sqlite3.Connection, "enable_load_extension"):
        pytest.skip("needs a Python whose sqlite3 loads extensions")
    with warnings.catch_warnings():
        # Deprecations within these packages.
        warnings.simplefilter("ignore")
        exec(code, names)
    rows: list[int] = names["rows"]
    return rows


def test_every_example_is_found() -> None:
    assert list(EXAMPLES) == ["numpy and lists", "faiss", "usearch", "sqlite-vec", "Qdrant", "LanceDB", *CODED]


@pytest.mark.parametrize("section", [name for name in EXAMPLES if name not in CODED])
def test_a_store_returns_the_rows_of_search(section: str, names: dict[str, Any]) -> None:
    expected = search(names["query"], names["documents"], 2).indices[0].tolist()
    assert run(section, names) == expected


def anisotropic(count: int, seed: int) -> npt.NDArray[np.float32]:
    """Unit vectors around one direction, of uneven spread, as those of many models."""
    rng = np.random.default_rng(seed)
    common = np.random.default_rng(99).standard_normal(64)
    return unit((rng.standard_normal((count, 64)) * np.geomspace(1, 0.1, 64) + common).astype(np.float32))


class Model:
    """Embedder of given vectors: texts are row numbers."""

    def __init__(self, vectors: npt.NDArray[np.float32]) -> None:
        rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((64, 64)))[0].astype(np.float32)
        center = Codebook.gaussian(np.zeros(64, np.float32), 0.1, (rotation,)).rotate(vectors.mean(0)[None])[0]
        self._book, self._vectors = Codebook.gaussian(center, float(vectors.std()), (rotation,)), vectors

    def encode(self, texts: list[int], *, prompt_name: str, precision: str) -> Embeddings:
        assert (prompt_name, precision) == ("passage", "binary")
        return Embeddings(quantize(self._vectors[texts], "binary", self._book), "binary", 64, "s", codebook=self._book)


@pytest.mark.parametrize("section", CODED)
def test_queries_in_code_space_find_what_float_queries_miss(section: str) -> None:
    """Recall of the two nearest among 400: nearly that of search with in_code_space, hardly any without."""
    documents = anisotropic(400, seed=1)
    texts, model = list(range(len(documents))), Model(documents)
    coded = model.encode(texts, prompt_name="passage", precision="binary")
    found, own, plain = 0, 0, 0
    for vector in anisotropic(60, seed=2):
        query = Embeddings(vector[None], "float32", 64, "s")
        exact = set(search(query, Embeddings(documents, "float32", 64, "s"), 2).indices[0].tolist())
        names = {"np": np, "model": model, "texts": texts, "query": query}
        found += len(exact & set(run(section, names)))
        own += len(exact & set(search(query, coded, 2).indices[0].tolist()))
        signs = np.unpackbits(coded.codes, axis=1).astype(np.float32) * 2 - 1
        plain += len(exact & set(np.argsort(-(signs @ vector))[:2].tolist()))
    assert found >= 0.75 * own
    assert plain <= 0.25 * own
