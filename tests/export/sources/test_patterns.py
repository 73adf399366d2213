"""Regular expressions of an adapter_config.json: those that practically never end are refused by name."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from embedpack.errors import CheckpointError
from embedpack_export.sources import patterns
from embedpack_export.sources.patterns import MAX_CHARACTERS, check_patterns
from embedpack_export.sources.peft_adapter import read_adapter
from tests.helpers.exports import exactly, query_update, write_adapter

NAMES = ("a" * 60 + ".query", "encoder.layer.0.attention.self.query")
PATH = Path("adapter_config.json")


@pytest.mark.parametrize("field", patterns.FIELDS)
def test_an_expression_without_end_is_refused_by_name(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "PROGRAM", patterns.PROGRAM.replace("(5, 5)", "(1, 1)"))
    value: Any = {"(a+)+b": 4, ".*query": 4} if field in ("rank_pattern", "alpha_pattern") else "(a+)+b"
    message = (
        f"adapter_config.json: the regular expression '(a+)+b' takes more than {patterns.MAX_SECONDS} seconds on the "
        "names of 2 modules; list the modules instead"
    )
    with pytest.raises(CheckpointError, match=exactly(message)):
        check_patterns(PATH, {field: value}, NAMES)


def test_alternatives_without_quantifiers_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "MAX_WAIT_SECONDS", 1)
    with pytest.raises(CheckpointError, match="takes more than"):
        check_patterns(PATH, {"target_modules": "(a|a)" * 50 + "b"}, NAMES)


@pytest.mark.parametrize(
    "expression",
    [
        r"(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(multi_vector_projector).*$)",
        r"^model\\.layers\\.(?:[0-9]|1[0-9])\\.self_attn\\..*_proj",
        "(",  # PEFT refuses it, with its own message
        "query",
    ],
)
def test_usual_expressions_pass(expression: str) -> None:
    check_patterns(PATH, {"target_modules": expression, "modules_to_save": None, "r": 8}, NAMES)


def test_names_alone_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    check_patterns(PATH, {"target_modules": ["query", "layer.0.dense"], "rank_pattern": {r"layer\.0\.query": 3}}, NAMES)


def test_long_expressions_are_refused() -> None:
    with pytest.raises(CheckpointError, match=f"an expression of {MAX_CHARACTERS + 1} characters"):
        check_patterns(PATH, {"target_modules": "*" * (MAX_CHARACTERS + 1)}, NAMES)


def test_an_adapter_with_such_a_pattern_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "PROGRAM", patterns.PROGRAM.replace("(5, 5)", "(1, 1)"))
    adapter = write_adapter(tmp_path / "adapter", query_update(), rank_pattern={"((e|c|o|d|r|.)+)+!": 4})
    with pytest.raises(CheckpointError, match="takes more than"):
        read_adapter(adapter, "any")
