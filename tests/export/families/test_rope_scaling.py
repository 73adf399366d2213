"""Scaled rotary positions of decoders: values against transformers, spellings, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedpack.engine.session import GraphSession
from embedpack.errors import CheckpointError
from embedpack.inputs.batching import pad
from embedpack_export.families import families
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import make_plan
from embedpack_export.sources.checkpoint import read_checkpoint
from tests.helpers.exports import distance, edit_json, exactly, pooled, quick
from tests.helpers.peft_oracle import last_hidden_states, load_model
from tests.helpers.tiny_decoder import make_decoder

LINEAR = {"rope_type": "linear", "factor": 4.0}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
LONG_YARN = {**YARN, "original_max_position_embeddings": 512}
ROWS = [np.random.default_rng(length).integers(2, 260, length) for length in (1, 63, 65, 300, 512)]
# A small base: the scaling changes most frequencies at the lengths of the texts.
THETA = 500.0


def single_vectors(checkpoint: Path, pack: Path) -> np.ndarray[Any, Any]:
    export(quick(checkpoint, pack, pooling="mean", weights=("fp32",)))
    return GraphSession(pack / "default-fp32.onnx", 1).run(["sentence_embedding"], pad(ROWS, 0))[0]


def of_transformers(checkpoint: Path) -> Any:
    feeds = pad(ROWS, 0)
    return pooled(last_hidden_states(load_model(checkpoint), **feeds), feeds["attention_mask"], "mean")


@pytest.mark.parametrize(
    ("model_type", "scaling"),
    [
        ("llama", LINEAR),
        ("llama", DYNAMIC),
        ("llama", LLAMA3),
        ("llama", YARN),
        ("mistral", YARN),
        ("qwen2", YARN),
        ("qwen3", YARN),
        ("qwen2", {**YARN, "attention_factor": 1.4, "beta_fast": 16.0, "beta_slow": 2.0}),
        ("qwen2", {**YARN, "mscale": 0.7, "mscale_all_dim": 1.0, "truncate": False}),
    ],
    ids=str,
)
def test_texts_beyond_the_original_length_equal_transformers(
    tmp_path: Path, model_type: str, scaling: dict[str, Any]
) -> None:
    checkpoint = make_decoder(tmp_path / "toy", model_type, rope_theta=THETA, rope_scaling=scaling)
    found = single_vectors(checkpoint, tmp_path / "pack")
    assert distance(found, of_transformers(checkpoint)) <= 1e-6
    # The scaling reaches the graph: without it, the vectors of long texts are others.
    edit_json(checkpoint / "config.json", rope_scaling=None)
    moved = distance(found, of_transformers(checkpoint))
    assert moved <= 1e-6 if scaling is DYNAMIC else moved > 1e-5


SPELLINGS: dict[str, dict[str, Any]] = {
    "type": {"rope_scaling": {**{key: YARN[key] for key in YARN if key != "rope_type"}, "type": "yarn"}},
    "type and rope_type": {"rope_scaling": {**YARN, "type": "yarn"}},
    "rope_parameters": {"rope_parameters": {**YARN, "rope_theta": THETA}},
    "all": {"rope_scaling": YARN, "rope_parameters": {**YARN, "rope_theta": THETA}, "rope_theta": THETA},
    "length outside": {
        "rope_scaling": {"rope_type": "yarn", "factor": 8.0},
        "original_max_position_embeddings": 64,
    },
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_are_one_scaling(tmp_path: Path, spelling: str) -> None:
    changes = SPELLINGS[spelling]
    theta = THETA if "rope_theta" not in str(changes) or "rope_theta" in changes else None
    checkpoint = make_decoder(tmp_path / "toy", "llama", **{"rope_scaling": None, "rope_theta": theta, **changes})
    usual = make_decoder(tmp_path / "usual", "llama", rope_theta=THETA, rope_scaling=YARN)
    expected = of_transformers(usual)
    np.testing.assert_allclose(of_transformers(checkpoint), expected, atol=1e-6)
    assert distance(single_vectors(checkpoint, tmp_path / "pack"), expected) <= 1e-6


def test_the_original_length_is_the_maximum_where_none_is_stated(tmp_path: Path) -> None:
    scaling = {"rope_type": "yarn", "factor": 8.0}
    checkpoint = make_decoder(
        tmp_path / "toy", "llama", rope_theta=THETA, rope_scaling=scaling, max_position_embeddings=600
    )
    assert distance(single_vectors(checkpoint, tmp_path / "pack"), of_transformers(checkpoint)) <= 1e-6


@pytest.mark.parametrize(
    ("scaling", "stated", "length"),
    [
        (None, {}, 512),
        (YARN, {}, 512),
        (LONG_YARN, {}, 512),
        (LONG_YARN, {"max_seq_length": 4000}, 4000),
        (LONG_YARN, {"max_seq_length": 5000}, 4096),
        (LONG_YARN, {"model_max_length": 5000}, 512),
        (LINEAR, {"max_seq_length": 5000}, 2048),
        (DYNAMIC, {"max_seq_length": 5000}, 512),
        (LLAMA3, {"max_seq_length": 5000}, 512),
    ],
    ids=str,
)
def test_scaled_positions_allow_longer_texts(
    tmp_path: Path, scaling: dict[str, Any] | None, stated: dict[str, int], length: int
) -> None:
    """Only if max_seq_length or --max-length asks for it, as in sentence-transformers."""
    checkpoint = make_decoder(tmp_path / "toy", "llama", rope_scaling=scaling)
    for name, file in (("max_seq_length", "sentence_bert_config.json"), ("model_max_length", "tokenizer_config.json")):
        if name in stated:
            (checkpoint / file).write_text(json.dumps({name: stated[name]}))
    assert make_plan(quick(checkpoint, tmp_path / "pack", pooling="mean")).max_tokens == length
    if "max_seq_length" in stated:
        assert make_plan(quick(checkpoint, tmp_path / "pack", pooling="mean", max_tokens=length)).max_tokens == length
        with pytest.raises(CheckpointError, match=f"pass 3 to {4096 if scaling is LONG_YARN else length} tokens"):
            make_plan(quick(checkpoint, tmp_path / "pack", pooling="mean", max_tokens=5001))


def test_texts_beyond_the_positions(tmp_path: Path) -> None:
    """YaRN of Qwen2.5, whose max_position_embeddings is the original length."""
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    checkpoint = make_decoder(
        tmp_path / "toy", "qwen2", rope_theta=THETA, rope_scaling=scaling, max_position_embeddings=128
    )
    assert distance(single_vectors(checkpoint, tmp_path / "pack"), of_transformers(checkpoint)) <= 1e-6


# --- what is refused

KNOWN = "supported: default, dynamic, linear, llama3, yarn"
PARTIAL = {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}
UNNAMED = {"factor": 2.0}
TWO = {"rope_type": "linear", "type": "yarn", "factor": 2.0}
WITHOUT = {"rope_type": "linear"}
UNKNOWN = {**LINEAR, "alpha": 2.0}
CROSSED = {**LLAMA3, "low_freq_factor": 4.0}
LONG = {"rope_type": "longrope", "factor": 2.0}
PROPORTIONAL = {"rope_type": "proportional"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"rope_scaling": LONG},
        f"rope_scaling is {LONG}; rope_type 'longrope' is not supported (its frequencies depend on the longest text of "
        f"a batch); {KNOWN}",
    ),
    (
        {"rope_parameters": PROPORTIONAL},
        f"rope_parameters is {PROPORTIONAL}; rope_type 'proportional' is not supported; {KNOWN}",
    ),
    (
        {"rope_parameters": PARTIAL},
        f"rope_parameters is {PARTIAL}; a partial_rotary_factor other than 1 is not supported; export a checkpoint "
        "without it",
    ),
    (
        {"rope_scaling": UNNAMED},
        f"rope_scaling is {UNNAMED}; a rope_type of default has no other key than rope_theta; remove the others, or "
        "name their rope_type",
    ),
    ({"rope_scaling": TWO}, f"rope_scaling is {TWO}; rope_type and type differ; remove the wrong one"),
    ({"rope_scaling": [2]}, "rope_scaling is [2]; it is an object or null"),
    ({"rope_scaling": WITHOUT}, "Object missing required field `factor` - at `$.rope_scaling`"),
    ({"rope_scaling": UNKNOWN}, "Object contains unknown field `alpha` - at `$.rope_scaling`"),
    ({"rope_scaling": {**LINEAR, "factor": 0}}, "Expected `float` > 0.0 - at `$.rope_scaling.factor`"),
    ({"rope_scaling": {**LINEAR, "factor": None}}, "Expected `float`, got `null` - at `$.rope_scaling.factor`"),
    (
        {"rope_scaling": CROSSED},
        "high_freq_factor is 4.0; it must be larger than low_freq_factor, 4.0 - at `$.rope_scaling`",
    ),
    (
        {"rope_scaling": LINEAR, "rope_parameters": {**LINEAR, "factor": 2.0}},
        "rope_scaling is {'rope_type': 'linear', 'factor': 4.0} and {'rope_type': 'linear', 'factor': 2.0}; remove the "
        "wrong one",
    ),
    (
        {"rope_theta": 500.0, "rope_parameters": {**LINEAR, "rope_theta": 1e4}},
        "rope_theta is 500.0 and 10000.0; remove the wrong one",
    ),
    (
        {"rope_scaling": YARN, "original_max_position_embeddings": 32},
        "original_max_position_embeddings is 32 and 64; remove the wrong one",
    ),
    ({"rope_theta": 1.0}, "Expected `float` > 1.0 - at `$.rope_theta`"),
]


@pytest.mark.parametrize(("changes", "reason"), REFUSED, ids=[reason[:40] for _, reason in REFUSED])
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    checkpoint = make_decoder(tmp_path / "toy", "llama")
    edit_json(checkpoint / "config.json", **changes)
    with pytest.raises(CheckpointError, match=exactly(f"{checkpoint / 'config.json'}: {reason}")):
        families()["llama"].read(read_checkpoint(checkpoint))
