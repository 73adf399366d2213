"""Packs of format 2.0: the committed one works, and its manifest is read as one of today's format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedpack import Embedder, similarity
from embedpack.cli.main import main
from embedpack.engine.golden import TOLERANCE, check_golden
from embedpack.pack.accuracy_records import Accuracy, Check, Cosines, TokenCosines
from embedpack.pack.folder import listed_files, read_pack, write_manifest
from embedpack.pack.input_recipes import Prompt, QwenImage
from embedpack.pack.manifest import MultiVectors, SingleVectors
from embedpack.pack.upgrade import upgraded
from tests.helpers.broken_packs import IMAGE, Change, drop, put, refusal
from tests.helpers.tiny_pack import PACK_2_0

VARIANTS = ("retrieval-int8", "code-int8", "switchable-int8")
TASKS = ("retrieval", "code")
# Of the embedpack that wrote it: saved vectors have these names.
SPACES = {task: f"toy-bert/{task}/2b86b3d6547ec5a5" for task in TASKS}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the pack, to be broken."""
    return Path(shutil.copytree(PACK_2_0, tmp_path / "pack"))


def edit(pack: Path, change: Change) -> None:
    """Change the manifest of a pack in place."""
    manifest = json.loads((pack / "pack.json").read_bytes())
    change(manifest)
    (pack / "pack.json").write_text(json.dumps(manifest))


def old_manifest() -> dict[str, Any]:
    """The manifest of the pack, as its file has it."""
    manifest: dict[str, Any] = json.loads((PACK_2_0 / "pack.json").read_bytes())
    return manifest


@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_vectors_hold(variant: str) -> None:
    assert check_golden(read_pack(PACK_2_0), variant) <= TOLERANCE["int8"]


@pytest.mark.parametrize("adapters", ["merged", "switchable"])
@pytest.mark.parametrize("precision", ["float32", "int8", "binary"])
def test_vectors_are_in_the_spaces_of_format_2(adapters: Any, precision: str) -> None:
    for task in TASKS:
        model = Embedder(PACK_2_0, task=task, adapters=adapters, threads=1)
        query = model.encode("a cat", prompt_name="query", task=task, truncate_dim=16)
        document = model.encode(["the cat", "list files"], prompt_name="passage", task=task, precision=precision)
        multi = model.encode_multi("a cat", task=task, precision=precision)
        assert query.space == document.space == multi.space == SPACES[task]
        assert similarity(query, document.truncate(16)).shape == (1, 2)


def test_its_files_are_listed_so_that_it_can_be_overwritten() -> None:
    assert listed_files(PACK_2_0) == set(old_manifest()["files"])


def test_verify_and_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(PACK_2_0)]) == 0
    assert main(["inspect", str(PACK_2_0)]) == 0
    shown = capsys.readouterr().out
    for part in ("pack format 2.0", "  prompt    query                'query: '", "space       code: codes", "allowed"):
        assert (part in shown) == (part != "allowed"), part


def test_the_manifest_in_todays_format(tmp_path: Path) -> None:
    pack = read_pack(PACK_2_0)
    manifest, before = pack.manifest, old_manifest()
    assert (pack.format, manifest.format, manifest.kind) == ("2.0", "3.0", "embedder")
    assert manifest.single == SingleVectors(
        dimensions=32, truncate_dims=(8, 16, 32), pooling="mean", normalized=True, similarity="cosine"
    )
    assert manifest.multi == MultiVectors(dimensions=16, truncate_dims=(16,))
    assert (manifest.score, manifest.default_task, manifest.late_chunking) == (None, None, False)
    for name, task in manifest.tasks.items():
        codes, found = before["tasks"][name], manifest.codes(name)
        assert task.space == name
        assert task.prompts == {"query": Prompt(prefix="query: "), "passage": Prompt(prefix="passage: ")}
        assert (found.codebooks, found.inputs) == (codes["codes"]["file"], codes["codes"]["texts"])
        assert found.single is not None
        assert found.multi is not None
        assert (found.single.int8_scale, found.multi.int8_scale) == (codes["int8_scale"], codes["token_int8_scale"])
        assert found.single.recall_at_10 == codes["codes"]["agreement"]
        assert found.multi.recall_at_10 == codes["token_codes"]["agreement"]
    for name, variant in manifest.variants.items():
        checks = before["variants"][name]["checks"]
        assert {task: check.outcome for task, check in variant.checks.items()} == {
            task: check["verdict"] for task, check in checks.items()
        }
        pairs: list[tuple[Accuracy | Check, Any]] = [(variant.accuracy, before["variants"][name]["accuracy"])]
        pairs += [(check, checks[task]) for task, check in variant.checks.items()]
        for read, figures in pairs:
            mean, p1, lowest = (figures[f"cosine_{part}"] for part in ("mean", "p1", "min"))
            tokens = figures["tokens"]
            assert read.single == Cosines(mean=mean, p1=p1, min=lowest)
            assert read.multi == TokenCosines(
                tokens=tokens["tokens"], mean=tokens["cosine_mean"], p1=tokens["cosine_p1"]
            )
    # Written again, it is a manifest of today's format.
    write_manifest(tmp_path, manifest)
    assert read_pack(tmp_path).manifest == manifest


def test_a_manifest_with_images() -> None:
    """In the layout of jina-embeddings-v4."""
    value = old_manifest()
    value["image"] = {name: field for name, field in IMAGE.items() if name not in ("type", "hidden")}
    graph = {"graph": "vision.onnx", "external_data": ["weights/int8.bin"], "operators": ["ai.onnx.Add"]}
    value["vision"] = {"int8": graph}
    manifest = upgraded(value)
    assert isinstance(manifest.image, QwenImage)
    assert (manifest.image.hidden, manifest.image.window_size, manifest.image.token) == (32, 4, 10)
    vision = manifest.vision["int8"]
    assert (vision.gives, vision.graph_files) == ("tokens", ("vision.onnx", "weights/int8.bin"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("color", "red"), "Object contains unknown field `color`"),
        (put("single", None), "Object contains unknown field `single`"),
        (put("tasks", "code", "space", "code"), "Object contains unknown field `space` - at `$.tasks[...]`"),
        (
            put("tasks", "code", "codes", "color", 1),
            "Object contains unknown field `color` - at `$.tasks[...].codes`",
        ),
        (drop("pooling"), "Object missing required field `pooling`"),
        (put("dimensions", "32"), "Expected `int`, got `str` - at `$.dimensions`"),
        (put("pooling", "max"), "Invalid enum value 'max' - at `$.pooling`"),
        (
            put("tasks", "code", "token_codes", None),
            "token_codes and multi_vector_dimensions do not agree - at `$.tasks['code'].token_codes`",
        ),
        (
            put("multi_vector_dimensions", None),
            "token_int8_scale and multi_vector_dimensions do not agree - at `$.tasks['retrieval'].token_int8_scale`",
        ),
        (
            put("tasks", "code", "token_codes", "file", "LICENSE"),
            "the codebooks of a task must be in one file - at `$.tasks['code'].token_codes.file`",
        ),
    ],
)
def test_broken_manifests_have_the_paths_of_their_format(old: Path, change: Change, message: str) -> None:
    edit(old, change)
    found = refusal(old, lambda: read_pack(old))
    assert found == f"PACK/pack.json: {message} (format 2.0, this embedpack writes 3.0)"


def test_contradictions_are_found(old: Path) -> None:
    edit(old, put("text", "pad_token_id", 10_000))
    assert refusal(old, lambda: read_pack(old)) == (
        "PACK/pack.json: the pad token is not below the vocabulary, 252 - at `$.text.pad_token_id` "
        "(format 2.0, read as 3.0)"
    )


def test_both_modes_give_the_same_vectors() -> None:
    found = [
        Embedder(PACK_2_0, task="code", adapters=adapters, threads=1).encode(["a cat", "list files"]).codes
        for adapters in ("merged", "switchable")
    ]
    assert np.sum(found[0] * found[1], axis=1).min() > 0.9999
