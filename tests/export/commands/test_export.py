"""Options of `embedpack export`."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedpack.cli.main import main
from embedpack.pack.folder import read_pack
from tests.helpers.exports import calibration_file, query_update, write_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint


@pytest.mark.parametrize("option", ["--reference", "--judge"])
def test_both_names_of_the_reference(tmp_path: Path, option: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    arguments = [str(checkpoint), "-o", str(tmp_path / "pack"), option, "graph", "--weights", "int8"]
    assert main(["export", *arguments, "--allow-loss", "100"]) == 0
    (variant,) = read_pack(tmp_path / "pack").manifest.variants.values()
    assert {check.reference for check in variant.checks.values()} == {"fp32 graph"}


def test_the_reference_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(tmp_path), "-o", str(tmp_path / "pack"), "--reference", "graph", "--judge", "torch"])
    assert stopped.value.code == 2
    assert "given twice; it takes one value" in capsys.readouterr().err


def test_a_base_task_beside_an_adapter(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    adapter = write_adapter(tmp_path / "adapter", query_update())
    arguments = [str(checkpoint), "-o", str(tmp_path / "pack"), "--adapter", f"code={adapter}"]
    options = ["--base-task", "general", "--reference", "graph", "--weights", "fp32", "--adapters", "switchable"]
    assert main(["export", *arguments, *options, "--calibrate", str(calibration_file(tmp_path))]) == 0
    manifest = read_pack(tmp_path / "pack").manifest
    assert {name: task.adapter is None for name, task in manifest.tasks.items()} == {"code": False, "general": True}
