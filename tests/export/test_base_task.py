"""A task without an adapter beside adapted ones: in graphs of its own, and in a switchable graph without inputs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from embedpack import Embedder, Embeddings
from embedpack.cli.main import main
from embedpack.pack.strict import AdapterMode
from embedpack.server.served_packs import ServedPacks
from embedpack.server.settings import PackSettings, ServeSettings
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import make_plan
from embedpack_export.reference.opening import ReferenceSource, open_reference
from embedpack_export.reference.torch_reference import TorchReference
from tests.helpers.asgi import post
from tests.helpers.exports import TEXTS, centered_codebook, distance, quick
from tests.helpers.peft_oracle import adapted_by_peft, load_model, mean_vectors, save_adapter
from tests.helpers.server import start_app
from tests.helpers.stacked_checkpoint import TASKS, make_stacked, merged_copy, stacked_family
from tests.helpers.tiny_checkpoint import make_checkpoint

__all__ = ["stacked_family"]
MODES: tuple[AdapterMode, ...] = ("switchable", "merged")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, its adapter, and the pack of both with a task without the adapter."""
    folder = tmp_path_factory.mktemp("base")
    checkpoint = make_checkpoint(folder / "toy")
    adapter = save_adapter(checkpoint, folder / "adapter", target_modules=["word_embeddings", "query", "output.dense"])
    settings = quick(checkpoint, folder / "pack", adapters={"code": adapter}, base_task="general", adapter_modes=MODES)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("embedpack_export.stages.output_codes.fit_codebook", centered_codebook)
        export(settings)
    return folder


def test_the_pack_has_an_adapter_for_the_adapted_task_alone(folder: Path) -> None:
    manifest = Embedder(folder / "pack", variant="switchable-fp32").pack.manifest
    assert {task: found.adapter is not None for task, found in manifest.tasks.items()} == {
        "code": True,
        "general": False,
    }
    assert list(manifest.variants["switchable-int8"].adapter_files) == ["code"]
    assert set(manifest.variants) == {
        f"{name}-{kind}" for name in ("switchable", "code", "general") for kind in ("fp32", "int8")
    }


def test_both_modes_equal_transformers_and_peft(folder: Path) -> None:
    models = {
        "code": adapted_by_peft(folder / "toy", folder / "adapter"),
        "general": load_model(folder / "toy"),
    }
    switchable = Embedder(folder / "pack", variant="switchable-fp32")
    for task in ("code", "general", "code", "general"):
        merged = Embedder(folder / "pack", variant=f"{task}-fp32")
        expected = mean_vectors(models[task], folder / "toy" / "tokenizer.json", TEXTS)
        for model in (switchable, merged):
            assert distance(np.asarray(model.encode(list(TEXTS), task=task)), expected) <= 1e-6


def test_codes_of_the_switchable_graph_are_those_of_the_merged_one(folder: Path) -> None:
    """Also the centers: those of the task without an adapter are the defaults of the inputs."""
    switchable = Embedder(folder / "pack", variant="switchable-fp32")
    for task in ("general", "code"):
        models = (switchable, Embedder(folder / "pack", variant=f"{task}-fp32"))
        steps, merged_steps = (model.encode(list(TEXTS), task=task, precision="int8").codes for model in models)
        assert np.abs(steps.astype(int) - merged_steps).max() <= 1
        bits, merged_bits = (_bits(model.encode(list(TEXTS), task=task, precision="binary")) for model in models)
        # A coordinate may lie on the center, to the last digit.
        assert np.mean(bits == merged_bits) > 0.98
        assert np.mean(bits == (np.asarray(switchable.encode(list(TEXTS), task=task)) > 0)) < 0.9


def _bits(codes: Embeddings) -> npt.NDArray[np.uint8]:
    return np.unpackbits(codes.codes, axis=1)


def test_the_pack_is_verified_and_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder / "pack")]) == 0
    assert main(["inspect", str(folder / "pack")]) == 0
    printed = capsys.readouterr().out
    assert "general: no adapter" in printed
    assert "code: adapter of" in printed


def test_a_pack_with_a_base_task_is_compared_with_its_checkpoint(folder: Path) -> None:
    pack = Embedder(folder / "pack", variant="switchable-fp32").pack
    source = ReferenceSource(folder / "toy", {"code": folder / "adapter"}, None)
    reference = open_reference(pack, source, 1)
    for task in ("general", "code"):
        found = np.asarray(Embedder(folder / "pack", variant=f"{task}-fp32").encode(list(TEXTS)))
        assert distance(found, reference.single(task, TEXTS)) <= 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_the_server_answers_both_tasks(folder: Path, mode: AdapterMode) -> None:
    served = PackSettings(name="toy", folder=folder / "pack", weights="fp32", adapters=mode)
    settings = ServeSettings(packs=(served,), threads=1)
    packs = ServedPacks.open(settings)
    running = start_app(settings, packs, packs.load, None)
    try:
        for task in ("general", "code", "general"):
            answer = post(running.app, {"model": "toy", "task": task, "input": list(TEXTS)})
            found = [item["embedding"] for item in answer.json["data"]]
            merged = Embedder(folder / "pack", variant=f"{task}-fp32")
            assert distance(found, np.asarray(merged.encode(list(TEXTS)))) <= 1e-6
    finally:
        running.engine.stop()


@pytest.mark.usefixtures("stacked_family")
def test_stacked_adapters_and_their_base_equal_transformers_in_both_modes(tmp_path: Path) -> None:
    tables = ("embeddings.word_embeddings", "embeddings.token_type_embeddings")
    stacked = make_stacked(tmp_path / "toy", (*tables, "encoder.layer.0.attention.self.query"))
    export(quick(stacked, tmp_path / "pack", adapter_modes=MODES, weights=("fp32",)))
    switchable = Embedder(tmp_path / "pack", variant="switchable-fp32")
    vectors = {}
    for task in ("base", *TASKS):
        plain = merged_copy(stacked, None if task == "base" else task, tmp_path / "plain")
        vectors[task] = mean_vectors(load_model(plain), plain / "tokenizer.json", TEXTS)
        for embedder in (switchable, Embedder(tmp_path / "pack", variant=f"{task}-fp32")):
            assert distance(np.asarray(embedder.encode(list(TEXTS), task=task)), vectors[task]) <= 1e-6
        shutil.rmtree(plain)
    reference = TorchReference(make_plan(quick(stacked, tmp_path / "other")))
    for task, expected in vectors.items():
        assert distance(reference.single(task, TEXTS), expected) <= 1e-6
    assert distance(vectors["base"], vectors["query"]) > 1e-3
    assert distance(vectors["passage"], vectors["query"]) > 1e-3
