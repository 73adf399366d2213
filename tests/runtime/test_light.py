"""`import embedpack` is light: proven in a fresh interpreter, not in this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import embedpack

HEAVY = {
    "torch",
    "transformers",
    "peft",
    "PIL",
    "pypdfium2",
    "onnx",
    "onnx_ir",
    "safetensors",
    "scipy",
    "huggingface_hub",
    "embedpack_export",
}


def run_python(code: str, *arguments: str) -> Any:
    """Output of a fresh interpreter, parsed as JSON; a warning there is an error."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def test_import_loads_nothing_heavy() -> None:
    loaded = run_python("from embedpack import *; import json, sys; print(json.dumps(list(sys.modules)))")
    assert "onnxruntime" in loaded
    assert not HEAVY & {name.partition(".")[0] for name in loaded}


def test_the_command_line_loads_no_library_before_its_command() -> None:
    """Ctrl-C during the import of a library is then an interrupted command, no traceback."""
    loaded = run_python("import embedpack.cli.main, json, sys; print(json.dumps(list(sys.modules)))")
    assert not (HEAVY | {"numpy", "onnxruntime", "tokenizers", "msgspec"}) & {name.partition(".")[0] for name in loaded}


def test_texts_are_embedded_without_anything_heavy(tiny: Path) -> None:
    code = """
import json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[2])))  # importing any of them fails
from embedpack import Embedder
print(json.dumps(Embedder(sys.argv[1], threads=1).encode("a cat", precision="int8").codes.tolist()))
"""
    assert len(run_python(code, str(tiny), json.dumps(sorted(HEAVY)))[0]) == 32


def test_public_names_are_those_of_all() -> None:
    code = """
import embedpack, json, types
names = [name for name in dir(embedpack) if not isinstance(getattr(embedpack, name), types.ModuleType)]
print(json.dumps([name for name in names if not name.startswith("_")]))
"""
    assert sorted(run_python(code)) == sorted(embedpack.__all__)


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match=r"^module 'embedpack' has no attribute 'Embeder'"):
        _ = embedpack.Embeder


def test_public_names_are_sorted_and_documented() -> None:
    assert embedpack.__all__ == sorted(embedpack.__all__)
    assert all(getattr(embedpack, name).__doc__ for name in embedpack.__all__)
