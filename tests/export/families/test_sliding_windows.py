"""Sliding windows of decoders, layer by layer: values against transformers, and keys that contradict each other."""

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
from embedpack_export.sources.checkpoint import read_checkpoint
from tests.helpers.exports import distance, exactly, pooled, quick
from tests.helpers.peft_oracle import last_hidden_states, load_model
from tests.helpers.tiny_decoder import make_decoder

SLIDING, FULL = "sliding_attention", "full_attention"
WINDOW = 7
# Shorter than the window, as long, longer by one, and by several windows.
ROWS = [np.random.default_rng(length).integers(2, 260, length) for length in (1, 6, 7, 8, 9, 50, 300)]
WINDOWS: list[tuple[dict[str, Any], tuple[int | None, ...]]] = [
    ({"max_window_layers": 1, "layer_types": None}, (None, WINDOW)),
    ({"max_window_layers": 0, "layer_types": None}, (WINDOW, WINDOW)),
    ({"max_window_layers": None, "layer_types": None}, (None, None)),
    ({"max_window_layers": 2, "layer_types": [SLIDING, FULL]}, (WINDOW, None)),
    ({"max_window_layers": None, "layer_types": [SLIDING, SLIDING]}, (WINDOW, WINDOW)),
    ({"max_window_layers": 1, "layer_types": [FULL, SLIDING], "sliding_window": 1}, (None, 1)),
    ({"max_window_layers": 0, "use_sliding_window": False}, (None, None)),
]


def windowed(folder: Path, model_type: str, changes: dict[str, Any]) -> Path:
    keys = {"num_hidden_layers": 2, "use_sliding_window": True, "sliding_window": WINDOW, **changes}
    return make_decoder(folder, model_type, **keys)


def set_keys(checkpoint: Path, changes: dict[str, Any]) -> None:
    """Replace values of config.json, also with null."""
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def distance_to_transformers(checkpoint: Path, pack: Path) -> float:
    export(quick(checkpoint, pack, pooling="mean", weights=("fp32",)))
    session, feeds = GraphSession(pack / "default-fp32.onnx", 1), pad(ROWS, 0)
    expected = pooled(last_hidden_states(load_model(checkpoint), **feeds), feeds["attention_mask"], "mean")
    alone = np.concatenate([session.run(["sentence_embedding"], pad([row], 0))[0] for row in ROWS])
    assert distance(alone, expected) <= 1e-6
    return distance(session.run(["sentence_embedding"], feeds)[0], expected)


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
@pytest.mark.parametrize(("changes", "windows"), WINDOWS, ids=str)
def test_windows_by_layer(
    tmp_path: Path, model_type: str, changes: dict[str, Any], windows: tuple[int | None, ...]
) -> None:
    checkpoint = windowed(tmp_path / "toy", model_type, changes)
    config = load_model(checkpoint).config
    of_transformers = tuple(config.sliding_window if kind == SLIDING else None for kind in config.layer_types)
    assert of_transformers == windows
    if model_type == "qwen2" or windows[0] != windows[1]:
        assert distance_to_transformers(checkpoint, tmp_path / "pack") <= 1e-6


@pytest.mark.parametrize("changes", [{"sliding_window": None}, {"layer_types": [SLIDING, FULL], "head_dim": 16}])
def test_windows_of_mistral(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A Mistral with layer_types is a Ministral for transformers."""
    checkpoint = make_decoder(tmp_path / "toy", "mistral")
    set_keys(checkpoint, changes)
    assert distance_to_transformers(checkpoint, tmp_path / "pack") <= 1e-6


def test_a_window_is_exact(tmp_path: Path) -> None:
    """A token that is just out of the window does not count; the next one does."""
    checkpoint = windowed(tmp_path / "toy", "qwen2", {"num_hidden_layers": 1, "max_window_layers": 0})
    export(quick(checkpoint, tmp_path / "pack", pooling="last", weights=("fp32",)))
    session = GraphSession(tmp_path / "pack" / "default-fp32.onnx", 1)
    row = ROWS[5]

    def last(changed: int) -> Any:
        other = np.where(np.arange(row.size) == row.size - changed, 77, row)
        return session.run(["sentence_embedding"], pad([other], 0))[0]

    unchanged = session.run(["sentence_embedding"], pad([row], 0))[0]
    assert distance(last(WINDOW + 1), unchanged) <= 1e-12
    assert distance(last(WINDOW), unchanged) > 1e-6


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "qwen2",
        {"layer_types": [SLIDING]},
        "config.json: layer_types has 1 layers, num_hidden_layers is 2; restore the config.json of the model",
    ),
    (
        "qwen3",
        {"layer_types": [FULL, SLIDING], "use_sliding_window": False},
        "config.json: layer_types has sliding_attention, and the other keys give no window (sliding_window, "
        "use_sliding_window); restore the config.json of the model",
    ),
    (
        "qwen3",
        {"layer_types": [SLIDING, FULL], "max_window_layers": 1},
        "config.json: max_window_layers is 1, layer_types has sliding_attention in other layers; remove "
        "max_window_layers if layer_types is right",
    ),
    (
        "qwen2",
        {"layer_types": [FULL, "chunked_attention"]},
        "{folder}/config.json: Invalid enum value 'chunked_attention' - at `$.layer_types[1]`",
    ),
    ("qwen2", {"sliding_window": 0}, "{folder}/config.json: Expected `int` >= 1 - at `$.sliding_window`"),
    (
        "mistral",
        {"layer_types": [FULL, SLIDING], "sliding_window": None},
        "config.json: layer_types has sliding_attention, and the other keys give no window (sliding_window, "
        "use_sliding_window); restore the config.json of the model",
    ),
    (
        "llama",
        {"layer_types": [FULL, SLIDING], "use_sliding_window": False},
        "{folder}/config.json: layer_types is ['full_attention', 'sliding_attention']; supported: full_attention in "
        "every layer; export a checkpoint without it",
    ),
]


@pytest.mark.parametrize(("model_type", "changes", "reason"), REFUSED, ids=str)
def test_contradictions(tmp_path: Path, model_type: str, changes: dict[str, Any], reason: str) -> None:
    keys = {"use_sliding_window": True} if model_type.startswith("qwen") else {}
    checkpoint = make_decoder(tmp_path / "toy", model_type, num_hidden_layers=2)
    set_keys(checkpoint, {**keys, "sliding_window": WINDOW, **changes})
    with pytest.raises(CheckpointError, match=exactly(reason.format(folder=checkpoint))):
        families()[model_type].read(read_checkpoint(checkpoint))
