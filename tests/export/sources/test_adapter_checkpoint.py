"""A folder with an adapter alone is exported with its base, as sentence-transformers loads it, or refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from peft import LoraConfig
from sentence_transformers import SentenceTransformer

from embedpack.errors import CheckpointError
from embedpack_export.planning.plan import make_plan
from embedpack_export.reference.reading_check import check_reading
from embedpack_export.reference.torch_reference import TorchReference
from embedpack_export.sources.adapter_checkpoint import find_base
from tests.helpers.exports import distance, edit_json, exactly, query_update, quick, write_adapter
from tests.helpers.peft_training import LOADING, TrainedModel
from tests.helpers.tiny_checkpoint import make_checkpoint

TEXTS = ["how do i reset a router ?", "list files"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("base") / "toy")


def test_a_sentence_transformer_that_saved_its_adapter_is_exported(base: Path, tmp_path: Path) -> None:
    folder, model = tmp_path / "adapted", TrainedModel.load(base, "bert", "SentenceTransformer").model
    model.add_adapter(LoraConfig(r=2, target_modules=["query", "output.dense"], init_lora_weights=False))
    model.save_pretrained(str(folder))
    assert not (folder / "config.json").exists()
    settings = quick(folder, tmp_path / "pack", reference=None)
    plan = make_plan(settings)
    assert (plan.checkpoint.folder, plan.name, list(plan.tasks)) == (base, "adapted", ["default"])
    assert check_reading(plan, settings) == ()
    theirs = SentenceTransformer(str(folder), device="cpu", model_kwargs=dict(LOADING)).encode(TEXTS)
    assert distance(TorchReference(plan).single("default", TEXTS), np.asarray(theirs)) <= 1e-6


def test_a_base_that_is_not_here_is_refused_with_the_remedy(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update(), base_model_name_or_path="owner/model")
    message = (
        f"{adapter}: holds an adapter alone; its base_model_name_or_path is 'owner/model', which is no folder of a "
        f"model here: download that model, and export its folder with --adapter code={adapter}"
    )
    with pytest.raises(CheckpointError, match=exactly(message)):
        find_base(adapter, {}, "code")
    edit_json(adapter / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match="base_model_name_or_path is None, which is no folder of a model here"):
        find_base(adapter, {}, "code")


def test_an_adapter_in_place_of_the_base_of_others_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update(), base_model_name_or_path=str(base))
    with pytest.raises(CheckpointError, match="holds an adapter, not a model; pass the folder of its base"):
        find_base(adapter, {"code": base}, "code")


def test_an_adapter_next_to_weights_is_not_ignored(base: Path, tmp_path: Path) -> None:
    both = shutil.copytree(base, tmp_path / "both")
    write_adapter(both / "adapter", query_update())
    for path in (both / "adapter").iterdir():
        shutil.move(path, both / path.name)
    message = f"{both}: holds the weights of a model and adapter_config.json; pass --adapter code={both}"
    with pytest.raises(CheckpointError, match=message):
        find_base(both, {}, "code")
    assert find_base(both, {"code": both}, "code").base == both
