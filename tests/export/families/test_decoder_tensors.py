"""Tensors of decoders: a missing one, one of another shape and one that is left over are refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from embedpack.errors import CheckpointError
from embedpack.storage.safetensors import write_safetensors
from embedpack_export.pipeline import export
from tests.helpers.exports import quick, read_tensors
from tests.helpers.tiny_decoder import make_decoder
from tests.helpers.tiny_families import families_of

FAMILIES = families_of("decoder")
LAYER = (
    "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight", "self_attn.o_proj.weight",
    "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight",
    "input_layernorm.weight", "post_attention_layernorm.weight",
)  # fmt: skip
OWN = {
    "qwen2": ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"),
    "qwen3": ("self_attn.q_norm.weight", "self_attn.k_norm.weight"),
}


def names_of(model_type: str) -> list[str]:
    """All tensors of a checkpoint, but for those of other layers than one."""
    return ["embed_tokens.weight", "norm.weight", *(f"layers.1.{name}" for name in (*LAYER, *OWN.get(model_type, ())))]


@pytest.fixture(scope="module", params=FAMILIES)
def model_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def replace_tensor(path: Path, name: str, values: npt.NDArray[np.float32] | None) -> None:
    """Replace or add a tensor; None takes it out."""
    others = {key: tensor for key, tensor in read_tensors(path).items() if key != name}
    write_safetensors(path, others if values is None else {**others, name: values}, {"format": "pt"})


def refusal(checkpoint: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        export(quick(checkpoint, checkpoint.parent / "pack", pooling="last", weights=("fp32",)))
    assert not (checkpoint.parent / "pack").exists()
    return str(caught.value)


def test_the_names_are_all_tensors(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_decoder(tmp_path / "toy", model_type, num_hidden_layers=2)
    stored = {name.removeprefix("model.") for name in read_tensors(checkpoint / "model.safetensors")}
    assert {name for name in stored if not name.startswith("layers.0.")} == set(names_of(model_type))


def test_a_missing_tensor(tmp_path: Path, model_type: str) -> None:
    for number, name in enumerate(names_of(model_type)):
        checkpoint = make_decoder(tmp_path / str(number) / "toy", model_type)
        replace_tensor(checkpoint / "model.safetensors", f"model.{name}", None)
        expected = f"{checkpoint}: tensor {name!r} is missing; is a shard or a file incomplete?"
        assert refusal(checkpoint) == expected


def test_a_tensor_of_another_shape(tmp_path: Path, model_type: str) -> None:
    for number, name in enumerate(names_of(model_type)):
        checkpoint = make_decoder(tmp_path / str(number) / "toy", model_type)
        path, key = checkpoint / "model.safetensors", f"model.{name}"
        shape = list(read_tensors(path)[key].shape)
        wrong = [*shape[:-1], shape[-1] + 1]
        replace_tensor(path, key, np.ones(wrong, np.float32))
        assert refusal(checkpoint) == f"{path}: {key} has the shape {wrong}, config.json needs {shape}"


def test_a_tensor_that_is_left_over(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_decoder(tmp_path / "toy", model_type)
    name = "layers.1.self_attn.sinks"
    replace_tensor(checkpoint / "model.safetensors", f"model.{name}", np.ones(4, np.float32))
    assert refusal(checkpoint) == f"{checkpoint}: unused tensors: {name}; is it another architecture?"
