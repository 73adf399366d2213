"""A model source has all that decides the full-precision vectors, and nothing of an export."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedpack_export.planning import calibration_texts
from embedpack_export.planning.plan import make_plan
from embedpack_export.planning.source_reading import read_model_source
from embedpack_export.planning.text_inputs import TextOptions
from tests.helpers.exports import query_update, quick, write_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint


def test_a_source_has_the_fingerprint_and_the_processor_of_an_export(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    adapters = {"code": write_adapter(tmp_path / "code", query_update())}
    source = read_model_source(checkpoint, adapters=adapters, texts=TextOptions(20))
    plan = make_plan(quick(checkpoint, tmp_path / "pack", adapters=adapters, max_tokens=20))
    assert source.fingerprint == plan.source.fingerprint
    assert source.files == plan.source.files
    assert {"config.json", "adapters/code/adapter_model.safetensors"} <= set(source.files)
    assert source.processor.tokenizer.max_tokens == plan.processor.tokenizer.max_tokens == 20


def test_the_fingerprint_covers_pooling_and_length(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    sources = [
        read_model_source(checkpoint, adapters={}),
        read_model_source(checkpoint, adapters={}, pooling="cls"),
        read_model_source(checkpoint, adapters={}, texts=TextOptions(20)),
    ]
    assert len({source.fingerprint for source in sources}) == len(sources)


def test_a_source_reads_no_calibration_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_texts, "SHIPPED", tmp_path / "missing.jsonl")
    assert read_model_source(make_checkpoint(tmp_path / "toy"), adapters={}).fingerprint
