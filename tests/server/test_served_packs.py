"""Packs of a server: those that give no vectors are refused, calls without a task have the default one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedpack.pack.codebooks import Codebooks, write_codebooks
from embedpack.server.request_errors import RequestError
from embedpack.server.request_items import RequestItems
from embedpack.server.requests import EmbeddingsCall
from embedpack.server.served_formats import vector_format
from embedpack.server.served_packs import ServedPack, ServedPacks
from embedpack.server.settings import PackSettings, ServeSettings
from embedpack.server.vectors import VectorFormat
from embedpack.vectors.codebook import Codebook
from tests.helpers.broken_packs import Change, changes, with_multi, without_single
from tests.helpers.tiny_pack import TINY_PACK

CALL = EmbeddingsCall(
    RequestItems(), None, None, None, "float", truncate=False, multi=False, late_chunking=False, normalized=True
)


@pytest.fixture
def serve(tmp_path: Path) -> Callable[[Change], ServedPack]:
    """Opens a copy of the tiny pack with another manifest, as a server does."""

    def apply(change: Change) -> ServedPack:
        folder = Path(shutil.copytree(TINY_PACK, tmp_path / "pack"))
        manifest = json.loads((folder / "pack.json").read_bytes())
        change(manifest)
        (folder / "pack.json").write_text(json.dumps(manifest))
        opened = ServedPacks.open(ServeSettings(packs=(PackSettings(name="tiny", folder=folder),)))
        return opened.packs["tiny"]

    return apply


def two_tasks(default: str | None) -> Change:
    """A change of the manifest that adds the task `code`."""

    def apply(manifest: dict[str, Any]) -> None:
        manifest["tasks"]["code"] = manifest["tasks"]["default"]
        manifest["variants"]["code-int8"] = {**manifest["variants"]["default-int8"], "task": "code", "checks": {}}
        manifest["default_task"] = default

    return apply


@pytest.mark.parametrize("default", ["code", "default"])
def test_calls_without_a_task_have_the_default_one(serve: Callable[[Change], ServedPack], default: str) -> None:
    assert serve(two_tasks(default)).task(CALL).task == default


def test_without_a_default_a_task_is_needed(serve: Callable[[Change], ServedPack]) -> None:
    served = serve(two_tasks(None))
    with pytest.raises(RequestError, match="task: missing; this model has: default, code"):
        served.task(CALL)


def test_a_pack_of_multi_vectors_alone(tmp_path: Path, serve: Callable[[Change], ServedPack]) -> None:
    tokens = Codebook.gaussian(np.zeros(16, np.float32), 0.25)
    write_codebooks(tmp_path / "tokens", Codebooks(None, tokens))
    content = (tmp_path / "tokens").read_bytes()

    def multi_alone(manifest: dict[str, Any]) -> None:
        changes(with_multi(), without_single)(manifest)
        (tmp_path / "pack" / "calibration" / "default.safetensors").write_bytes(content)
        entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        manifest["files"]["calibration/default.safetensors"] = entry

    served = serve(multi_alone)
    assert served.described().dimensions == []
    with pytest.raises(RequestError, match="return_multivector: tiny has no single vectors; set it to true"):
        vector_format(served, CALL, "default")
    form = vector_format(served, replace(CALL, multi=True), "default")
    assert isinstance(form, VectorFormat)
    assert form.dimensions == 16
