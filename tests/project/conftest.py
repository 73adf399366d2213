"""Fixtures of the tests of whole programs: a tiny pack that reads images, with several tasks, and files to embed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.checkpoints.make_v4 import make_v4
from embedpack.cli.main import main
from tests.helpers.exports import centered_codebook

CALIBRATION = ("how do i reset the router", "the cat sleeps on the roof", "def double(x): return 2 * x", "Wo ist es?")
ENCRYPTED = b"""%PDF-1.7
1 0 obj
<< /Type /Catalog /Pages 2 0 R >>
endobj
2 0 obj
<< /Type /Pages /Kids [] /Count 0 >>
endobj
trailer
<< /Root 1 0 R /Size 3 /ID [<00> <00>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <00> /U <00> >> >>
%%EOF
"""


@pytest.fixture(scope="session")
def v4_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the layout of jina-embeddings-v4; tests only read it."""
    return make_v4(tmp_path_factory.mktemp("checkpoint") / "tiny-v4")


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few texts, so that exports are fast."""
    path = tmp_path_factory.mktemp("calibration") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in CALIBRATION))
    return path


@pytest.fixture(scope="session")
def v4(tmp_path_factory: pytest.TempPathFactory, v4_checkpoint: Path, calibration: Path) -> Path:
    """Its pack of two tasks, merged and switchable, made by the command line; tests only read it.

    Each task has codebooks with a center of its own. Whether a toy's few random vectors gain by one is chance.
    """
    pack = tmp_path_factory.mktemp("packs") / "v4"
    tasks = ["--task", "retrieval", "--task", "code", "--adapters", "merged", "--adapters", "switchable"]
    arguments = ["-o", str(pack), "--weights", "int8", *tasks, "--calibrate", str(calibration)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedpack_export.stages.output_codes.fit_codebook", centered_codebook)
        assert main(["export", str(v4_checkpoint), *arguments]) == 0
    return pack


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files to embed, valid and broken ones; tests only read it."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "texts.txt").write_text("a cat sleeps\nwhere is the router\n")
    for seed, name in enumerate(("first.png", "second.PPM")):
        _picture(seed).save(folder / name)
    pages = [_picture(seed) for seed in range(2, 12)]
    pages[0].save(folder / "report.pdf", save_all=True, append_images=pages[1:])
    (folder / "encrypted.pdf").write_bytes(ENCRYPTED)
    (folder / "damaged.pdf").write_bytes((folder / "report.pdf").read_bytes()[:100])
    (folder / "damaged.png").write_bytes((folder / "first.png").read_bytes()[:1000])
    (folder / "empty.png").touch()
    return folder


def _picture(seed: int) -> Image.Image:
    """Random colors."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (70, 90, 3), dtype=np.uint8))
