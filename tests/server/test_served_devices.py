"""A server on a GPU that the CPU stands in for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from embedpack.server.served_packs import ServedPacks
from embedpack.server.settings import PackSettings, ServeSettings
from tests.helpers.broken_packs import changes, put
from tests.helpers.fake_cuda import FakeCuda
from tests.helpers.tiny_pack import TINY_PACK


def test_packs_are_loaded_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = tmp_path / "pack"
    shutil.copytree(TINY_PACK, pack)
    manifest = json.loads((pack / "pack.json").read_bytes())
    for_gpus = (put("variants", "default-fp32", key, value) for key, value in (("device", "cuda"), ("weights", "fp16")))
    changes(*for_gpus)(manifest)
    (pack / "pack.json").write_text(json.dumps(manifest))
    gpu = FakeCuda().install(monkeypatch)
    packs = ServedPacks.open(ServeSettings(packs=(PackSettings(name="tiny", folder=pack, device="auto"),), threads=1))
    assert packs.find("tiny").device == "cuda"
    assert set(packs.load()) == {("tiny", "default-fp32")}
    # The golden vectors are compared on the GPU.
    assert gpu.batches
