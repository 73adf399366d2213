"""jina-clip-v2 at toy size: texts and images against torch, its pack at every door, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedpack import Embedder, Embeddings, InputError, similarity
from embedpack.cli.main import main
from embedpack.engine.encoder import Encoder
from embedpack.engine.golden import check_golden
from embedpack.engine.options import EncodeOptions
from embedpack.errors import CheckpointError, PackError
from embedpack.inputs.items import Input
from embedpack.pack.codebooks import Codebooks, open_codebooks
from embedpack.pack.folder import read_pack
from embedpack.pack.input_recipes import SquareImage
from embedpack.server.served_packs import ServedPacks
from embedpack.server.settings import PackSettings, ServeSettings
from embedpack.server.tasks import choose_task, task_names
from embedpack.storage.safetensors import write_safetensors
from embedpack.vectors.codes import PRECISIONS, Precision, quantize, unit
from embedpack_export.pipeline import export
from embedpack_export.reference.torch.jina_clip import ClipReference
from embedpack_export.stages.calibration_images import calibration_images
from tests.fuzz.packs import PackCopy
from tests.helpers.asgi import post
from tests.helpers.exports import (
    Arrays,
    center_helps,
    distance,
    edit_json,
    edit_tensors,
    quick,
    read_tensors,
    write_adapter,
)
from tests.helpers.peft_oracle import load_model, mean_vectors
from tests.helpers.plans import plan, refuse
from tests.helpers.server import Running, start_app
from tests.helpers.tiny_jina_clip import (
    DIMS,
    GATED,
    GRID,
    HIDDEN,
    IMAGE,
    INSTRUCTION,
    LAYERS,
    RANK,
    TASK,
    VISION,
    make_jina_clip,
)
from tests.helpers.tiny_jina_v3 import CONFIG as V3_CONFIG
from tests.helpers.tiny_jina_v3 import as_transformers

Pixels = npt.NDArray[np.uint8]
Edit = Callable[[Arrays], object]

FAMILY, FILE, NAME = "jina_clip", "model.safetensors", "retrieval"
TEXT_TOLERANCE, IMAGE_TOLERANCE = 1e-6, 1e-5
PREFIX, PARTS = "text_model.transformer.", ".parametrizations.weight"
TEXTS = ("find the cat on a roof", "a", "  white space around \n", "Stra\u00dfe? 42% " * 30)
# Sizes that are enlarged, made smaller, and cut at the sides or above and below, by odd numbers of pixels too.
SIZES = ((60, 60), (20, 31), (300, 170), (57, 140), (1, 9), (200, 3))


def drawn(height: int, width: int) -> Pixels:
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = np.stack([columns * 255 // width, rows * 255 // height, (rows + columns) % 256], -1)
    noise = np.random.default_rng(height * 1000 + width).integers(-40, 41, (height, width, 3))
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


IMAGES = [drawn(*size) for size in SIZES]
MIXED: list[str | Pixels] = [TEXTS[0], IMAGES[0], TEXTS[3], IMAGES[3], TEXTS[1]]
INPUTS: list[Input] = [*MIXED]


@dataclass(frozen=True)
class Case:
    """A checkpoint with its pack, and the towers in torch."""

    checkpoint: Path
    pack: Path
    reference: ClipReference

    def model(self, weights: str) -> Embedder:
        return Embedder(self.pack, weights=weights, threads=1)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("clip")
    checkpoint = make_jina_clip(folder / "toy")
    with pytest.MonkeyPatch.context() as patch:
        # Few vectors; their codes have a center all the same.
        patch.setattr("embedpack_export.quantization.codebook_fit.MIN_VECTORS", 4)
        patch.setattr("embedpack_export.quantization.codebook_fit.neighbour_recall", center_helps)
        export(quick(checkpoint, folder / "pack", reference=None, max_loss=100.0))
    return Case(checkpoint, folder / "pack", ClipReference(plan(checkpoint), NAME))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint to copy and damage."""
    return make_jina_clip(tmp_path_factory.mktemp("plain") / "toy")


@pytest.fixture
def copied(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "toy"))


# --- against torch


@pytest.mark.parametrize(("name", "prefix"), [(None, ""), ("", ""), ("query", INSTRUCTION)])
def test_texts_equal_torch_at_every_truncation(case: Case, name: str | None, prefix: str) -> None:
    expected = case.reference.encode(list(TEXTS), prefix)
    with case.model("fp32") as model:
        for size in DIMS:
            found = model.encode(list(TEXTS), prompt_name=name, truncate_dim=size).decode()
            assert distance(found, expected[:, :size]) <= TEXT_TOLERANCE


def test_images_equal_torch_with_their_pixels_at_every_truncation(case: Case) -> None:
    expected = case.reference.encode(IMAGES)
    with case.model("fp32") as model:
        for size in DIMS:
            found = model.encode(list(IMAGES), truncate_dim=size).decode()
            assert distance(found, expected[:, :size]) <= IMAGE_TOLERANCE
    others = [distance(one[None], other[None]) for number, one in enumerate(expected) for other in expected[:number]]
    assert min(others) > 100 * IMAGE_TOLERANCE


def test_the_adapter_is_part_of_every_text(case: Case, tmp_path: Path) -> None:
    """The text tower as a model of transformers, with scale x B A in its weights."""
    (tmp_path / "v3").mkdir()
    shutil.copy(case.checkpoint / "tokenizer.json", tmp_path / "v3")
    tensors = {
        name.removeprefix(PREFIX): values.astype(np.float32)
        for name, values in read_tensors(case.checkpoint / FILE).items()
        if name.startswith(PREFIX)
    }
    write_safetensors(tmp_path / "v3" / FILE, tensors, {"format": "pt"})
    kwargs = json.loads((case.checkpoint / "config.json").read_text())["text_config"]["hf_model_config_kwargs"]
    (tmp_path / "v3/config.json").write_text(json.dumps({**V3_CONFIG, **kwargs}))
    with case.model("fp32") as model:
        found = model.encode(list(TEXTS)).decode()
    texts = [text.strip() for text in TEXTS]
    merged, base = (
        mean_vectors(load_model(as_transformers(tmp_path / "v3", tmp_path / str(task), task)),
                     case.checkpoint / "tokenizer.json", texts)
        for task in (TASK, None)
    )  # fmt: skip
    assert distance(found, merged) <= TEXT_TOLERANCE
    assert distance(found, base) > 0.01


def test_the_vector_of_an_input_does_not_depend_on_the_others(case: Case) -> None:
    with case.model("fp32") as model:
        alone = np.concatenate([model.encode([item]).decode() for item in INPUTS])
        is_image = np.array([not isinstance(item, str) for item in INPUTS])

        @settings(max_examples=8, deadline=None, derandomize=True)
        @given(st.lists(st.integers(0, len(INPUTS) - 1), min_size=1, max_size=6))
        def check(chosen: list[int]) -> None:
            found = model.encode([INPUTS[index] for index in chosen]).decode()
            assert distance(found, alone[chosen]) <= TEXT_TOLERANCE
            images = is_image[chosen]
            np.testing.assert_array_equal(found[images], alone[chosen][images])

        check()


# --- weights formats and codes


def test_int8_weights_are_close_to_float32(case: Case) -> None:
    inputs: list[Input] = [*TEXTS, *IMAGES]
    with case.model("fp32") as exact, case.model("int8") as model:
        assert distance(model.encode(inputs).decode(), exact.encode(inputs).decode()) <= 2e-3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_texts_and_images_are_scored_against_each_other(case: Case, precision: Precision) -> None:
    with case.model("fp32") as model:
        texts, images = model.encode(list(TEXTS), prompt_name="query"), model.encode(list(IMAGES))
        coded = model.encode(list(IMAGES), precision=precision)
        assert coded.space == texts.space == images.space
        scores = similarity(texts, coded)
        np.testing.assert_allclose(scores, texts.decode() @ coded.decode().T, atol=1e-5)
        np.testing.assert_array_equal(scores, similarity(texts, decoded_of_scratch(case, images, precision)))


def decoded_of_scratch(case: Case, vectors: Embeddings, precision: Precision) -> Embeddings:
    """Codes of vectors, made with the codebook and the scale of the pack."""
    pack = read_pack(case.pack)
    space = pack.manifest.spaces[NAME].single
    codebook = codebooks(case).single
    assert space is not None
    quantizer = {"float32": None, "float16": None, "int8": space.int8_scale}.get(precision, codebook)
    codes = quantize(vectors.codes, precision, quantizer)
    used = codebook if quantizer is codebook else None
    return Embeddings(codes, precision, vectors.dimensions, vectors.space, codebook=used)


def codebooks(case: Case) -> Codebooks:
    return open_codebooks(read_pack(case.pack), NAME)


def test_both_graphs_alone_give_the_same_codes(case: Case) -> None:
    with case.model("fp32") as model:
        encoder: Encoder = model._encoder
        items = list(encoder.processor.items(INPUTS))
        outputs = [
            encoder.run(items, f"sentence_embedding{code}", EncodeOptions()) for code in ("", "_int8", "_binary")
        ]
    codebook, space = codebooks(case).single, read_pack(case.pack).manifest.spaces[NAME]
    assert codebook is not None
    assert space.single is not None
    assert codebook.center.any()
    np.testing.assert_array_equal(outputs[1], quantize(outputs[0], "int8", space.single.int8_scale))
    near = np.abs(codebook.centered(outputs[0])) < 1e-6
    bits = np.unpackbits(outputs[2], axis=1) == np.unpackbits(quantize(outputs[0], "binary", codebook), axis=1)
    assert (bits | near).all()


def test_the_center_of_the_codes_is_halfway_between_texts_and_images(case: Case) -> None:
    """The mean of all vectors would be among the texts, of which most exports have more."""
    planned = plan(case.checkpoint)
    with case.model("fp32") as model:
        texts = model.encode([text.text for text in planned.calibration.texts]).codes
        images = model.encode(list(calibration_images(planned.seed))).codes
    assert len(texts) != len(images)
    codebook = codebooks(case).single
    assert codebook is not None
    expected = (texts.mean(axis=0) + images.mean(axis=0)) / 2
    np.testing.assert_allclose(codebook.center, expected, atol=1e-5)


def test_codes_are_fitted_to_texts_and_images(case: Case) -> None:
    manifest = read_pack(case.pack).manifest
    images, texts = 6, 4
    assert manifest.spaces[NAME].inputs == images + texts
    check = manifest.variants[f"{NAME}-int8"].checks[NAME]
    assert (check.reference, check.texts) == ("torch", texts)
    assert check.images is not None
    assert check.images.images == images
    assert check.images.single is not None
    assert check.images.single.min >= 0.995


# --- the pack


def test_the_manifest(case: Case) -> None:
    manifest = read_pack(case.pack).manifest
    assert manifest.family == FAMILY
    assert isinstance(manifest.image, SquareImage)
    assert (manifest.image.size, manifest.image.resize, manifest.image.filter) == (IMAGE, "shortest", "bicubic")
    assert {graph.gives for graph in manifest.vision.values()} == {"vectors"}
    (task,) = manifest.tasks.values()
    assert {name: prompt.prefix for name, prompt in task.prompts.items()} == {"query": INSTRUCTION}
    assert task.default_prompt_name is None
    assert manifest.variants[f"{NAME}-fp32"].adapters == "merged"


@pytest.mark.parametrize(
    ("weights", "index", "distance", "limit"),
    [("int8", -1, 0.015, None), ("int8", -1, 0.025, "2e-02"), ("int8", 0, 0.015, "1e-03"), ("fp32", -1, 1e-4, "1e-06")],
)
def test_quantized_images_may_differ_as_much_as_from_float32(
    case: Case, tmp_path: Path, weights: str, index: int, distance: float, limit: str | None
) -> None:
    """Twice the largest measured error; texts, and float32, have the limits of other packs."""
    pack, variant, file = PackCopy(case.pack, tmp_path / "pack"), f"{NAME}-{weights}", "report/golden.json"
    manifest, golden = pack.manifest, json.loads(pack.read(file))
    manifest["variants"][variant]["accuracy"]["single"]["min"] = 0.99
    vector = np.array(golden["vectors"][variant][index])
    first = np.eye(HIDDEN)[0]
    away = unit(first - first @ vector * vector)
    cosine = 1 - distance
    golden["vectors"][variant][index] = (cosine * vector + (1 - cosine**2) ** 0.5 * away).tolist()
    with pack.replaced({file: json.dumps(golden).encode()}, manifest) as folder:
        if limit is None:
            assert check_golden(read_pack(folder), variant) == pytest.approx(distance, rel=0.05)
            return
        with pytest.raises(PackError, match=f"at most {limit} expected"):
            check_golden(read_pack(folder), variant)


def test_tasks_of_jinas_api(case: Case) -> None:
    """Requests without a task are documents."""
    manifest = read_pack(case.pack).manifest
    names = task_names(manifest.tasks)
    for task, prefix in ((TASK, INSTRUCTION), ("retrieval.passage", ""), (None, "")):
        found = choose_task(names, task, manifest.unnamed_task)
        assert (found.task, found.prompt.prefix) == (NAME, prefix)


def test_the_command_line(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("inspect", "verify"):
        assert main([command, str(case.pack)]) == 0
    shown = capsys.readouterr().out
    assert f"images      {IMAGE} x {IMAGE} pixels" in shown
    Image.fromarray(IMAGES[2]).save(tmp_path / "page.png")
    (tmp_path / "texts.txt").write_text("find the cat on a roof\n")
    out = tmp_path / "vectors.npz"
    files = [str(tmp_path / name) for name in ("page.png", "texts.txt")]
    assert main(["embed", str(case.pack), *files, "-o", str(out), "--precision", "binary"]) == 0
    with Embedder(case.pack) as model:
        expected = model.encode([IMAGES[2], TEXTS[0]], precision="binary")
    np.testing.assert_array_equal(Embeddings.load(out).codes, expected.codes)
    prepared = ["prepare", str(case.pack), "--variant", f"{NAME}-int8", "--cache", str(tmp_path / "cache")]
    assert main(prepared) == 0


@pytest.fixture(scope="module")
def served(case: Case) -> Iterator[Running]:
    serving = ServeSettings(packs=(PackSettings(name="clip", folder=case.pack, weights="fp32"),), threads=1)
    packs = ServedPacks.open(serving)
    running = start_app(serving, packs, packs.load, None)
    yield running
    running.engine.stop()


def png(image: Pixels) -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def test_the_server_takes_texts_and_images_in_one_request(case: Case, served: Running) -> None:
    inputs = [{"text": item} if isinstance(item, str) else {"image": png(item)} for item in MIXED]
    answer = post(served.app, {"model": "clip", "input": inputs, "task": TASK, "truncate": True})
    assert answer.status == 200, answer.body
    found = np.array([item["embedding"] for item in answer.json["data"]], np.float32)
    with case.model("fp32") as model:
        assert distance(found, model.encode(INPUTS, prompt_name="query").decode()) <= TEXT_TOLERANCE
        texts = model._encoder.processor.process(model._encoder.processor.items(TEXTS), "")
    assert answer.json["usage"]["total_tokens"] > 2 * (GRID**2 + 1) + len(texts)


def test_the_server_refuses_what_is_no_image(served: Running) -> None:
    broken = base64.b64encode(base64.b64decode(png(IMAGES[0]))[:200]).decode()
    answer = post(served.app, {"model": "clip", "input": [{"image": broken}]})
    assert answer.status == 422
    assert b"damaged or cut off" in answer.body


def test_multi_vectors_and_other_sizes_are_refused(case: Case) -> None:
    with case.model("fp32") as model:
        with pytest.raises(InputError, match="multi-vectors"):
            model.encode_multi([IMAGES[0]])
        with pytest.raises(InputError, match="max_pixels is of no use: this model reads all images in one size"):
            model.encode([IMAGES[0]], max_pixels=1000)


# --- what is refused


def drop(*names: str) -> Edit:
    return lambda tensors: [tensors.pop(name) for name in names]


def change(name: str, values: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], as_name: str = "") -> Edit:
    return lambda tensors: tensors.update({as_name or name: values(tensors[name])})


QKV, Q_BIAS = f"{PREFIX}roberta.encoder.layers.1.mixer.Wqkv", "vision_model.blocks.1.attn.q_bias"
POSITIONS, W3 = "vision_model.pos_embed", "vision_model.blocks.0.mlp.w3.weight"
TENSORS: dict[str, tuple[Edit, str]] = {
    "no bias of the queries": (drop(Q_BIAS), f"{{folder}}: tensor '{Q_BIAS}' is missing; is a shard or a file incomp"),
    "no class token": (drop("vision_model.cls_token"), "{folder}: tensor 'vision_model.cls_token' is missing; is a"),
    "positions of another grid": (
        change(POSITIONS, lambda values: values[:, :-1]),
        f"{{file}}: {POSITIONS} has the shape [1, {GRID**2}, {HIDDEN}], config.json needs [1, {GRID**2 + 1}, {HIDDEN}]",
    ),
    "a narrow layer": (
        change(W3, lambda values: values[:, :-1]),
        f"{{file}}: {W3} has the shape [{HIDDEN}, {GATED - 1}], config.json needs [{HIDDEN}, {GATED}]",
    ),
    "a bias of the keys": (
        change(Q_BIAS, np.copy, as_name="vision_model.blocks.1.attn.k_bias"),
        "{folder}: unused tensors: vision_model.blocks.1.attn.k_bias; is it another architecture?",
    ),
    "a tensor of neither tower": (
        change("logit_scale", np.copy, as_name="text_projection.weight"),
        "{folder}: unused tensors: text_projection.weight; is it another architecture?",
    ),
    "two adapters": (
        change(f"{QKV}{PARTS}.0.lora_A", lambda values: np.concatenate([values, values])),
        f"{{file}}: {QKV}{PARTS}.0.lora_A has the shape [2, {RANK}, {HIDDEN}], not [1, ., .] for the tasks retrieval",
    ),
    "an adapter of some modules": (
        drop(f"{QKV}{PARTS}.0.lora_A", f"{QKV}{PARTS}.0.lora_B"),
        f"{{folder}}: the adapter of 'retrieval' changes {4 * LAYERS + 1} modules, not all {4 * LAYERS + 2}; ",
    ),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_of_another_model(copied: Path, kind: str) -> None:
    edit, message = TENSORS[kind]
    edit_tensors(copied / FILE, edit)
    with pytest.raises(CheckpointError) as caught:
        export(quick(copied, copied.parent / "pack", weights=("fp32",)))
    assert str(caught.value).startswith(message.format(folder=copied, file=copied / FILE))
    assert not (copied.parent / "pack").exists()


def nested(copied: Path, *path: str, **changes: Any) -> None:
    """Change values of an object of config.json; None takes a key out."""
    content = json.loads((copied / "config.json").read_text())
    target = content
    for name in path:
        target = target[name]
    target |= changes
    for key in [key for key, value in changes.items() if value is None]:
        del target[key]
    (copied / "config.json").write_text(json.dumps(content))


TEXT, KWARGS = ("text_config",), ("text_config", "hf_model_config_kwargs")
NEEDED = (
    *(((), key) for key in ("text_config", "vision_config", "matryoshka_dimensions")),
    *((TEXT, key) for key in ("embed_dim", "hf_model_config_kwargs", "default_lora_task", "pooler_type")),
    *((KWARGS, key) for key in ("lora_adaptations", "lora_rank", "lora_alpha", "task_instructions")),
    *((("vision_config",), key) for key in VISION if key in {
        "embed_dim", "width", "layers", "head_width", "mlp_ratio", "image_size", "patch_size", "pt_hw_seq_len",
        "rope_embeddings", "intp_freq", "naive_swiglu", "subln",
    }),
)  # fmt: skip


@pytest.mark.parametrize(("path", "key"), NEEDED)
def test_a_configuration_without_a_needed_key(copied: Path, path: tuple[str, ...], key: str) -> None:
    nested(copied, *path, **{key: None})
    within = ".".join(path)
    message = f"Object missing required field `{key}`"
    refuse(copied, f"{copied / 'config.json'}: {f'{within}: ' if within else ''}{message}")


@pytest.mark.parametrize("key", ["size", "mean", "std", "resize_mode", "interpolation"])
def test_a_preprocessor_without_a_needed_key(copied: Path, key: str) -> None:
    edit_json(copied / "preprocessor_config.json", **{key: None})
    refuse(copied, f"{copied / 'preprocessor_config.json'}: Object missing required field `{key}`")


WRONG: tuple[tuple[tuple[str, ...], dict[str, Any], str], ...] = (
    ((), {"add_projections": True}, "add_projections is True; supported: false; projections are not supported; "),
    ((), {"text_projection": 1}, "unknown key 'text_projection' with the value 1; "),
    (TEXT, {"hf_model_name_or_path": "BAAI/bge-m3"}, "text_config.hf_model_name_or_path is 'BAAI/bge-m3'; supported: "),
    (TEXT, {"pooler_type": "cls_pooler"}, "text_config.pooler_type is 'cls_pooler'; supported: mean_pooler, mean; "),
    (TEXT, {"embed_dim": 32}, f"text_config.embed_dim is 32, the text tower has {HIDDEN} channels; are both of one"),
    (TEXT, {"default_lora_task": "code"}, "the text tower has one adapter that is always on; lora_adaptations are "),
    (KWARGS, {"lora_ranks": 4}, "unknown key 'text_config.hf_model_config_kwargs.lora_ranks' with the value 4; did"),
    (("vision_config",), {"subln": False}, "vision_config.subln is False; supported: true; "),
    (("vision_config",), {"ls_init_value": 0.1}, "vision_config.ls_init_value is 0.1; supported: null; layer scales"),
    (("vision_config",), {"patch_size": 61}, f"vision_config has images of {IMAGE} and patches of 61 pixels, and "),
    (("vision_config",), {"head_width": 4}, f"{HIDDEN} channels in 16 attention heads of the vision tower; only "),
    (("vision_config",), {"embed_dim": 32}, f"vision_config has embed_dim 32 and width {HIDDEN}, text_config has "),
)  # fmt: skip


@pytest.mark.parametrize(("path", "changes", "message"), WRONG, ids=str)
def test_a_configuration_of_another_model(
    copied: Path, path: tuple[str, ...], changes: dict[str, Any], message: str
) -> None:
    nested(copied, *path, **changes)
    with pytest.raises(CheckpointError) as caught:
        plan(copied)
    assert (
        str(caught.value).removeprefix(f"{copied / 'config.json'}: ").removeprefix("config.json: ").startswith(message)
    )


def test_images_of_another_size_than_the_tower(copied: Path) -> None:
    path = copied / "preprocessor_config.json"
    edit_json(path, size=112)
    refuse(
        copied,
        f"{path}: size is 112, the vision tower of config.json takes images of {IMAGE} pixels; are both of one model?",
    )
    path.unlink()
    refuse(copied, f"{path}: missing; is {copied} the folder of a model?")
    assert plan(copied, modality="text").model.vision is None


def test_no_adapter_replaces_that_of_the_model(copied: Path) -> None:
    adapter = write_adapter(copied.parent / "adapter", {"x.lora_A.weight": np.zeros((4, HIDDEN), np.float32)})
    given: dict[str, dict[str, Any]] = {
        "--adapter": {"adapters": {"own": adapter}},
        "--base-task": {"base_task": "base"},
    }
    for option, changes in given.items():
        refuse(
            copied,
            f"{option} is of no use: the adapter in {copied} is a part of the model, and vectors without it cannot be "
            "compared with those of its images; leave it out",
            **changes,
        )


def test_a_pack_of_texts_alone(copied: Path) -> None:
    export(quick(copied, copied.parent / "pack", weights=("fp32",), modality="text"))
    assert read_pack(copied.parent / "pack").manifest.image is None
