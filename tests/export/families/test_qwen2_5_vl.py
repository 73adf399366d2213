"""jina-embeddings-v4 at toy size: texts and images, three tasks, merged and switchable, against the torch reference."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from benchmarks.checkpoints.make_v4 import SHARDS, V4Options, make_v4
from benchmarks.checkpoints.v4.layout import TASKS
from benchmarks.checkpoints.v4.shape import TINY
from embedpack import Embedder
from embedpack.engine.encoder import Encoder
from embedpack.engine.golden import TOLERANCE, check_golden
from embedpack.engine.loading import open_encoder
from embedpack.engine.options import EncodeOptions
from embedpack.errors import CheckpointError, InputError
from embedpack.pack.codebooks import Codebooks, read_codebooks
from embedpack.pack.folder import read_pack
from embedpack.pack.input_recipes import Prompt, QwenImage
from embedpack.pack.manifest import MultiVectors, SingleVectors
from embedpack.pack.strict import AdapterMode
from embedpack.storage.safetensors import open_safetensors, write_safetensors
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codes import quantize
from embedpack_export.pipeline import export
from embedpack_export.reference.torch.qwen2_5_vl import V4Input, V4Reference, V4Vectors
from tests.helpers.exports import center_helps, distance, edit_json, quick, tree
from tests.helpers.slice_means import chunk_of_tokens, slice_means

torch.set_num_threads(1)

Image = npt.NDArray[np.uint8]
Item = str | Image
Floats = dict[str, Float32]

MERGED = [f"{task}-{weights}" for task in TASKS for weights in ("fp32", "int8")]
SWITCHABLE = ["switchable-fp32", "switchable-int8"]
TEXT_TOLERANCE, IMAGE_TOLERANCE = 1e-6, 1e-5
QUERY = "Query: "
# Ids from here on are special tokens.
SPECIALS = 592

TEXTS = (
    "how do i list the files of a folder?",
    "a",
    "Die Katze schläft auf dem warmen Dach, während es regnet. 猫在屋顶上睡觉。 😀",
    "def total(values):\n    return sum(values)\n",
    "read every label twice; " * 12,
)


def drawn(height: int, width: int) -> Image:
    """Smooth colors with edges, and some noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [columns * 255 // width, rows * 255 // height, (rows + columns) % 256 * (rows > height // 3)]
    noise = np.random.default_rng(height).integers(-9, 10, (height, width, 3))
    return np.clip(np.stack(channels, -1) + noise, 0, 255).astype(np.uint8)


# Height and width, and what becomes of them: rows and columns of tokens. A window has 4 x 4 tokens.
SIZES = {
    (224, 224): (8, 8),
    (240, 320): (9, 11),
    (84, 200): (3, 7),
    (20, 20): (2, 2),
    (30, 1400): (1, 50),
    (1400, 60): (50, 2),
    (130, 110): (5, 4),
}
IMAGES = {size: drawn(*size) for size in SIZES}
LARGE = drawn(700, 500)


MULTI = MultiVectors(dimensions=TINY.projector_dim, truncate_dims=(TINY.projector_dim,))


@dataclass(frozen=True, eq=False)
class Exported:
    """A checkpoint, a pack of all its variants, and the reference of each task."""

    checkpoint: Path
    folder: Path
    references: dict[str, V4Reference]

    @functools.cache  # noqa: B019 - it lives as long as the module
    def encoder(self, variant: str) -> Encoder:
        pack = read_pack(self.folder)
        return open_encoder(pack, pack.manifest.variants[variant], 1)

    def single(
        self, variant: str, items: Sequence[Item], task: str | None = None, prompt: str = QUERY, budget: int = 256
    ) -> Float32:
        with mock.patch("embedpack.engine.encoder.TOKEN_BUDGET", budget):
            return single(self.encoder(variant), items, EncodeOptions(Prompt(prefix=prompt), task))

    def multi(
        self, variant: str, items: Sequence[Item], task: str | None = None, output: str = "token_embeddings"
    ) -> list[npt.NDArray[Any]]:
        encoder = self.encoder(variant)
        options = EncodeOptions(Prompt(prefix=QUERY), task)
        return encoder.run_tokens(list(encoder.processor.items(items)), output, options)

    def codebooks(self, task: str) -> Codebooks:
        file = read_pack(self.folder).manifest.codes(task).codebooks
        return read_codebooks(self.folder / file, 64, TINY.projector_dim)

    def expected(self, task: str, items: Sequence[Item], prompt: str = QUERY) -> V4Vectors:
        return self.references[task].encode([as_input(item, prompt) for item in items])


def single(encoder: Encoder, items: Sequence[Item], options: EncodeOptions) -> Float32:
    return encoder.run(list(encoder.processor.items(items)), "sentence_embedding", options)


def as_input(item: Item, prompt: str = QUERY) -> V4Input:
    return V4Input(text=prompt + item) if isinstance(item, str) else V4Input(image=item)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that tests only read."""
    return make_v4(tmp_path_factory.mktemp("v4") / "toy")


@pytest.fixture(scope="module")
def v4(made: Path) -> Exported:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedpack_export.quantization.codebook_fit.neighbour_recall", center_helps)
        export(quick(made, made.parent / "pack", adapter_modes=("merged", "switchable")))
    return Exported(made, made.parent / "pack", {task: V4Reference.from_checkpoint(made, task) for task in TASKS})


@pytest.fixture
def checkpoint(made: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "toy"))


def largest_token_distance(found: Sequence[npt.NDArray[Any]], expected: Sequence[npt.NDArray[Any]]) -> float:
    """Largest 1 - cosine over the tokens of all items, which must have as many of them."""
    assert [len(item) for item in found] == [len(item) for item in expected]
    return max(distance(one, other) for one, other in zip(found, expected, strict=True))


# --- against the reference


@pytest.mark.parametrize("task", TASKS)
def test_texts_equal_the_reference(v4: Exported, task: str) -> None:
    expected = v4.expected(task, TEXTS)
    assert distance(v4.single(f"{task}-fp32", TEXTS), expected.single) <= TEXT_TOLERANCE
    found = v4.multi(f"{task}-fp32", TEXTS)
    assert largest_token_distance(found, expected.multi) <= TEXT_TOLERANCE
    assert found[0].shape[1] == TINY.projector_dim


@pytest.mark.parametrize("adapters", ["merged", "switchable"])
def test_chunks_are_slices_of_the_reference(v4: Exported, adapters: AdapterMode) -> None:
    """Late chunking of texts, behind a prompt."""
    reference, prompt = v4.references["retrieval"], "Passage: "
    encoding = Tokenizer.from_file(str(v4.checkpoint / "tokenizer.json")).encode(prompt + " ".join(TEXTS))
    item = V4Input(text=prompt + " ".join(TEXTS))
    assert reference.token_ids(item).tolist() == encoding.ids
    expected = slice_means(reference.hidden_states(item), chunk_of_tokens(encoding, prompt, TEXTS))
    model = Embedder(v4.folder, task="retrieval", weights="fp32", adapters=adapters, threads=1)
    found = model.encode_chunks([TEXTS, ["a", "b"]], task="retrieval", prompt_name="passage")
    assert distance(found.codes[: len(TEXTS)], expected) <= TEXT_TOLERANCE
    one = model.encode_chunks([TEXTS[2]], task="retrieval", prompt_name="query", truncate_dim=model.truncate_dims[0])
    whole = model.encode(TEXTS[2], task="retrieval", prompt_name="query", truncate_dim=model.truncate_dims[0])
    np.testing.assert_allclose(one.codes, whole.codes, atol=TEXT_TOLERANCE)


@pytest.mark.parametrize("prompt", ["", "Passage: "])
def test_any_prompt_equals_the_reference(v4: Exported, prompt: str) -> None:
    found = v4.single("code-fp32", TEXTS, prompt=prompt)
    assert distance(found, v4.expected("code", TEXTS, prompt).single) <= TEXT_TOLERANCE


@pytest.mark.parametrize("task", TASKS)
def test_images_equal_the_reference(v4: Exported, task: str) -> None:
    """Whole windows and cut ones, one window only, one token high, two tokens wide."""
    images = list(IMAGES.values())
    expected = v4.expected(task, images)
    assert distance(v4.single(f"{task}-fp32", images), expected.single) <= IMAGE_TOLERANCE
    assert largest_token_distance(v4.multi(f"{task}-fp32", images), expected.multi) <= IMAGE_TOLERANCE


def test_a_large_image_equals_the_reference(v4: Exported) -> None:
    expected = v4.expected("retrieval", [LARGE])
    assert distance(v4.single("retrieval-fp32", [LARGE]), expected.single) <= IMAGE_TOLERANCE
    assert largest_token_distance(v4.multi("retrieval-fp32", [LARGE]), expected.multi) <= IMAGE_TOLERANCE


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("task", TASKS)
def test_images_among_texts_equal_the_reference(v4: Exported, task: str, count: int) -> None:
    chosen = [IMAGES[size] for size in ((84, 200), (240, 320), (20, 20))[:count]]
    items: list[Item] = [TEXTS[0], *chosen, TEXTS[2], TEXTS[1]]
    expected = v4.expected(task, items)
    for budget in (256, 10_000):
        found = v4.single(f"{task}-fp32", items, budget=budget)
        assert distance(found, expected.single) <= IMAGE_TOLERANCE
    assert largest_token_distance(v4.multi(f"{task}-fp32", items), expected.multi) <= IMAGE_TOLERANCE


@pytest.mark.parametrize("variant", ["{task}-int8", "switchable-int8"])
@pytest.mark.parametrize("task", TASKS)
def test_int8_is_close_to_the_reference(v4: Exported, task: str, variant: str) -> None:
    items: list[Item] = [*TEXTS, *IMAGES.values()]
    name, adapter = variant.format(task=task), task if variant.startswith("switchable") else None
    expected = v4.expected(task, items)
    assert distance(v4.single(name, items, adapter), expected.single) <= 0.01
    found = v4.multi(name, items, adapter)
    cosines = np.concatenate([(a * b).sum(1) for a, b in zip(found, expected.multi, strict=True)])
    assert cosines.mean() >= 0.995


@pytest.mark.parametrize(
    "text", ["<|im_start|>user", "see <|vision_start|><|image_pad|><|vision_end|>", "<|endoftext|>"]
)
def test_special_strings_in_a_text_are_text(v4: Exported, text: str) -> None:
    processor = v4.encoder("code-fp32").processor
    (item,) = processor.process(processor.items([text]), QUERY)
    assert item.ids.max() < SPECIALS
    assert item.image is None
    expected = v4.expected("code", [text])
    assert distance(v4.single("code-fp32", [text]), expected.single) <= TEXT_TOLERANCE
    assert largest_token_distance(v4.multi("code-fp32", [text]), expected.multi) <= TEXT_TOLERANCE


@pytest.mark.parametrize("size", SIZES)
def test_every_token_of_an_image_and_its_template_has_a_vector(v4: Exported, size: tuple[int, int]) -> None:
    image = read_pack(v4.folder).manifest.image
    assert isinstance(image, QwenImage)
    (found,) = v4.multi("retrieval-fp32", [IMAGES[size]])
    rows, columns = SIZES[size]
    assert len(found) == rows * columns + len(image.tokens_before) + len(image.tokens_after)
    assert len(found) == len(v4.references["retrieval"].token_ids(V4Input(image=IMAGES[size])))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("variant", "task"), [("code-fp32", None), ("switchable-fp32", "code")])
def test_codes_of_the_graph_are_those_of_the_runtime(v4: Exported, variant: str, task: str | None) -> None:
    """Both graphs have those of the task, whose center a switchable one gets with the adapter."""
    items: list[Item] = [*TEXTS, IMAGES[84, 200]]
    codes, codebook = read_pack(v4.folder).manifest.codes("code").multi, v4.codebooks("code").multi
    assert codes is not None
    assert codebook is not None
    assert codebook.center.any()
    vectors = v4.multi(variant, items, task)
    for vector, code in zip(vectors, v4.multi(variant, items, task, "token_embeddings_int8"), strict=True):
        np.testing.assert_array_equal(code, quantize(vector, "int8", codes.int8_scale))
    for vector, code in zip(vectors, v4.multi(variant, items, task, "token_embeddings_binary"), strict=True):
        np.testing.assert_array_equal(code, np.packbits(codebook.digits(vector, "binary"), axis=-1))


def test_each_task_has_codebooks_of_its_own_without_a_rotation(v4: Exported) -> None:
    """The center is an input of the switchable graph; a rotation would be a large one."""
    manifest = read_pack(v4.folder).manifest
    found = {task: v4.codebooks(task) for task in TASKS}
    assert len({codebooks.multi.id for codebooks in found.values() if codebooks.multi is not None}) == len(TASKS)
    assert {name: task.space for name, task in manifest.tasks.items()} == {name: name for name in TASKS}
    for name, space in manifest.spaces.items():
        assert space.single is not None
        assert space.multi is not None
        assert space.codebooks == f"calibration/{name}.safetensors"
        assert space.inputs == manifest.variants[f"{name}-fp32"].accuracy.inputs
        assert space.multi.kept == ("center",)
        assert list(space.multi.recall_at_10) == ["none", "center"]
        assert (space.single.kept, space.single.recall_at_10) == ((), {})


# --- a vector is its own


ALL: list[Item] = [*TEXTS, *(IMAGES[size] for size in ((84, 200), (20, 20), (30, 1400)))]


@pytest.mark.parametrize("weights", ["fp32", "int8"])
@pytest.mark.parametrize(("variant", "task"), [("retrieval", None), ("switchable", "code")])
def test_a_vector_does_not_depend_on_its_batch(v4: Exported, variant: str, task: str | None, weights: str) -> None:
    """Texts, images, both; in any order, with or without padding."""
    name = f"{variant}-{weights}"
    alone = np.concatenate([v4.single(name, [item], task) for item in ALL])
    tokens = [v4.multi(name, [item], task)[0] for item in ALL]

    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(st.lists(st.integers(0, len(ALL) - 1), min_size=1, max_size=6), st.sampled_from((256, 100, 10_000)))
    def check(chosen: list[int], budget: int) -> None:
        items = [ALL[index] for index in chosen]
        assert distance(v4.single(name, items, task, budget=budget), alone[chosen]) <= TEXT_TOLERANCE

    check()
    assert largest_token_distance(v4.multi(name, ALL[::-1], task), tokens[::-1]) <= TEXT_TOLERANCE


# --- tasks


@pytest.mark.parametrize("task", TASKS)
def test_switchable_adapters_come_close_to_merged_ones(v4: Exported, task: str) -> None:
    items: list[Item] = [*TEXTS, IMAGES[84, 200], IMAGES[240, 320]]
    assert distance(v4.single("switchable-fp32", items, task), v4.single(f"{task}-fp32", items)) <= 1e-4
    assert largest_token_distance(v4.multi("switchable-fp32", items, task), v4.multi(f"{task}-fp32", items)) <= 1e-4


def test_a_switchable_graph_without_adapter_is_the_base(v4: Exported) -> None:
    """Adapters are chosen call by call."""
    expected = V4Reference.from_checkpoint(v4.checkpoint, None).encode([as_input(item) for item in ALL])
    before = v4.single("switchable-fp32", TEXTS, "code")
    assert distance(v4.single("switchable-fp32", ALL), expected.single) <= IMAGE_TOLERANCE
    assert largest_token_distance(v4.multi("switchable-fp32", ALL), expected.multi) <= IMAGE_TOLERANCE
    np.testing.assert_array_equal(v4.single("switchable-fp32", TEXTS, "code"), before)


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_each_task_has_its_own_vectors(v4: Exported, weights: str) -> None:
    for variant, adapters in (("{}", {}), ("switchable", dict.fromkeys(TASKS, True))):
        found = [v4.single(f"{variant.format(task)}-{weights}", ALL, task if adapters else None) for task in TASKS]
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert (found[one] * found[other]).sum(1).max() < 0.99


def test_both_sides_of_a_comparison_have_one_prompt(v4: Exported) -> None:
    tasks = read_pack(v4.folder).manifest.tasks
    assert list(tasks) == list(TASKS)
    assert tasks["text-matching"].prompts == {"query": Prompt(prefix="Query: "), "passage": Prompt(prefix="Query: ")}
    for task in ("retrieval", "code"):
        assert tasks[task].prompts == {"query": Prompt(prefix="Query: "), "passage": Prompt(prefix="Passage: ")}
    assert {task.default_prompt_name for task in tasks.values()} == {"query"}


def test_every_matrix_of_a_task_is_merged(v4: Exported) -> None:
    for task in read_pack(v4.folder).manifest.tasks.values():
        assert task.adapter is not None
        assert task.adapter.modules == 7 * TINY.text.layers + 1
        assert 0.1 < task.adapter.relative_change < 1


# --- the pack


def external(path: Path) -> dict[str, tuple[str, int, int]]:
    """Places of the tensors of a graph: file, offset, bytes."""
    tensors = [value.const_value for value in ir.load(path).graph.initializers.values()]
    return {
        str(tensor.name): (str(tensor.location), tensor.offset or 0, tensor.length or 0)
        for tensor in tensors
        if isinstance(tensor, ir.ExternalTensor)
    }


def test_what_no_adapter_changes_is_stored_once(v4: Exported) -> None:
    """Embedding, norms and biases: one place for all tasks; only what is merged has three."""
    graphs = {task: external(v4.folder / f"{task}-fp32.onnx") for task in (*TASKS, "switchable")}
    differing = {name for name in graphs["code"] if graphs["code"][name] != graphs["retrieval"][name]}
    merged = {name for name in graphs["code"] if name.endswith("_proj.weight")} | {"multi_vector_projector.weight"}
    assert len(differing) == 7 * TINY.text.layers + 1
    assert differing == merged
    assert len({graph["embed_tokens.weight"] for graph in graphs.values()}) == 1
    # What stays in float32 is the same in all formats.
    for graph, name in (("code", "multi_vector_projector.weight"), ("vision", "visual.patch_embed.proj.weight")):
        places = {external(v4.folder / f"{graph}-{weights}.onnx")[name] for weights in ("fp32", "int8")}
        assert {file for file, _, _ in places} == {"weights/shared.bin"}
        assert len(places) == 1


@pytest.mark.parametrize("file", ["fp32", "int8", "shared"])
def test_files_hold_nothing_but_the_tensors(v4: Exported, file: str) -> None:
    """The vision tower and the embedding are there once, however many tasks read them."""
    spans = {span for path in v4.folder.glob("*.onnx") for span in external(path).values()}
    mine = [length for name, _, length in spans if name == f"weights/{file}.bin"]
    size = (v4.folder / "weights" / f"{file}.bin").stat().st_size
    assert sum(mine) <= size < sum(mine) + 4096 * len(mine)
    assert len({digest(v4.folder, span) for span in spans}) == len(spans)


def digest(folder: Path, span: tuple[str, int, int]) -> tuple[str, bytes]:
    name, offset, length = span
    return name, (folder / name).read_bytes()[offset : offset + length]


def test_the_manifest_names_graphs_and_adapters(v4: Exported) -> None:
    manifest = read_pack(v4.folder).manifest
    assert sorted(manifest.variants) == sorted([*MERGED, *SWITCHABLE])
    assert sorted(manifest.vision) == ["fp32", "int8"]
    assert (manifest.kind, manifest.family, manifest.score) == ("embedder", "qwen2_5_vl", None)
    assert manifest.single == SingleVectors(
        dimensions=64, truncate_dims=(16, 32, 64), pooling="mean", normalized=True, similarity="cosine"
    )
    assert manifest.multi == MULTI
    for weights in ("fp32", "int8"):
        variant = manifest.variants[f"switchable-{weights}"]
        assert (variant.task, variant.adapters) == (None, "switchable")
        assert variant.adapter_files == {task: f"adapters/{task}.{weights}.onnx_adapter" for task in TASKS}
    assert manifest.license.non_commercial


def test_every_variant_gives_its_golden_vectors_again(v4: Exported) -> None:
    pack = read_pack(v4.folder)
    pack.check_files()
    for name, variant in pack.manifest.variants.items():
        assert check_golden(pack, name) <= TOLERANCE[variant.weights]


def test_accuracy_counts_images_and_tokens(v4: Exported) -> None:
    for name, variant in read_pack(v4.folder).manifest.variants.items():
        accuracy = variant.accuracy
        # Four texts and six images, by all adapters.
        assert accuracy.inputs == (30 if name.startswith("switchable") else 10)
        assert accuracy.single is not None
        assert accuracy.multi is not None
        assert accuracy.multi.tokens > 600
        assert accuracy.single.min > {"fp32": 0.99999, "int8": 0.99}[variant.weights]


def test_a_second_export_is_byte_identical(made: Path, tmp_path: Path) -> None:
    """Vision tower and adapters' files too."""
    for name in ("one", "two"):
        export(quick(made, tmp_path / name, tasks=("code",), weights=("fp32",), adapter_modes=("switchable",)))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_images_are_not_needed_for_texts(v4: Exported, tmp_path: Path) -> None:
    manifest = export(quick(v4.checkpoint, tmp_path / "pack", modality="text", weights=("fp32",), tasks=("code",)))
    assert (manifest.image, manifest.vision) == (None, {})
    assert not list((tmp_path / "pack").glob("vision*"))
    assert manifest.multi == MULTI
    encoder = open_encoder(read_pack(tmp_path / "pack"), manifest.variants["code-fp32"], 1)
    options = EncodeOptions(prompt=Prompt(prefix=QUERY))
    texts = list(encoder.processor.items(TEXTS))
    found = single(encoder, TEXTS, options)
    np.testing.assert_allclose(found, v4.single("code-fp32", TEXTS), atol=1e-7)
    assert (
        largest_token_distance(encoder.run_tokens(texts, "token_embeddings", options), v4.multi("code-fp32", TEXTS))
        <= 1e-7
    )
    with pytest.raises(InputError, match=r"item 1 is an image; this pack reads texts only"):
        single(encoder, [TEXTS[0], IMAGES[20, 20]], options)
    full = external(v4.folder / "vision-fp32.onnx")
    left = {name for name in external(tmp_path / "pack" / "code-fp32.onnx") if name in full}
    assert left == set()


# --- other spellings, and checkpoints with less


def test_both_spellings_give_equal_vectors(v4: Exported, tmp_path: Path) -> None:
    newer = make_v4(tmp_path / "toy", V4Options(spelling="new"))
    manifest = export(quick(newer, tmp_path / "pack", tasks=("code",), weights=("fp32",)))
    encoder = open_encoder(read_pack(tmp_path / "pack"), manifest.variants["code-fp32"], 1)
    found = single(encoder, ALL, EncodeOptions(prompt=Prompt(prefix=QUERY)))
    np.testing.assert_array_equal(found, v4.single("code-fp32", ALL))


def test_a_configuration_as_transformers_5_writes_it(v4: Exported, checkpoint: Path, tmp_path: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    text = config["text_config"]
    text["rope_parameters"] = {**text.pop("rope_scaling"), "rope_theta": text.pop("rope_theta")}
    (checkpoint / "config.json").write_text(json.dumps(config))
    manifest = export(quick(checkpoint, tmp_path / "pack", tasks=("code",), weights=("fp32",)))
    encoder = open_encoder(read_pack(tmp_path / "pack"), manifest.variants["code-fp32"], 1)
    found = single(encoder, ALL, EncodeOptions(prompt=Prompt(prefix=QUERY)))
    np.testing.assert_array_equal(found, v4.single("code-fp32", ALL))


def test_a_checkpoint_without_adapters_and_projector(tmp_path: Path) -> None:
    bare = make_v4(tmp_path / "toy", V4Options(adapters=False, projector=False))
    manifest = export(quick(bare, tmp_path / "pack", tasks=("code",), weights=("fp32",)))
    assert list(manifest.tasks) == ["code"]
    assert manifest.tasks["code"].adapter is None
    assert manifest.tasks["code"].prompts == {"query": Prompt(prefix="Query: "), "passage": Prompt(prefix="Passage: ")}
    assert manifest.multi is None
    encoder = open_encoder(read_pack(tmp_path / "pack"), manifest.variants["code-fp32"], 1)
    expected = V4Reference.from_checkpoint(bare, None).encode([as_input(item) for item in ALL])
    found = single(encoder, ALL, EncodeOptions(prompt=Prompt(prefix=QUERY)))
    assert distance(found, expected.single) <= IMAGE_TOLERANCE
    model = Embedder(tmp_path / "pack", threads=1)
    with pytest.raises(InputError, match=r"has no multi-vectors; its checkpoint came without a multi-vector projector"):
        model.encode_multi("a text")


def test_a_checkpoint_without_adapters_is_one_task(tmp_path: Path) -> None:
    bare = make_v4(tmp_path / "toy", V4Options(adapters=False))
    with pytest.raises(CheckpointError, match="tasks code, retrieval: the checkpoint has no adapters"):
        export(quick(bare, tmp_path / "pack", tasks=("code", "retrieval")))
    with pytest.raises(CheckpointError, match="switchable adapters were asked for, but the checkpoint has none"):
        export(quick(bare, tmp_path / "pack", adapter_modes=("switchable",)))
    manifest = export(quick(bare, tmp_path / "pack", tasks=("text-matching",), weights=("fp32",)))
    assert manifest.tasks["text-matching"].prompts == {
        "query": Prompt(prefix="Query: "),
        "passage": Prompt(prefix="Query: "),
    }
    assert manifest.multi == MULTI


def single_file(checkpoint: Path, change: Callable[[Floats], object]) -> None:
    """Base tensors in one file, changed."""
    files = [open_safetensors(checkpoint / shard) for shard in SHARDS]
    tensors = {name: tensor.float32() for file in files for name, tensor in file.tensors.items()}
    change(tensors)
    write_safetensors(checkpoint / "model.safetensors", tensors, {"format": "pt"})
    for name in (*SHARDS, "model.safetensors.index.json"):
        (checkpoint / name).unlink()


def test_tensors_of_the_tower_are_no_obstacle_to_texts_alone(checkpoint: Path, tmp_path: Path) -> None:
    def strip(tensors: Floats) -> None:
        for name in [name for name in tensors if name.startswith("visual.blocks.2.")]:
            del tensors[name]

    single_file(checkpoint, strip)
    settings = quick(checkpoint, tmp_path / "pack", modality="text", weights=("fp32",), tasks=("code",))
    assert export(settings).vision == {}


def test_bounds_of_the_image_may_stand_in_its_size_alone(v4: Exported, checkpoint: Path, tmp_path: Path) -> None:
    edit_json(checkpoint / "preprocessor_config.json", min_pixels=None, max_pixels=None)
    settings = quick(checkpoint, tmp_path / "pack", weights=("fp32",), tasks=("code",))
    assert export(settings).image == read_pack(v4.folder).manifest.image
