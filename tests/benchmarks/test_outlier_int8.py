"""python -m benchmarks outlier-int8, on few texts."""

from __future__ import annotations

import argparse
import json

from benchmarks.quality.outlier_int8 import add_arguments, run, table


def test_int8_with_outliers_next_to_dynamic_int8() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args(["--texts", "6"])
    options.seed = 3
    results = json.loads(json.dumps(run(options)))
    largest = max(results["largest_inputs"].values(), key=lambda sizes: sizes["first"])
    assert largest["first"] > 1000
    variants = results["variants"]
    assert variants["int8"]["count"] == variants["dynamic"]["count"] == 3
    # The step of the one scale for a massive value is as large as all others.
    assert variants["int8"]["mean"] > 0.99 > variants["dynamic"]["mean"]
    assert "onnxruntime dynamic int8, per tensor" in table(results)
