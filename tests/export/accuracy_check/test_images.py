"""Images in the accuracy check of an export: compared with torch, and damage of the vision graph is found."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.checkpoints.make_v4 import make_v4
from embedpack.inputs.prompt_rules import PromptOrPrefix
from embedpack.pack.accuracy_records import Check
from embedpack.pack.folder import read_pack
from embedpack.pack.manifest import Pooling
from embedpack.storage.safetensors import open_safetensors
from embedpack.vectors.arrays import Float32
from embedpack_export.accuracy_check.budget import Budget
from embedpack_export.accuracy_check.check import check_pack
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import ExportPlan, make_plan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.choice import ChosenReference
from embedpack_export.reference.protocol import Input
from embedpack_export.reference.recorded import RecordedReference
from embedpack_export.reference.torch_reference import TorchReference
from tests.helpers.exports import quick

IMAGES = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_v4(tmp_path_factory.mktemp("images") / "v4")


def settings(checkpoint: Path, pack: Path) -> ExportSettings:
    return quick(checkpoint, pack, tasks=("code",), weights=("fp32", "int8"), reference=None, max_loss=100.0)


@pytest.fixture(scope="module")
def pack(checkpoint: Path) -> Path:
    """A pack whose reference is the default one."""
    folder = checkpoint.parent / "pack"
    export(settings(checkpoint, folder))
    return folder


def check_of(pack: Path, weights: str) -> Check:
    return read_pack(pack).manifest.variants[f"code-{weights}"].checks["code"]


def test_texts_and_images_are_compared_with_torch(pack: Path) -> None:
    check = check_of(pack, "fp32")
    assert check.reference == "torch"
    assert check.single is not None
    assert 1 - check.single.min <= 1e-5
    assert check.images is not None
    assert check.images.images == IMAGES
    assert check.images.single is not None
    assert 1 - check.images.single.min <= 1e-5
    assert check.images.multi is not None
    assert 1 - check.images.multi.mean <= 1e-5


def test_images_in_int8(pack: Path) -> None:
    check = check_of(pack, "int8")
    assert check.images is not None
    assert check.images.single is not None
    assert check.images.multi is not None
    assert 0.999 <= check.images.single.min <= check.images.single.mean < 1
    assert check.images.multi.mean >= 0.99


def test_the_page_has_a_table_of_images(pack: Path) -> None:
    page = (pack / "report" / "index.html").read_text("utf-8")
    assert "Images, which the exporter draws" in page


@pytest.fixture(scope="module")
def other(pack: Path, checkpoint: Path) -> Path:
    """A pack whose vision tower has other weights than the checkpoint."""
    folder = shutil.copytree(checkpoint, checkpoint.parent / "other")
    for shard in folder.glob("model-*.safetensors"):
        roll_rows(shard, "visual.merger.mlp.2.weight")
    changed = checkpoint.parent / "other-pack"
    export(quick(folder, changed, tasks=("code",), weights=("fp32",), max_loss=100.0))
    return changed


def roll_rows(shard: Path, name: str) -> None:
    """Change the order of the rows of a bfloat16 matrix, if the file has it."""
    tensor = open_safetensors(shard).tensors.get(name)
    if tensor is not None:
        values = np.memmap(shard, np.uint16, "r+", tensor.start, tensor.shape)
        values[:] = np.roll(values, 1, axis=0)
        values.flush()


def failure(folder: Path, checkpoint: Path, graph: Callable[[ExportPlan], RecordedReference]) -> str:
    """Message of a pack whose fp32 graph gave the vectors of `graph`."""
    plan = make_plan(settings(checkpoint, folder))
    found = check_pack(folder, plan, ChosenReference(TorchReference(plan), graph(plan), ()), Budget(max_loss=100.0))
    (message,) = found.failures
    return message


def test_a_damaged_vision_graph_fails_the_export(other: Path, checkpoint: Path) -> None:
    """Its texts are right."""
    message = failure(other, checkpoint, lambda plan: RecordedReference(plan, {}))
    assert message.startswith(
        "code-fp32, task 'code': vectors of images are too far from the reference's for rounding to fp32: the vision "
        "graph or its weights are damaged; export again, report it if it recurs (cosine to torch 1.0000, lowest 1.0000"
    )
    assert f"of {IMAGES} images 0." in message


class OtherVectors(RecordedReference):
    """Vectors of images that are not torch's."""

    def covers(
        self, task: str | None, inputs: Sequence[Input], prompt: PromptOrPrefix = "", pooling: Pooling | None = None
    ) -> bool:
        return not isinstance(inputs[0], str)

    def single(
        self, task: str | None, inputs: Sequence[Input], prompt: PromptOrPrefix = "", pooling: Pooling | None = None
    ) -> Float32:
        return np.eye(len(inputs), 64, dtype=np.float32)


def test_images_that_are_read_in_another_way(other: Path, checkpoint: Path) -> None:
    message = failure(other, checkpoint, lambda plan: OtherVectors(plan, {}))
    assert "before any rounding, the exporter's own float32 vectors of images already differ from torch's" in message


def test_the_fp32_graph_compares_images_too(checkpoint: Path, tmp_path: Path) -> None:
    export(quick(checkpoint, tmp_path / "pack", tasks=("code",), weights=("int8",), max_loss=100.0))
    check = check_of(tmp_path / "pack", "int8")
    assert (check.reference, check.images is None) == ("fp32 graph", False)


def test_texts_beyond_the_length_of_the_pack_are_cut_by_torch_too(checkpoint: Path, tmp_path: Path) -> None:
    plan = make_plan(quick(checkpoint, tmp_path / "pack", tasks=("code",), max_tokens=8))
    reference = TorchReference(plan)
    cut, whole = (reference.single("code", [text]) for text in ("a b c d e f g h i j k l m n o p", "a b c d"))
    (item,) = plan.processor.process(plan.processor.items(["a b c d e f g h i j k l m n o p"]), "")
    assert item.truncated
    assert len(item.ids) == 8
    longer = reference.single("code", ["a b c d e f g h i j k l m n o p and more words"])
    np.testing.assert_array_equal(cut, longer)
    assert not np.array_equal(cut, whole)


def test_a_pack_of_texts_alone_has_no_images(checkpoint: Path, tmp_path: Path) -> None:
    export(quick(checkpoint, tmp_path / "pack", tasks=("code",), weights=("fp32",), modality="text", max_loss=100.0))
    assert check_of(tmp_path / "pack", "fp32").images is None
