"""jina-colbert-v2 against transformers' class of its tower and a few lines of numpy."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from embedpack import CheckpointError, Embedder, maxsim
from embedpack.pack.folder import read_pack
from embedpack.vectors.arrays import Float32
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import make_plan
from embedpack_export.planning.settings import ExportSettings
from tests.helpers.accuracy_check import many_texts
from tests.helpers.exports import distance, edit_json, read_tensors
from tests.helpers.tiny_jina_colbert import MARKERS, make_jina_colbert

QUERIES = ["the cat", "a", "find the roof query " * 20]
DOCUMENTS = ["the cat, on the roof!", "a [QueryMarker] query </s> <mask>", "find; the: cat? " * 20, "..."]


class Judge:
    """The published computation, in the ids of the tokenizer's file: one text at a time."""

    def __init__(self, folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        rope = {"rope_type": "default", "rope_theta": content["rotary_emb_base"]}
        sizes = {key: value for key, value in content.items() if isinstance(value, int) and key.endswith("_size")}
        sizes |= {key: content[key] for key in ("num_hidden_layers", "num_attention_heads", "max_position_embeddings")}
        config = AutoConfig.for_model("jina_embeddings_v3", **sizes, pad_token_id=1, rope_parameters=rope)
        self.model: Any = AutoModel.from_pretrained(folder, config=config, dtype=torch.float32).eval()
        self.matrix = read_tensors(folder / "model.safetensors")["linear.weight"].astype(np.float64)
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        self.ids = {piece: row for row, (piece, _) in enumerate(tokenizer["model"]["vocab"])}
        self.ids |= {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}

    def vectors(self, ids: list[int]) -> Float32:
        with torch.inference_mode():
            states = self.model(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64)).last_hidden_state
        projected = states[0].double().numpy() @ self.matrix.T
        return (projected / np.linalg.norm(projected, axis=1, keepdims=True)).astype(np.float32)

    def query(self, inner: list[int]) -> Float32:
        ids = [0, self.ids["[QueryMarker]"], *inner[:29], 2]
        return self.vectors(ids + [self.ids["<mask>"]] * (32 - len(ids)))

    def document(self, inner: list[int]) -> Float32:
        ids = [0, self.ids["[DocumentMarker]"], *inner[:57], 2]
        skipped = {self.ids.get(symbol, self.ids["<unk>"]) for symbol in string.punctuation}
        return self.vectors(ids)[[number not in skipped for number in ids]]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ExportSettings:
    root = tmp_path_factory.mktemp("jina-colbert")
    folder = make_jina_colbert(root / "model")
    made = ExportSettings(
        checkpoint=folder, output=root / "pack", calibrate=many_texts(root, 18), weights=("fp32", "int8"), max_loss=40.0
    )
    export(made)
    return made


def test_vectors_are_those_of_the_published_computation(settings: ExportSettings) -> None:
    judge, model = Judge(settings.checkpoint), Embedder(settings.output, weights="fp32")
    plain = model._encoder.processor.tokenizer
    for side, texts, expected in (("query", QUERIES, judge.query), ("document", DOCUMENTS, judge.document)):
        found = model.encode_multi(texts, prompt_name=side)
        for text, vectors in zip(texts, found.decode(), strict=True):
            inner = plain.encode([text], "")[0].ids.tolist()[1:-1]
            own = expected(inner)
            # No text has a marker or another special token.
            assert not {*inner} & {0, 1, 2, judge.ids["<mask>"], *map(judge.ids.get, MARKERS)}
            assert len(vectors) == len(own)
            assert distance(vectors, own) <= 1e-6
        assert side == "document" or found.counts.tolist() == [32] * len(texts)


def test_truncations_and_order(settings: ExportSettings) -> None:
    manifest = read_pack(settings.output).manifest
    assert manifest.family == "jina_colbert_v2"
    assert manifest.multi is not None
    assert manifest.multi.truncate_dims == (64, 96, 128)
    assert manifest.variants["default-fp32"].checks["default"].reference == "torch"
    model = Embedder(settings.output, weights="fp32")
    queries, documents = (model.encode_multi(texts, prompt_name=side) for side, texts in
                          (("query", QUERIES), ("document", DOCUMENTS)))  # fmt: skip
    for dims in (64, 96):
        cut = model.encode_multi(DOCUMENTS, prompt_name="document", truncate_dim=dims)
        for vectors, whole in zip(cut.decode(), documents.decode(), strict=True):
            assert distance(vectors, whole[:, :dims]) <= 1e-6
    expected = [[(q @ d.T).max(1).sum() for d in documents.decode()] for q in queries.decode()]
    np.testing.assert_allclose(maxsim(queries, documents), expected, rtol=1e-5)


def test_the_base_of_the_rotary_positions(settings: ExportSettings, tmp_path: Path) -> None:
    """The base of the model's code, where config.json has none."""
    folder = make_jina_colbert(tmp_path / "model")
    stated = make_plan(ExportSettings(checkpoint=folder, output=tmp_path / "pack"))
    edit_json(folder / "config.json", rotary_emb_base=None)
    default = make_plan(ExportSettings(checkpoint=folder, output=tmp_path / "pack"))
    bases = [plan.model.config_of_class["rope_parameters"] for plan in (stated, default) if plan.model.config_of_class]
    assert bases == [{"rope_type": "default", "rope_theta": base} for base in (700.0, 10_000.0)]
    edit_json(folder / "config.json", position_embedding_type="absolute")
    with pytest.raises(CheckpointError, match="position_embedding_type is 'absolute'; supported: rotary"):
        make_plan(ExportSettings(checkpoint=folder, output=tmp_path / "pack"))
