"""The calibration pass: tokens in the statistics of an activation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from embedpack.pack.graph_io import ATTENTION_MASK
from embedpack_export.graph.context import StagedModel
from embedpack_export.sources.weights import Weights
from embedpack_export.stages import calibration_run
from embedpack_export.stages.calibration_run import ExactRun, run_exact_stage


@pytest.mark.parametrize("causal", [True, False])
def test_first_tokens_count_twice_where_later_ones_attend_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, causal: bool
) -> None:
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0]])
    values = np.random.default_rng(0).standard_normal((2, 4, 5)).astype(np.float32)
    patches = values[0]

    def recorded(*_: Any) -> Any:
        return iter([(0, "site", values), (0, "patches", patches)])

    monkeypatch.setattr(calibration_run, "record_stage", recorded)
    run = ExactRun([{ATTENTION_MASK: mask}], weights=cast("Weights", None), observed=1)
    found = run_exact_stage(StagedModel((), (), (), causal), 0, [run], tmp_path)
    tokens = values[mask.astype(bool)]
    first = values[:, 0] if causal else values[:0, 0]
    np.testing.assert_array_equal(found["site"].sample, np.concatenate([tokens, first]))
    np.testing.assert_array_equal(found["patches"].sample, patches)
    assert found["site"].tokens == len(tokens)
