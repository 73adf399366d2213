"""Heads of sentence-transformers' folders: Dense, LayerNorm and pooling, compared with sentence-transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedpack import CheckpointError, Embedder
from embedpack.vectors.arrays import Float32
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import make_plan
from embedpack_export.reference.reading_check import check_reading
from embedpack_export.reference.torch.text_model import TextModel
from embedpack_export.sources.head_layers import Dense
from tests.helpers.exports import distance, edit_json, edit_tensors, exactly, query_update, quick, write_adapter
from tests.helpers.module_folders import TEXTS, dense, layer_norm, normalize, oracle, pooling, save_modules
from tests.helpers.plans import plan, refuse

CHAIN = (32, 48, 24)
HEADS: Mapping[str, Callable[[], list[torch.nn.Module]]] = {
    "tanh": lambda: [pooling(), dense(32, 24, torch.nn.Tanh()), normalize()],
    "no bias": lambda: [pooling("cls"), dense(32, 40, torch.nn.Identity(), bias=False), normalize()],
    "chain": lambda: [
        pooling("lasttoken"),
        dense(32, 48, torch.nn.GELU(), seed=3),
        dense(48, 24, torch.nn.SiLU(), seed=4),
        normalize(),
    ],
    "relu": lambda: [pooling(), dense(32, 48, torch.nn.ReLU()), dense(48, 24, torch.nn.Sigmoid()), normalize()],
    "max": lambda: [pooling("max"), normalize()],
    "weighted mean": lambda: [pooling("weightedmean"), normalize()],
    "sqrt": lambda: [pooling("mean_sqrt_len_tokens"), dense(32, 24, torch.nn.Tanh()), normalize()],
    "layer norm": lambda: [pooling(), layer_norm(32), normalize()],
}


@pytest.fixture(scope="module", params=list(HEADS))
def headed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("headed") / "checkpoint"
    return save_modules(folder, *HEADS[request.param]())


def vectors(pack: Path, weights: str, texts: list[str]) -> Float32:
    return Embedder(pack, weights=weights).encode(texts, prompt_name="").decode()


def test_vectors_equal_sentence_transformers(headed: Path, tmp_path: Path) -> None:
    settings = quick(headed, tmp_path / "pack", weights=("fp32", "int8"))
    manifest = export(settings)
    expected = oracle(headed, prompt="")
    assert manifest.single is not None
    assert manifest.single.dimensions == expected.shape[1]
    found = vectors(settings.output, "fp32", list(TEXTS))
    assert distance(found, expected) <= 1e-6
    np.testing.assert_allclose(found, expected, atol=1e-5)
    alone = np.concatenate([vectors(settings.output, "fp32", [text]) for text in TEXTS])
    assert distance(alone, found) <= 1e-6
    assert distance(vectors(settings.output, "int8", list(TEXTS)), expected) <= 0.02
    reference = TextModel.load(make_plan(settings), None)
    assert distance(reference.encode(list(TEXTS)), expected) <= 1e-6
    assert manifest.source.files.keys() >= {"modules.json", "1_Pooling/config.json"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    return save_modules(folder, pooling(), dense(32, 24, torch.nn.Tanh()), layer_norm(24), normalize())


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def test_a_head_is_part_of_the_fingerprint(checkpoint: Path) -> None:
    before = plan(checkpoint)
    assert {"2_Dense/config.json", "2_Dense/model.safetensors", "3_LayerNorm/model.safetensors"} <= set(before.files)
    edit_json(checkpoint / "2_Dense/config.json", activation_function="torch.nn.modules.activation.ReLU")
    assert plan(checkpoint).fingerprint != before.fingerprint
    edit_json(checkpoint / "2_Dense/config.json", activation_function="torch.nn.modules.activation.Tanh")
    assert plan(checkpoint).fingerprint == before.fingerprint
    edit_tensors(checkpoint / "2_Dense/model.safetensors", lambda tensors: tensors["linear.bias"].fill(0))
    assert plan(checkpoint).fingerprint != before.fingerprint


def test_the_reading_of_layers_is_compared_with_sentence_transformers(checkpoint: Path) -> None:
    settings = quick(checkpoint, checkpoint.parent / "pack", reference="torch")
    found = make_plan(settings)
    assert check_reading(found, settings) == ()
    assert found.single is not None
    dense, norm = found.single.layers
    assert isinstance(dense, Dense)
    changed = replace(found, single=replace(found.single, layers=(replace(dense, activation="gelu"), norm)))
    with pytest.raises(
        CheckpointError,
        match=exactly(
            f"{checkpoint}: after the pooling sentence-transformers has Dense 32->24 Tanh, LayerNorm 24, Normalize, "
            "this export Dense 32->24 GELU, LayerNorm 24, Normalize; report it"
        ),
    ):
        check_reading(changed, settings)


def modules_of(checkpoint: Path) -> list[dict[str, Any]]:
    return list(json.loads((checkpoint / "modules.json").read_text()))


def write_modules(checkpoint: Path, modules: list[dict[str, Any]]) -> None:
    (checkpoint / "modules.json").write_text(json.dumps(modules))


def test_types_of_older_releases_are_the_same(checkpoint: Path) -> None:
    before = plan(checkpoint)
    write_modules(
        checkpoint,
        [{**module, "type": f"sentence_transformers.models.{module['type'].rsplit('.', 1)[-1]}"}
         for module in modules_of(checkpoint)],
    )  # fmt: skip
    assert plan(checkpoint).single == before.single


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"activation_function": "torch.nn.modules.activation.PReLU"},
         "unknown activation_function 'torch.nn.modules.activation.PReLU'; known: torch.nn.Identity, torch.nn.ReLU, "
         "torch.nn.Tanh, torch.nn.GELU, torch.nn.SiLU, torch.nn.Sigmoid"),
        ({"activation_function": "my_code.Tanh"}, "unknown activation_function 'my_code.Tanh'; known: torch.nn.Ident"),
        ({"in_features": None}, "Object missing required field `in_features`"),
        ({"out_features": 0}, "Expected `int` >= 1 - at `$.out_features`"),
        ({"use_residual": True}, "use_residual is True; supported: false, null; a residual connection is not supp"),
        ({"module_input_name": "token_embeddings"}, "module_input_name is 'token_embeddings'; supported: sentence_em"),
        ({"in_feature": 32}, "unknown key 'in_feature' with the value 32; did you mean 'in_features'?"),
    ],
)  # fmt: skip
def test_values_of_a_dense_module_that_are_refused(checkpoint: Path, changes: dict[str, Any], reason: str) -> None:
    edit_json(checkpoint / "2_Dense/config.json", **changes)
    with pytest.raises(CheckpointError) as caught:
        plan(checkpoint)
    assert str(caught.value).startswith(f"{checkpoint / '2_Dense/config.json'}: {reason}")


def test_tensors_of_a_layer_that_are_missing_misshapen_or_left_over(checkpoint: Path) -> None:
    weights = checkpoint / "2_Dense/model.safetensors"
    kept = weights.read_bytes()
    edit_tensors(weights, lambda tensors: tensors.pop("linear.bias"))
    refuse(checkpoint, f"{weights}: linear.bias is missing, which config.json next to it asks for")
    weights.write_bytes(kept)
    edit_tensors(weights, lambda tensors: tensors.update({"linear.weight": np.ones((24, 31), np.float32)}))
    refuse(checkpoint, f"{weights}: linear.weight has the shape [24, 31], config.json next to it needs [24, 32]")
    weights.write_bytes(kept)
    edit_tensors(weights, lambda tensors: tensors.update({"other": np.ones(3, np.float32)}))
    refuse(checkpoint, f"{weights}: other is not part of the module that config.json next to it states")
    weights.rename(weights.with_name("pytorch_model.bin"))
    refuse(
        checkpoint,
        f"{weights}: missing; other formats are not read, as pickled weights run code when they are loaded: save the "
        "model again with sentence-transformers, SentenceTransformer(folder).save(folder)",
    )


def test_layers_that_do_not_fit_each_other(checkpoint: Path) -> None:
    edit_json(checkpoint / "3_LayerNorm/config.json", dimension=20)
    for name in ("norm.weight", "norm.bias"):
        edit_tensors(
            checkpoint / "3_LayerNorm/model.safetensors",
            lambda tensors, name=name: tensors.update({name: np.ones(20, np.float32)}),  # type: ignore[misc]
        )
    refuse(
        checkpoint,
        f"{checkpoint / '3_LayerNorm/config.json'}: takes vectors of 20 dimensions, the module before it gives 24; are "
        "both of one model?",
    )


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../2_Dense", "'../2_Dense' is no path, or leads outside of the folder; correct it"),
        ("heads/2_Dense", "'heads/2_Dense' is a folder in a folder, which sentence-transformers does not write; put it "
         "next to modules.json"),
        ("3_LayerNorm", "each Dense and LayerNorm needs a folder of its own; correct the paths"),
        ("", "each Dense and LayerNorm needs a folder of its own; correct the paths"),
    ],
)  # fmt: skip
def test_folders_of_modules_that_are_refused(checkpoint: Path, path: str, reason: str) -> None:
    modules = modules_of(checkpoint)
    modules[2]["path"] = path
    write_modules(checkpoint, modules)
    refuse(checkpoint, f"{checkpoint / 'modules.json'}: {reason}")


def test_an_order_of_modules_that_is_refused(checkpoint: Path) -> None:
    first, second, third, fourth, last = modules_of(checkpoint)
    write_modules(checkpoint, [first, second, last, third, fourth])
    refuse(
        checkpoint,
        f"{checkpoint / 'modules.json'}: modules in the order Transformer, Pooling, Normalize, Dense, LayerNorm; "
        "supported: Transformer, Pooling, any number of Dense and LayerNorm, Normalize; "
        "or for multi-vectors Transformer, Dense, MultiVectorMask, Normalize; or for scores Transformer, LogitScore",
    )


def test_an_adapter_with_another_head_is_refused(checkpoint: Path, saved: Path) -> None:
    adapter = write_adapter(checkpoint.parent / "adapter", query_update())
    for name in ("modules.json", "1_Pooling", "2_Dense", "3_LayerNorm"):
        source = saved / name
        shutil.copytree(source, adapter / name) if source.is_dir() else shutil.copy(source, adapter / name)
    adapters = {"retrieval": adapter}
    assert plan(checkpoint, adapters=adapters).dimensions == 24
    edit_tensors(adapter / "2_Dense/model.safetensors", lambda tensors: tensors["linear.bias"].fill(0))
    kinds = "Transformer, Pooling, Dense, LayerNorm, Normalize"
    refuse(
        checkpoint,
        f"{checkpoint} has the modules {kinds}, {adapter} has {kinds}, with other weights or settings: all tasks of a "
        "pack share one head; export them as packs of their own",
        adapters=adapters,
    )
