"""Models whose texts are stripped and followed by token ids: at export and in the pack alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedpack import Embedder
from embedpack.engine.golden import TOLERANCE, check_golden
from embedpack.inputs.tokenizer import TextRules
from embedpack.pack.folder import read_pack
from embedpack.pack.manifest import Manifest
from embedpack_export.families import families
from embedpack_export.families.model import NO_RULES, Model
from embedpack_export.pipeline import export
from embedpack_export.sources.checkpoint import Checkpoint
from tests.helpers.exports import quick
from tests.helpers.tiny_checkpoint import make_checkpoint

AFTER = (17, 18)


def export_with(rules: TextRules, checkpoint: Path, output: Path) -> Manifest:
    """Export a model whose family has these rules."""
    family = families()["bert"]

    def read(checkpoint: Checkpoint) -> Model:
        return replace(family.read(checkpoint), text_rules=rules)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(families(), "bert", replace(family, read=read))
        return export(quick(checkpoint, output, weights=("fp32",)))


def test_rules_of_a_family_are_those_of_the_pack(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    manifest = export_with(TextRules(strip=True, after=AFTER), checkpoint, tmp_path / "pack")
    assert (manifest.text.strip, manifest.text.after) == (True, AFTER)
    # The golden vectors were computed by the exporter.
    assert check_golden(read_pack(tmp_path / "pack"), "default-fp32") <= TOLERANCE["fp32"]
    model = Embedder(tmp_path / "pack", threads=1)
    np.testing.assert_array_equal(model.encode(" \n a cat ").codes, model.encode("a cat").codes)
    assert export_with(NO_RULES, checkpoint, tmp_path / "plain").text.after == ()
    plain = Embedder(tmp_path / "plain", threads=1).encode("a cat").codes
    assert float(np.sum(plain * model.encode("a cat").codes)) < 0.999


def test_rules_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    cases = (NO_RULES, TextRules(strip=True), TextRules(after=AFTER), TextRules(after=AFTER[:1]))
    found = [
        export_with(rules, checkpoint, tmp_path / str(number)).source.fingerprint for number, rules in enumerate(cases)
    ]
    assert len(set(found)) == len(cases)
