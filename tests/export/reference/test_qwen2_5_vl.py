"""The layout of the generated checkpoints, and their torch reference."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.checkpoints.make_v4 import SHARDS, V4Options, make_v4
from benchmarks.checkpoints.v4.layout import TASKS, adapter_entries, base_entries, in_first_shard
from benchmarks.checkpoints.v4.shape import REAL, TINY
from benchmarks.checkpoints.v4.stream import to_bfloat16
from benchmarks.checkpoints.v4.tokenizer import train_tokenizer
from embedpack.errors import CheckpointError, InputError
from embedpack.storage.safetensors import StoredTensor, open_safetensors, write_safetensors
from embedpack_export.reference.torch.qwen2_5_vl import V4Input, V4Reference
from embedpack_export.reference.torch.qwen2_vl_image import image_patches, read_image_settings, resized

torch.set_num_threads(1)

Image = npt.NDArray[np.uint8]
QUERY = V4Input(text="Query: how to list the files of a folder")


def gradient(height: int, width: int) -> Image:
    """Smooth colors with a sharp edge."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [columns * 255 // width, rows * 255 // height, (rows + columns) % 256 * (rows > height // 3)]
    return np.stack(channels, -1).astype(np.uint8)


# Patches: 8 x 8, 6 x 14 (no multiple of a window), 18 x 22 (several windows, the last ones cut).
IMAGES = {(8, 8): gradient(100, 120), (6, 14): gradient(84, 200), (18, 22): gradient(240, 320)}


def stored(folder: Path, *names: str) -> dict[str, StoredTensor]:
    return {key: tensor for name in names for key, tensor in open_safetensors(folder / name).tensors.items()}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_v4(tmp_path_factory.mktemp("v4") / "tiny")


@pytest.fixture(scope="module")
def references(tiny: Path) -> dict[str | None, V4Reference]:
    return {task: V4Reference.from_checkpoint(tiny, task) for task in (None, *TASKS)}


@pytest.fixture(scope="module")
def reference(references: dict[str | None, V4Reference]) -> V4Reference:
    return references["retrieval"]


def test_base_tensors_have_the_names_and_shapes_of_the_real_files(tiny: Path) -> None:
    tensors = stored(tiny, *SHARDS)
    text, vision = TINY.text, TINY.vision
    # 12 per layer, embedding and last norm; 12 per block, patches and merger; the projector.
    assert len(tensors) == (12 * text.layers + 2) + (12 * vision.depth + 6) + 2
    assert {tensor.dtype for tensor in tensors.values()} == {"BF16"}
    assert tensors["model.layers.2.self_attn.k_proj.weight"].shape == (32, 64)
    assert tensors["model.layers.0.mlp.down_proj.weight"].shape == (64, 96)
    assert tensors["visual.patch_embed.proj.weight"].shape == (32, 3, 2, 14, 14)
    assert tensors["visual.blocks.3.attn.qkv.weight"].shape == (96, 32)
    assert tensors["visual.merger.mlp.2.weight"].shape == (64, 128)
    assert tensors["multi_vector_projector.weight"].shape == (16, 64)
    biases = {re.sub(r"\.\d+\.", ".N.", name, count=1) for name in tensors if name.endswith(".bias")}
    assert biases == {
        *(f"model.layers.N.self_attn.{name}_proj.bias" for name in "qkv"),
        *(f"visual.blocks.N.{name}.bias" for name in ("attn.qkv", "attn.proj")),
        *(f"visual.blocks.N.mlp.{name}_proj.bias" for name in ("gate", "up", "down")),
        *("visual.merger.mlp.N.bias", "multi_vector_projector.bias"),
    }


def test_the_shards_split_a_layer_and_the_index_knows(tiny: Path) -> None:
    first, second = (stored(tiny, name) for name in SHARDS)
    layers = [{name.split(".")[2] for name in shard if name.startswith("model.layers.")} for shard in (first, second)]
    assert layers == [{"0", "1"}, {"1", "2"}]
    index = json.loads((tiny / "model.safetensors.index.json").read_text())["weight_map"]
    assert index == {name: tensor.path.name for shard in (first, second) for name, tensor in shard.items()}


def test_adapters_hold_all_tasks_in_one_file(tiny: Path) -> None:
    tensors = stored(tiny, "adapters/adapter_model.safetensors")
    assert len(tensors) == (7 * TINY.text.layers + 1) * len(TASKS) * 2
    assert tensors["base_model.model.multi_vector_projector.lora_A.code.weight"].shape == (4, 64)
    name = "base_model.model.model.language_model.layers.1.mlp.up_proj.lora_B.text-matching.weight"
    assert tensors[name].shape == (96, 4)
    assert all(np.abs(tensor.float32()).max() > 0 for tensor in tensors.values())


def test_the_real_size_has_the_published_counts() -> None:
    base, adapters = base_entries(REAL, projector=True), list(adapter_entries(REAL))
    counts = Counter[str]()
    for entry in base:
        counts[entry.name.split(".")[0]] += math.prod(entry.shape)
    assert counts == {"model": 3_085_938_688, "visual": 668_684_288, "multi_vector_projector": 262_272}
    assert (len(base), len(adapters)) == (826, 1518)
    assert sum(math.prod(entry.shape) for entry in adapters) == 3 * 59_936_768
    assert sum(entry.name.startswith("visual.") and entry.name.endswith(".bias") for entry in base) == 162
    layers = {name.split(".")[2] for entry in base if in_first_shard(name := entry.name, 36) and ".layers." in name}
    assert layers == {str(layer) for layer in range(20)}
    assert not in_first_shard("model.layers.19.mlp.down_proj.weight", 36)


def test_the_same_seed_gives_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    again = make_v4(tmp_path / "again")
    files = sorted(path.relative_to(tiny) for path in tiny.rglob("*") if path.is_file())
    assert len(files) == 10
    assert all((again / name).read_bytes() == (tiny / name).read_bytes() for name in files)
    other = make_v4(tmp_path / "other", V4Options(seed=8))
    assert (other / SHARDS[0]).read_bytes() != (tiny / SHARDS[0]).read_bytes()


def test_bfloat16_rounds_as_torch_does() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, np.uint32)
    values = np.concatenate([bits.view(np.float32), np.array([1.00390625, 1.01171875, -0.0, 0], np.float32)])
    values = values[np.isfinite(values)]
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(to_bfloat16(values), expected)


def test_newer_spelling_gives_the_same_vectors(reference: V4Reference, tmp_path: Path) -> None:
    newer = make_v4(tmp_path / "newer", V4Options(spelling="new"))
    assert "model.language_model.layers.0.mlp.up_proj.weight" in stored(newer, *SHARDS)
    found = V4Reference.from_checkpoint(newer, "retrieval").encode([QUERY])
    np.testing.assert_array_equal(found.single, reference.encode([QUERY]).single)


def test_a_decoder_can_be_taken_from_a_trained_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = train_tokenizer().tokenizer
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size() - 3,
        hidden_size=96,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )
    llama: Any = LlamaForCausalLM(config)
    llama.save_pretrained(tmp_path / "llama")
    tokenizer.save(str(tmp_path / "llama" / "tokenizer.json"))
    folder = make_v4(tmp_path / "v4", V4Options(text_from=tmp_path / "llama"))
    assert {tensor.dtype for tensor in stored(folder, *SHARDS).values()} == {"F32"}
    assert stored(folder, *SHARDS)["model.embed_tokens.weight"].shape == (tokenizer.get_vocab_size(), 96)
    assert json.loads((folder / "config.json").read_text())["matryoshka_dims"] == [96]
    made = V4Reference.from_checkpoint(folder, None)
    with torch.inference_mode():
        expected = llama.eval().model(torch.from_numpy(made.token_ids(QUERY))[None]).last_hidden_state[0].numpy()
    np.testing.assert_allclose(made.hidden_states(QUERY), expected, atol=1e-5)
    adapted = V4Reference.from_checkpoint(folder, "code").encode([QUERY, V4Input(image=IMAGES[8, 8])])
    assert 0 < np.abs(adapted.single[0] - made.encode([QUERY]).single[0]).max() < 0.05


def test_vectors_have_unit_length_and_every_token_has_one(reference: V4Reference) -> None:
    inputs = [QUERY, *(V4Input(image=image) for image in IMAGES.values())]
    found = reference.encode(inputs)
    assert found.single.dtype == np.float32
    assert found.single.shape == (4, TINY.text.hidden)
    np.testing.assert_allclose(np.linalg.norm(found.single, axis=-1), 1, atol=1e-6)
    for item, vectors in zip(inputs, found.multi, strict=True):
        assert vectors.shape == (len(reference.token_ids(item)), TINY.projector_dim)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-6)


def test_every_task_has_its_own_vectors(references: dict[str | None, V4Reference]) -> None:
    inputs = [QUERY, V4Input(image=IMAGES[8, 8])]
    found = [reference.encode(inputs) for reference in references.values()]
    for row in range(len(inputs)):
        single = np.stack([vectors.single[row] for vectors in found])
        multi = np.stack([vectors.multi[row].ravel() for vectors in found]) / len(found[0].multi[row]) ** 0.5
        for vectors in (single, multi):
            assert (vectors @ vectors.T)[np.triu_indices(len(found), 1)].max() < 0.95


def test_unmerged_adapters_equal_merged_weights(tiny: Path, tmp_path: Path) -> None:
    merged = make_v4(tmp_path / "merged", V4Options(adapters=False))
    adapters = stored(tiny, "adapters/adapter_model.safetensors")
    for shard in SHARDS:
        values = {name: tensor.float32() for name, tensor in stored(tiny, shard).items()}
        for name in values:
            module = name.removesuffix(".weight").replace("model.layers.", "model.language_model.layers.")
            parts = [f"base_model.model.{module}.lora_{part}.code.weight" for part in "BA"]
            if parts[0] in adapters:
                values[name] = values[name] + adapters[parts[0]].float32() @ adapters[parts[1]].float32()
        write_safetensors(merged / shard, values, {"format": "pt"})
    inputs = [QUERY, V4Input(image=IMAGES[6, 14])]
    expected = V4Reference.from_checkpoint(merged, None).encode(inputs)
    found = V4Reference.from_checkpoint(tiny, "code").encode(inputs)
    np.testing.assert_allclose(found.single, expected.single, atol=1e-5)
    np.testing.assert_allclose(np.concatenate(found.multi), np.concatenate(expected.multi), atol=1e-5)


def test_different_images_have_different_vectors(reference: V4Reference) -> None:
    image = IMAGES[18, 22]
    found = reference.encode([V4Input(image=one) for one in (image, image[::-1], 255 - image)]).single
    assert (found @ found.T)[np.triu_indices(3, 1)].max() < 0.99


@pytest.mark.parametrize("grid", IMAGES)
def test_an_image_is_pooled_from_start_to_end_of_its_tokens(
    grid: tuple[int, int], tiny: Path, reference: V4Reference
) -> None:
    item = V4Input(image=IMAGES[grid])
    ids = reference.token_ids(item).tolist()
    config = json.loads((tiny / "config.json").read_text())
    start, end = ids.index(config["vision_start_token_id"]), ids.index(config["vision_end_token_id"])
    assert ids.count(config["image_token_id"]) == grid[0] * grid[1] // 4 == end - start - 1
    mean = reference.hidden_states(item)[start : end + 1].mean(0)
    np.testing.assert_allclose(reference.encode([item]).single[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_a_text_is_pooled_over_all_tokens(reference: V4Reference) -> None:
    mean = reference.hidden_states(QUERY).mean(0)
    np.testing.assert_allclose(reference.encode([QUERY]).single[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_special_strings_in_a_text_are_text(reference: V4Reference) -> None:
    ids = reference.token_ids(V4Input(text="Query: <|vision_start|>"))
    assert ids.max() < 592


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((100, 200), (112, 196)),
        ((4000, 3000), (896, 672)),
        ((20, 20), (56, 56)),
        ((28, 4000), (28, 4004)),
        ((1754, 1240), (896, 644)),
        ((1080, 1920), (560, 1008)),
        ((240, 320), (252, 308)),
    ],
)
def test_images_are_resized_as_transformers_does(size: tuple[int, int], expected: tuple[int, int], tiny: Path) -> None:
    settings = read_image_settings(tiny)
    assert resized(*size, settings) == expected
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    assert smart_resize(*size, settings.factor, settings.min_pixels, settings.max_pixels) == expected


def test_patches_stand_in_blocks_of_a_token(tiny: Path) -> None:
    settings = read_image_settings(tiny)
    image = gradient(84, 112)
    patches = image_patches(image, settings)
    assert (patches.rows, patches.columns) == (6, 8)
    mean, std = (np.array(values, np.float32) for values in (settings.image_mean, settings.image_std))
    normal = ((image / np.float32(255) - mean) / std).transpose(2, 0, 1)
    # Patch 6 is the first of the second row in the second block of 2 x 2: row 1, column 2.
    expected = np.stack([normal[:, 14:28, 28:42]] * 2, axis=1)
    np.testing.assert_allclose(patches.values[6].numpy(), expected.ravel(), atol=1e-5)


def test_a_checkpoint_without_projector_has_no_multi_vectors(tmp_path: Path) -> None:
    folder = make_v4(tmp_path / "bare", V4Options(projector=False, adapters=False))
    found = V4Reference.from_checkpoint(folder, None).encode([QUERY])
    assert found.multi == []


def test_what_does_not_fit_is_refused(tiny: Path, reference: V4Reference, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="unknown task 'retreival'"):
        V4Reference.from_checkpoint(tiny, "retreival")
    for item in (V4Input(), V4Input(text=""), V4Input(text="a", image=IMAGES[8, 8]), V4Input(image=gradient(1, 201))):
        with pytest.raises(InputError):
            reference.encode([item])
    broken = make_v4(tmp_path / "broken")
    tensors = {name: tensor.float32() for name, tensor in stored(broken, SHARDS[1]).items()}
    tensors["model.norm.scale"] = tensors.pop("model.norm.weight")
    write_safetensors(broken / SHARDS[1], tensors, {"format": "pt"})
    (broken / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {name: shard for shard in SHARDS for name in stored(broken, shard)}})
    )
    with pytest.raises(CheckpointError, match=r"transformers does not use these: .*norm"):
        V4Reference.from_checkpoint(broken, None)
