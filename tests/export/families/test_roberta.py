"""RoBERTa and CamemBERT, which have the layout of XLM-RoBERTa under names of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedpack import Embedder
from embedpack_export.pipeline import export
from tests.helpers.exports import distance, edit_json, pooled, quick
from tests.helpers.peft_oracle import last_hidden_states, load_model
from tests.helpers.tiny_checkpoint import make_checkpoint

ARCHITECTURES = {"roberta": "RobertaModel", "camembert": "CamembertModel"}
TEXTS = ["how do i reset the router?", "a", "the cat sleeps on the warm roof, while the rain is blue"]


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_vectors_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "xlm-roberta")
    edit_json(checkpoint / "config.json", model_type=family, architectures=[ARCHITECTURES[family]])
    manifest = export(quick(checkpoint, tmp_path / "pack", weights=("fp32",)))
    assert manifest.family == family
    model, reference = Embedder(tmp_path / "pack"), load_model(checkpoint)
    assert type(reference).__name__ == ARCHITECTURES[family]
    found = model.encode(TEXTS).decode()
    for text, vector in zip(TEXTS, found, strict=True):
        (tokens,) = model._encoder.processor.tokenizer.encode([text], "")
        ids, mask = tokens.ids[None], np.ones((1, len(tokens.ids)), np.int64)
        assert distance([vector], pooled(last_hidden_states(reference, ids, mask), mask, "mean")) <= 1e-6
