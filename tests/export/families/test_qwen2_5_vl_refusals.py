"""Checkpoints in the layout of jina-embeddings-v4 that are refused, each with its message."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.checkpoints.make_v4 import SHARDS, make_v4
from benchmarks.checkpoints.v4.shape import TINY
from embedpack.errors import CheckpointError
from embedpack.storage.safetensors import open_safetensors, write_safetensors
from embedpack.vectors.arrays import Float32
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import make_plan
from tests.helpers.exports import edit_json, quick
from tests.helpers.tiny_checkpoint import make_tokenizer

torch.set_num_threads(1)

Floats = dict[str, Float32]

ADAPTERS = "adapters/adapter_model.safetensors"
LAYER = "base_model.model.model.language_model.layers"


# Height and width, and what becomes of them: rows and columns of tokens. A window has 4 x 4 tokens.


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that tests only read."""
    return make_v4(tmp_path_factory.mktemp("v4") / "toy")


@pytest.fixture
def checkpoint(made: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "toy"))


# --- what is refused


def refuse(checkpoint: Path, *fragments: str, **changes: Any) -> None:
    """Assert that the export fails with a message of these fragments and leaves no files."""
    with pytest.raises(CheckpointError) as raised:
        export(quick(checkpoint, checkpoint.parent / "pack", **{"weights": ("fp32",), **changes}))
    assert [fragment for fragment in fragments if fragment not in str(raised.value)] == [], str(raised.value)
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["calibration.jsonl", "toy"]


def edit_floats(path: Path, change: Callable[[Floats], object]) -> None:
    """Change the tensors of a file, which are float32 afterwards."""
    tensors = {name: tensor.float32() for name, tensor in open_safetensors(path).tensors.items()}
    change(tensors)
    write_safetensors(path, tensors, {"format": "pt"})


def drop(checkpoint: Path, part: str) -> None:
    """Leave keys out of the adapters' file."""

    def change(tensors: Floats) -> None:
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    edit_floats(checkpoint / ADAPTERS, change)


def test_an_adapter_without_the_projector(checkpoint: Path) -> None:
    drop(checkpoint, "multi_vector_projector.lora_A.code")
    drop(checkpoint, "multi_vector_projector.lora_B.code")
    fragments = ("the adapter of 'code' changes 21 modules, not all 22", "multi_vector_projector is missing")
    refuse(checkpoint, *fragments)
    assert export(quick(checkpoint, checkpoint.parent / "pack", tasks=("retrieval",), weights=("fp32",)))


def test_half_of_an_update(checkpoint: Path) -> None:
    drop(checkpoint, "layers.1.mlp.up_proj.lora_B.retrieval")
    refuse(checkpoint, "layers.1.mlp.up_proj has lora_A; expected lora_A and lora_B")


@pytest.mark.parametrize("layer", range(TINY.text.layers))
def test_an_adapter_without_a_layer(checkpoint: Path, layer: int) -> None:
    drop(checkpoint, f"layers.{layer}.")
    refuse(checkpoint, "changes 15 modules, not all 22", f"layers.{layer}.", "is the file complete?")


def test_an_adapter_without_a_task(checkpoint: Path) -> None:
    drop(checkpoint, ".code.")
    refuse(checkpoint, "adapter_model.safetensors: unknown task 'code'; known: retrieval, text-matching")


@pytest.mark.parametrize("module", [f"{LAYER}.9.mlp.up_proj", "base_model.model.visual.blocks.0.attn.proj"])
def test_an_adapter_of_a_module_that_does_not_exist(checkpoint: Path, module: str) -> None:
    def add(tensors: Floats) -> None:
        for part, shape in (("A", (4, 64)), ("B", (64, 4))):
            tensors[f"{module}.lora_{part}.retrieval.weight"] = np.ones(shape, np.float32)

    edit_floats(checkpoint / ADAPTERS, add)
    shown = module.removeprefix("base_model.model.").removeprefix("model.language_model.")
    refuse(checkpoint, f"the adapter changes {shown}, which this export of the model does not have")


def test_a_key_that_is_not_understood(checkpoint: Path) -> None:
    name = f"{LAYER}.0.mlp.up_proj.lora_A.retrieval.extra.weight"
    edit_floats(checkpoint / ADAPTERS, lambda tensors: tensors.update({name: np.ones((4, 64), np.float32)}))
    refuse(checkpoint, f"the key {name!r} is unknown")


def test_ranks_that_contradict_the_configuration(checkpoint: Path) -> None:
    edit_json(checkpoint / "adapters" / "adapter_config.json", r=8)
    refuse(checkpoint, "has rank 4, adapter_config.json has 8; are both from one training run?")


def test_an_update_of_another_rank(checkpoint: Path) -> None:
    def shrink(tensors: Floats) -> None:
        for part in "AB":
            name = f"{LAYER}.1.self_attn.q_proj.lora_{part}.code.weight"
            tensors[name] = tensors[name][:2] if part == "A" else np.ascontiguousarray(tensors[name][:, :2])

    edit_floats(checkpoint / ADAPTERS, shrink)
    refuse(checkpoint, "layers.1.self_attn.q_proj has rank 2, adapter_config.json has 4")


def test_a_and_b_that_changed_places(checkpoint: Path) -> None:
    def swap(tensors: Floats) -> None:
        a, b = (f"{LAYER}.1.self_attn.q_proj.lora_{part}.code.weight" for part in "AB")
        tensors[a], tensors[b] = tensors[b], tensors[a]

    edit_floats(checkpoint / ADAPTERS, swap)
    refuse(checkpoint, "layers.1.self_attn.q_proj has rank 64, adapter_config.json has 4")


def test_adapters_of_a_model_with_another_hidden_size(checkpoint: Path) -> None:
    def shrink(tensors: Floats) -> None:
        for name, values in tensors.items():
            if ".lora_A." in name and values.shape[1] == 64:
                tensors[name] = np.ascontiguousarray(values[:, :48])

    edit_floats(checkpoint / ADAPTERS, shrink)
    refuse(checkpoint, "has the shape [4, 48]", "needs [4, 64]; the adapter belongs to another model")


def test_adapters_that_change_nothing(checkpoint: Path) -> None:
    def clear(tensors: Floats) -> None:
        for name in tensors:
            tensors[name] = np.zeros_like(tensors[name])

    edit_floats(checkpoint / ADAPTERS, clear)
    refuse(checkpoint, "the adapter changes nothing")


def test_an_update_too_large_for_a_switchable_adapter(checkpoint: Path) -> None:
    name = f"{LAYER}.1.mlp.up_proj.lora_B.code.weight"

    def grow(tensors: Floats) -> None:
        tensors[name] = np.full_like(tensors[name], 1e5)

    edit_floats(checkpoint / ADAPTERS, grow)
    fragments = ("layers.1.mlp.up_proj.lora_B has values too large for float16",)
    refuse(checkpoint, *fragments, tasks=("code",), adapter_modes=("switchable",))


@pytest.mark.parametrize("shard", SHARDS)
def test_a_missing_shard(checkpoint: Path, shard: str) -> None:
    """The first holds the vision tower."""
    (checkpoint / shard).unlink()
    refuse(checkpoint, shard, "this shard is missing; download the model again")


def single_file(checkpoint: Path, change: Callable[[Floats], object]) -> None:
    """Base tensors in one file, changed."""
    files = [open_safetensors(checkpoint / shard) for shard in SHARDS]
    tensors = {name: tensor.float32() for file in files for name, tensor in file.tensors.items()}
    change(tensors)
    write_safetensors(checkpoint / "model.safetensors", tensors, {"format": "pt"})
    for name in (*SHARDS, "model.safetensors.index.json"):
        (checkpoint / name).unlink()


@pytest.mark.parametrize(
    "name", ["visual.blocks.2.attn.qkv.bias", "visual.patch_embed.proj.weight", "multi_vector_projector.bias"]
)
def test_a_missing_tensor(checkpoint: Path, name: str) -> None:
    single_file(checkpoint, lambda tensors: tensors.pop(name))
    refuse(checkpoint, f"tensor {name!r} is missing")


@pytest.mark.parametrize(
    "name", ["visual.blocks.4.attn.qkv.weight", "model.layers.3.mlp.up_proj.weight", "extra.weight"]
)
def test_tensors_that_nothing_reads(checkpoint: Path, name: str) -> None:
    single_file(checkpoint, lambda tensors: tensors.update({name: np.ones((4, 4), np.float32)}))
    refuse(checkpoint, f"unused tensors: {name.removeprefix('model.')}")


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"vision_config.out_hidden_size": 128}, ("has 128 output channels, the decoder 64",)),
        (
            {"text_config.hidden_size": 96, "text_config.num_attention_heads": 6},
            ("has 64 output channels, the decoder 96",),
        ),
        ({"vision_config.hidden_size": 64}, ("visual.patch_embed.proj.weight has the shape [32, 3, 2, 14, 14]",)),
        ({"vision_config.num_heads": 8}, ("32 channels in 8 attention heads of the vision tower",)),
        ({"vision_config.depth": 3}, ("unused tensors: visual.blocks.3.",)),
        ({"vision_config.depth": 5}, ("tensor 'visual.blocks.4.", "is missing")),
        ({"vision_config.hidden_act": "gelu"}, ("vision_config.hidden_act is 'gelu'; supported: silu",)),
        ({"text_config.num_key_value_heads": 3}, ("4 heads cannot share 3 key and value heads",)),
        ({"text_config.rope_scaling.mrope_section": [2, 2, 3]}, ("mrope_section [2, 2, 3] must add up to 8",)),
        (
            {"text_config.rope_scaling": {"type": "yarn"}},
            ("text_config.rope_scaling is {'type': 'yarn'}",),
        ),
        ({"text_config.use_sliding_window": True}, ("text_config.use_sliding_window is True; supported: false",)),
        ({"single_vector_pool_strategy": "last"}, ("single_vector_pool_strategy is 'last'; supported: mean",)),
        ({"multi_vector_projector_dim": 32}, ("multi_vector_projector.weight has the shape [16, 64]", "[32, 64]")),
        ({"image_token_id": 597}, ("tokenizer.json: the image prompt has the tokens", "595, 597, 596")),
        ({"vision_config": None}, ("missing required field `vision_config`",)),
        (
            {"task_names": ["retrieval", "code", "clustering"]},
            ("has adapters of text-matching, config.json of retrieval, code, clustering; are both",),
        ),
    ],
    ids=str,
)
def test_a_configuration_of_another_model(
    checkpoint: Path, changes: dict[str, Any], fragments: tuple[str, ...]
) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = functools.reduce(lambda found, key: found[key], parents, config)
        place[last] = value
        if value is None:
            del place[last]
    (checkpoint / "config.json").write_text(json.dumps(config))
    refuse(checkpoint, *fragments)


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"patch_size": 16}, "patch, temporal patch and merge sizes are not those of config.json, (14, 2, 2)"),
        ({"resample": 2}, "resample is 2; supported: 3; only bicubic resizing is supported"),
        ({"do_normalize": False}, "do_normalize is False; supported: true"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"min_pixels": None, "max_pixels": None, "size": None}, "neither min_pixels, max_pixels nor size"),
    ],
    ids=str,
)
def test_a_processor_of_another_model(checkpoint: Path, changes: dict[str, Any], fragment: str) -> None:
    edit_json(checkpoint / "preprocessor_config.json", **changes)
    refuse(checkpoint, "preprocessor_config.json", fragment)


def test_no_processor(checkpoint: Path) -> None:
    (checkpoint / "preprocessor_config.json").unlink()
    refuse(checkpoint, "preprocessor_config.json: missing")


def test_code_of_jina_embeddings_v4_is_what_the_family_computes(checkpoint: Path) -> None:
    expected = make_plan(quick(checkpoint, checkpoint.parent / "pack"))
    code = "modeling_jina_embeddings_v4.JinaEmbeddingsV4"
    own = {"AutoConfig": f"{code}Config", "AutoModel": f"{code}Model"}
    edit_json(checkpoint / "config.json", auto_map=own)
    for name in ("preprocessor_config.json", "tokenizer_config.json"):
        edit_json(checkpoint / name, auto_map={"AutoProcessor": f"{code}Processor"})
    module = {"idx": 0, "name": "transformer", "path": "", "type": "custom_st.Transformer", "kwargs": ["task"]}
    (checkpoint / "modules.json").write_text(json.dumps([module]))
    found = make_plan(quick(checkpoint, checkpoint.parent / "pack"))
    assert found.texts == expected.texts
    assert {task: plan.prompts for task, plan in found.tasks.items()} == {
        task: plan.prompts for task, plan in expected.tasks.items()
    }
    edit_json(checkpoint / "config.json", auto_map={**own, "AutoModel": "modeling_other.Model"})
    refuse(checkpoint, "AutoModel is 'modeling_other.Model', code of the checkpoint that is not run")


def test_texts_need_no_processor(checkpoint: Path) -> None:
    (checkpoint / "preprocessor_config.json").unlink()
    assert make_plan(quick(checkpoint, checkpoint.parent / "pack", modality="text")).model.vision is None


def test_the_processor_of_transformers_5(checkpoint: Path) -> None:
    older = checkpoint / "preprocessor_config.json"
    expected = make_plan(quick(checkpoint, checkpoint.parent / "pack")).model.vision
    image = json.loads(older.read_text())
    older.unlink()
    newer = {"image_processor": image, "processor_class": "Qwen2_5_VLProcessor", "video_processor": {"fps": 2}}
    (checkpoint / "processor_config.json").write_text(json.dumps(newer))
    found = make_plan(quick(checkpoint, checkpoint.parent / "pack")).model.vision
    assert found is not None
    assert expected is not None
    assert found.image == expected.image
    newer["image_processor"]["patch_size"] = 16
    (checkpoint / "processor_config.json").write_text(json.dumps(newer))
    refuse(checkpoint, "processor_config.json: patch, temporal patch and merge sizes are not those of config.json")


def test_a_tokenizer_without_image_tokens(checkpoint: Path) -> None:
    make_tokenizer("bert").save(str(checkpoint / "tokenizer.json"))
    refuse(checkpoint, "tokenizer.json: the image prompt has the tokens", "is it the tokenizer of this model?")


def test_a_task_that_the_checkpoint_does_not_have(checkpoint: Path) -> None:
    refuse(checkpoint, "unknown task 'retreival'", "did you mean 'retrieval'?", tasks=("retreival",))
