"""Parts of the tests of the accuracy check: a tiny checkpoint with two adapters and enough texts to rank."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.choice import ChosenReference
from embedpack_export.reference.recorded import RecordedReference
from embedpack_export.reference.torch_reference import TorchReference
from tests.helpers.tiny_checkpoint import WORDS

# A toy of random weights loses far more by rounding than a real model, whose dimensions average errors out.
ROOM = 12.0


def many_texts(folder: Path, count: int = 24) -> Path:
    """Calibration texts of both kinds, all different."""
    rng = np.random.default_rng(3)
    words = [word for word in WORDS if word.isalpha()]
    path = folder / "texts.jsonl"
    lines = [
        {"text": " ".join(rng.choice(words, int(rng.integers(3, 12)))), "kind": ("query", "passage")[number % 2]}
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def checked_by_torch(plan: ExportPlan) -> ChosenReference:
    """Torch as the reference of a pack that another export has written."""
    return ChosenReference(TorchReference(plan), RecordedReference(plan, {}), ())


def checked_export(checkpoint: Path, output: Path, adapters: Mapping[str, Path], **changes: Any) -> ExportSettings:
    """Settings of an export whose accuracy check uses those texts."""
    given = {
        "checkpoint": checkpoint,
        "output": output,
        "adapters": adapters,
        "calibrate": checkpoint.parent / "texts.jsonl",
        "weights": ("fp32", "int8"),
        "max_loss": ROOM,
        **changes,
    }
    return ExportSettings(**given)
