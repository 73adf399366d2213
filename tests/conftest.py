"""Settings of all tests. They need pytest and hypothesis alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run: a red test means that the code changed. No deadline, for machines that are busy.
settings.register_profile(
    "embedpack", deadline=None, derandomize=True, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("embedpack")
pytest.register_assert_rewrite("tests.helpers")
# Tests run in several processes; numpy and torch read this when they are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Helpers that import onnxruntime directly collect no telemetry either.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# A job in the background, or below nohup, inherits ignored signals, and so would the programs that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
# Files that take longest begin first: a process works on a whole file, and none is to begin with a long one at the end.
LONGEST = (
    "accuracy_check/test_accuracy_check.py",
    "families/test_decoders.py",
    "project/test_minilm.py",
    "benchmarks/test_speed.py",
    "sources/test_peft_options.py",
    "project/test_cli.py",
    "export/test_pipeline.py",
    "families/test_qwen2_5_vl.py",
    "assembly/test_new_folder.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the longest files to the front."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get("/".join(Path(item.path).parts[-2:]), len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def no_cache() -> Iterator[None]:
    """Keep prepacked graphs of this machine out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDPACK_CACHE", "")
        yield
