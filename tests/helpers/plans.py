"""Plans of tiny checkpoints, and exports that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedpack.errors import CheckpointError
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import ExportPlan, make_plan
from tests.helpers.exports import (
    exactly,
    quick,
)


def plan(checkpoint: Path, **changes: Any) -> ExportPlan:
    return make_plan(quick(checkpoint, checkpoint.parent / "pack", **changes))


def refuse(checkpoint: Path, message: str, **changes: Any) -> None:
    """Assert that the export fails with this message and leaves no files."""
    before = sorted([*checkpoint.parent.iterdir(), checkpoint.parent / "calibration.jsonl"])
    with pytest.raises(CheckpointError, match=exactly(message)):
        export(quick(checkpoint, checkpoint.parent / "pack", **changes))
    assert sorted(checkpoint.parent.iterdir()) == sorted(set(before))
