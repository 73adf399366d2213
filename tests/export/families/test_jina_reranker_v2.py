"""jina-reranker-v2: layout, windows over long documents, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaForSequenceClassification

from embedpack import Reranker
from embedpack_export.pipeline import export
from tests.helpers.exports import edit_json, quick, read_tensors
from tests.helpers.tiny_jina_reranker import CONFIG, HIDDEN, INNER, LAYERS, POSITIONS, make_jina_reranker

QUERY = "how do i reset a router ?"
LONG = "the cat sleeps on a warm roof in the rain and the door of the old house is open "
DOCUMENTS = ["reset the router", LONG, LONG * 3, "list files", "reset " * 60]
LIMIT = POSITIONS - 2


def judge(checkpoint: Path) -> Any:
    """Transformers' own class, with the fused projections taken apart by hand."""
    tensors: dict[str, Any] = {
        name: torch.from_numpy(each) for name, each in read_tensors(checkpoint / "model.safetensors").items()
    }
    made: Any = XLMRobertaConfig
    config = made(
        vocab_size=len(tensors["roberta.embeddings.word_embeddings.weight"]),
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=CONFIG["num_attention_heads"],
        max_position_embeddings=POSITIONS,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        num_labels=1,
    )
    state = {name: each for name, each in tensors.items() if not name.startswith("roberta.e")}
    state |= {name: each for name, each in tensors.items() if name.startswith("roberta.embeddings.")}
    for leaf in ("weight", "bias"):
        state[f"roberta.embeddings.LayerNorm.{leaf}"] = tensors[f"roberta.emb_ln.{leaf}"]
        for layer in range(LAYERS):
            old, new = f"roberta.encoder.layers.{layer}", f"roberta.encoder.layer.{layer}"
            parts = tensors[f"{old}.mixer.Wqkv.{leaf}"].split(HIDDEN)
            for name, part in zip(("query", "key", "value"), parts, strict=True):
                state[f"{new}.attention.self.{name}.{leaf}"] = part
            places = {"mixer.out_proj": "attention.output.dense", "mlp.fc1": "intermediate.dense"}
            places |= {"mlp.fc2": "output.dense", "norm1": "attention.output.LayerNorm", "norm2": "output.LayerNorm"}
            for name, place in places.items():
                state[f"{new}.{place}.{leaf}"] = tensors[f"{old}.{name}.{leaf}"]
    model: Any = XLMRobertaForSequenceClassification(config)
    model.load_state_dict(state)
    return model.eval()


def sequences(tokenizer: Any, query: str, document: str) -> Iterator[list[int]]:
    """Token ids of the windows of a document, by the rules of the model card: the last window ends with it."""
    first = tokenizer(query, truncation=True, max_length=LIMIT // 2)["input_ids"]
    ids, end = tokenizer(document, add_special_tokens=False)["input_ids"], tokenizer.sep_token_id
    room = LIMIT - len(first) - 2
    start = 0
    while start + room < len(ids):
        yield [*first, end, *ids[start : start + room], end]
        start += room - min(80, room // 4)
    yield [*first, end, *(ids[-room:] if len(ids) > room else ids), end]


def judged(checkpoint: Path, query: str) -> npt.NDArray[np.float64]:
    model, tokenizer = judge(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    with torch.inference_mode():
        return np.array(
            [
                max(
                    float(torch.sigmoid(model(input_ids=torch.tensor([ids])).logits))
                    for ids in sequences(tokenizer, query, document)
                )
                for document in DOCUMENTS
            ]
        )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_jina_reranker(tmp_path_factory.mktemp("jina") / "jina-reranker-v2")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Reranker:
    export(quick(checkpoint, checkpoint.parent / "pack", reference="torch"))
    return Reranker(checkpoint.parent / "pack", weights="fp32", threads=1)


@pytest.mark.parametrize("query", [QUERY, f"{QUERY} " * 9])
def test_scores_are_those_of_windows(checkpoint: Path, model: Reranker, query: str) -> None:
    found, expected = model.score(query, DOCUMENTS), judged(checkpoint, query)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.argsort(found).tolist() == np.argsort(expected).tolist()


def test_the_recipe_and_the_check(model: Reranker) -> None:
    manifest = model.pack.manifest
    assert manifest.family == "jina_reranker_v2"
    assert manifest.score is not None
    for variant in manifest.variants.values():
        (check,) = variant.checks.values()
        assert (check.reference, check.outcome) == ("torch", "within budget")


def test_windows_are_no_truncation(model: Reranker, caplog: pytest.LogCaptureFixture) -> None:
    model.score("find the cat", DOCUMENTS, on_long="error")
    assert caplog.messages == []


def test_other_code_is_refused(tmp_path: Path) -> None:
    from tests.helpers.plans import refuse

    folder = make_jina_reranker(tmp_path / "checkpoint")
    edit_json(folder / "config.json", auto_map={"AutoModel": "modeling_other.OtherModel"})
    refuse(
        folder,
        f"{folder / 'config.json'}: auto_map is {{'AutoModel': 'modeling_other.OtherModel'}}; AutoModel is "
        "'modeling_other.OtherModel', code of the checkpoint that is not run; if the model is of the architecture in "
        "model_type without it, remove the key",
    )
