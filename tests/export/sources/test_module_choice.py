"""Modules that an adapter_config.json chooses: those that PEFT chooses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists

from embedpack.errors import CheckpointError
from embedpack_export.sources.module_choice import ModuleChoice

WORDS = ("model", "layers", "layer", "0", "1", "11", "attention", "query", "key", "dense", "experts")
NAMES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(".".join)
ENDS = st.lists(st.sampled_from(["query", "attention.query", "dense", "layers.0.key", "1.dense"]), max_size=3)
EXPRESSIONS = st.sampled_from([r".*query", r".*\.(key|dense)", r"model\..*1\..*", r"(layers|layer)\.\d+\.key", ""])


@st.composite
def choices(draw: st.DrawFn) -> dict[str, Any]:
    """Fields that choose modules, as LoraConfig accepts them."""
    targets = draw(st.one_of(ENDS, EXPRESSIONS))
    fields: dict[str, Any] = {
        "target_modules": targets,
        "exclude_modules": draw(st.one_of(st.none(), ENDS, EXPRESSIONS)),
        "modules_to_save": draw(st.none() | st.lists(st.sampled_from(["attention", "lay.r", "dense"]), max_size=2)),
    }
    if isinstance(targets, list) and draw(st.booleans()):
        fields["layers_to_transform"] = draw(st.sampled_from([0, 1, 11, [0], [1, 11], []]))
        fields["layers_pattern"] = draw(st.sampled_from([None, "layers", ["layer", "layers"], "experts", [], ""]))
    return fields


@given(choices(), st.lists(NAMES, min_size=1, max_size=8, unique=True))
def test_the_modules_are_those_that_peft_chooses(fields: dict[str, Any], names: list[str]) -> None:
    config, choice = LoraConfig(**fields), msgspec.convert(fields, ModuleChoice)
    others = [name for name in names if not check_target_module_exists(config, name)]
    path = Path("adapter_config.json")
    if not others:
        choice.check(path, names)
        return
    with pytest.raises(CheckpointError) as caught:
        choice.check(path, names)
    shown = ", ".join(sorted(others)[:5])
    assert str(caught.value) == f"{path}: does not choose {shown}, which the file changes: are both of one run?"


def test_a_field_that_is_no_expression_is_refused_with_its_file() -> None:
    with pytest.raises(CheckpointError, match=r"adapter_config.json: a field that chooses modules is no regular"):
        ModuleChoice(target_modules="(").check(Path("adapter_config.json"), ["query"])
