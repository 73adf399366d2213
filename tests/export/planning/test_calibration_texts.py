"""Calibration texts: those that are shipped, files of them, and files that are refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from embedpack.errors import EmbedpackError, InputError
from embedpack_export.pipeline import export
from embedpack_export.planning.calibration_texts import SHIPPED, read_calibration
from embedpack_export.planning.plan import make_plan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.planning.tasks import TaskPlan
from embedpack_export.stages.inputs import text_inputs
from tests.helpers.exports import (
    calibration_file,
    exactly,
    quick,
    tree,
)
from tests.helpers.tiny_checkpoint import make_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "toy")


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """An empty folder for packs."""
    folder = tmp_path / "packs"
    folder.mkdir()
    return folder


# --- where a pack may be written


def refuse(error: type[EmbedpackError], message: str, checkpoint: Path, output: Path, **changes: Any) -> None:
    before = tree(output.parent)
    with pytest.raises(error, match=exactly(message)):
        export(quick(checkpoint, output, weights=("fp32",), **changes))
    assert tree(output.parent) == before


# --- calibration


def test_the_shipped_texts_are_the_default() -> None:
    shipped = read_calibration(None)
    assert shipped.sha256 == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert len(shipped.texts) > 100


def test_a_calibration_file_is_used_and_recorded(checkpoint: Path, tmp_path: Path) -> None:
    short = export(quick(checkpoint, tmp_path / "one", weights=("int8",)))
    path = calibration_file(tmp_path, ("a sentence of its own", "day , night !"))
    settings = quick(checkpoint, tmp_path / "two", weights=("int8",))
    assert settings.calibrate == path
    path = calibration_file(tmp_path, ("a sentence of its own", "day , night !"))
    other = export(settings)
    assert other.export.calibration == hashlib.sha256(path.read_bytes()).hexdigest()
    assert other.export.calibration != short.export.calibration
    assert other.variants["default-int8"].accuracy.inputs == 2
    assert other.spaces != short.spaces
    assert tree(tmp_path / "one")["weights/int8.bin"] != tree(tmp_path / "two")["weights/int8.bin"]


def test_the_kind_of_a_text_picks_its_prompt(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    lines = [{"text": "a", "kind": "query"}, {"text": "b", "kind": "poem"}, {"text": "c", "lang": "en"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    found = read_calibration(path)
    prompts = {"query": "query: ", "passage": "passage: "}
    assert found.by_prompt(TaskPlan(None, prompts, None, "default").prompt) == {"query: ": ["a"], "": ["b", "c"]}
    assert found.by_prompt(TaskPlan(None, prompts, "passage", "default").prompt) == {
        "query: ": ["a"],
        "passage: ": ["b", "c"],
    }


@pytest.mark.parametrize(
    ("work", "fewest", "most", "expected"),
    [
        (4e12, 3, 25_000, ["cat", "river", "roof", "rain", "house", "door", "tree"]),
        (0, 9, 25_000, ["cat", "rain", "tree"]),
        (4e12, 3, 9, ["cat", "rain", "tree"]),
        (0, 1, 1, ["cat"]),
    ],
)
def test_large_models_look_at_fewer_texts(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, work: float, fewest: int, most: int, expected: list[str]
) -> None:
    """Spread over the file, whose texts may be sorted."""
    for name, value in (("MAX_WORK", work), ("MIN_TOKENS", fewest), ("MAX_TOKENS", most)):
        monkeypatch.setattr(f"embedpack_export.stages.inputs.{name}", value)
    calibrate = calibration_file(checkpoint.parent, ("cat", "river", "roof", "rain", "house", "door", "tree"))
    found = make_plan(ExportSettings(checkpoint=checkpoint, output=checkpoint.parent / "pack", calibrate=calibrate))
    inputs = text_inputs(found, found.tasks["default"], [])
    chosen = {tuple(item.ids) for batch in inputs.calibration for item in batch.items}
    assert chosen == {tuple(item.ids) for item in found.processor.process(found.processor.items(expected), "")}
    assert inputs.golden == []


def test_no_calibration_file(checkpoint: Path, packs: Path, tmp_path: Path) -> None:
    path = tmp_path / "nowhere.jsonl"
    message = f"{path}: cannot be read: No such file or directory; check the path, its permissions and the disk"
    refuse(InputError, message, checkpoint, packs / "toy", calibrate=path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"just text\n", "JSON is malformed: invalid character (byte 0)"),
        (b'{"text": "a"}\n{"text": "b"\n', "Input data was truncated"),
        (b'{"txt": "a"}\n', "Object missing required field `text`"),
        (b'{"text": 7}\n', "Expected `str`, got `int` - at `$.text`"),
        (b'["a"]\n', "Expected `object`, got `array`"),
        (b'{"text": "\xff"}\n', "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
)
def test_lines_that_are_no_texts(checkpoint: Path, packs: Path, tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(content)
    line = content.count(b"\n")
    message = f'{path}: line {line} must be a JSON object with a "text": {reason}'
    refuse(InputError, message, checkpoint, packs / "toy", calibrate=path)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_calibration_file_without_texts(checkpoint: Path, packs: Path, tmp_path: Path, content: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(content)
    refuse(
        InputError,
        f"{path}: has no calibration texts; write one JSON object with a `text` in each line",
        checkpoint,
        packs / "toy",
        calibrate=path,
    )


@pytest.mark.parametrize("text", ["", " \t"])
def test_an_empty_calibration_text_is_named_by_its_line(
    checkpoint: Path, packs: Path, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a cat"}\n\n' + json.dumps({"text": text}) + "\n")
    refuse(InputError, f"{path}: line 3 has an empty text; remove it", checkpoint, packs / "toy", calibrate=path)
