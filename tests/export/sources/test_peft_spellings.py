"""Keys of an adapter's file as versions of PEFT and other savers spell them: merged and compared with PEFT alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from embedpack_export.planning.plan import make_plan
from embedpack_export.reference.torch_reference import TorchReference
from tests.helpers.exports import distance, quick
from tests.helpers.peft_oracle import save_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint

TEXTS = ["how do i reset a router ?", "list files"]
PREFIX = "base_model.model."


def in_a_sentence_transformer(name: str) -> str:
    return name.replace(PREFIX, f"{PREFIX}0.auto_model.", 1)


def in_a_newer_sentence_transformer(name: str) -> str:
    return name.replace(PREFIX, f"{PREFIX}0.model.", 1)


def of_a_whole_state(name: str) -> str:
    """PEFT's name of an adapter without one, which `save_pretrained` takes out."""
    for part in ("lora_A", "lora_B"):
        name = name.replace(f".{part}.", f".{part}.default.")
    return name.replace(".LayerNorm.", ".LayerNorm.modules_to_save.default.")


def of_an_older_peft(name: str) -> str:
    """Biases were not inside of a layer that was wrapped."""
    return name.replace(".base_layer.bias", ".bias")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("spellings") / "toy")


@pytest.mark.parametrize(
    ("rename", "config"),
    [
        (in_a_sentence_transformer, {"modules_to_save": ["LayerNorm"]}),
        (in_a_newer_sentence_transformer, {"use_dora": True}),
        (of_a_whole_state, {"modules_to_save": ["LayerNorm"]}),
        (of_an_older_peft, {"bias": "all"}),
    ],
)
def test_other_spellings_give_the_same_vectors(
    checkpoint: Path, tmp_path: Path, rename: Callable[[str], str], config: dict[str, Any]
) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter", **config)
    plan = make_plan(quick(checkpoint, tmp_path / "pack", adapters={"code": adapter}))
    expected = TorchReference(plan).single("code", TEXTS)
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    assert {rename(name) for name in tensors} != set(tensors)
    save_file({rename(name): value for name, value in tensors.items()}, file)
    renamed = make_plan(quick(checkpoint, tmp_path / "pack", adapters={"code": adapter}))
    before, after = plan.tasks["code"].adapter, renamed.tasks["code"].adapter
    assert before is not None
    assert after is not None
    assert (after.updates.keys(), after.replacements.keys()) == (before.updates.keys(), before.replacements.keys())
    assert distance(TorchReference(renamed).single("code", TEXTS), expected) <= 1e-9


def test_patterns_hold_for_the_names_that_were_trained(checkpoint: Path, tmp_path: Path) -> None:
    """A pattern from the root of a SentenceTransformer finds its module by the name in the file."""
    adapter = save_adapter(checkpoint, tmp_path / "adapter", target_modules=["query"])
    file = adapter / "adapter_model.safetensors"
    save_file({in_a_sentence_transformer(name): value for name, value in load_file(file).items()}, file)
    content = json.loads((adapter / "adapter_config.json").read_text())
    pattern = r"^0\.auto_model\.encoder\.layer\.1\..*"
    (adapter / "adapter_config.json").write_text(json.dumps({**content, "alpha_pattern": {pattern: 40}}))
    plan = make_plan(quick(checkpoint, tmp_path / "pack", adapters={"code": adapter}))
    update = plan.tasks["code"].adapter
    assert update is not None
    assert [each.scale for each in update.updates.values()] == [12 / 4, 40 / 4]
