"""Packs of other kinds than the tiny one: scores only, multi-vectors only, a default task, parts that cannot be run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedpack import Embedder, InputError, PackError
from embedpack.cli.main import main
from embedpack.engine.golden import check_golden
from embedpack.errors import OptionError
from embedpack.pack.folder import read_pack
from tests.helpers.broken_packs import (
    LISTS,
    PAIRS,
    Change,
    Edit,
    changes,
    put,
    reranker,
    with_images,
    with_multi,
    without_single,
)


def refusal(error: type[Exception], pack: Path, action: Callable[[], object]) -> str:
    """Message of an error, with PACK for the folder."""
    with pytest.raises(error) as caught:
        action()
    return str(caught.value).replace(str(pack), "PACK")


def two_tasks(default: str | None) -> Change:
    """A change of the manifest that adds the task `code`, with a variant of its own."""

    def apply(manifest: dict[str, Any]) -> None:
        manifest["tasks"]["code"] = manifest["tasks"]["default"]
        manifest["variants"]["code-int8"] = {**manifest["variants"]["default-int8"], "task": "code", "checks": {}}
        manifest["default_task"] = default

    return apply


@pytest.mark.parametrize("scores", [PAIRS, LISTS])
def test_a_reranker_is_not_opened_as_an_embedder(pack: Path, edit: Edit, scores: dict[str, Any]) -> None:
    edit(reranker(scores))
    message = "PACK: this pack gives scores, not vectors; open it with Reranker"
    assert refusal(InputError, pack, lambda: Embedder(pack)) == message
    assert main(["embed", str(pack), str(pack / "LICENSE")]) == 1


def test_a_reranker_is_shown(pack: Path, edit: Edit, capsys: pytest.CaptureFixture[str]) -> None:
    edit(reranker(PAIRS))
    assert main(["inspect", str(pack)]) == 0
    shown = capsys.readouterr().out
    assert "scores      pairs of up to 32 tokens, from 0 to 1\n" in shown
    assert "vectors " not in shown


def test_a_pack_of_multi_vectors_alone(pack: Path, edit: Edit) -> None:
    edit(changes(with_multi(), without_single))
    model = Embedder(pack, weights="fp32", threads=1)
    message = "PACK: this pack has no single vectors; call encode_multi, or embed --multi"
    for action in (lambda: model.encode("a cat"), lambda: model.dimensions, lambda: model.truncate_dims):
        assert refusal(InputError, pack, action) == message


def test_a_pack_of_single_vectors_alone(pack: Path) -> None:
    message = "PACK: this pack has no multi-vectors; its checkpoint came without a multi-vector projector"
    model = Embedder(pack, weights="fp32", threads=1)
    assert refusal(InputError, pack, lambda: model.encode_multi("a cat")) == message


def test_the_default_task_is_that_of_calls_without_one(
    pack: Path, edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(two_tasks("code"))
    model = Embedder(pack, threads=1)
    assert (model.task, model.variant) == ("code", "code-int8")
    assert model.encode("a cat").space == read_pack(pack).manifest.space("code")
    assert Embedder(pack, task="default", threads=1).task == "default"
    assert refusal(InputError, pack, lambda: Embedder(pack, weights="fp32")).startswith("unknown weights 'fp32'")
    assert main(["inspect", str(pack)]) == 0
    assert "code is the task of calls that name none\n" in capsys.readouterr().out


def test_packs_without_a_default_task_need_one(pack: Path, edit: Edit) -> None:
    edit(two_tasks(None))
    message = "this pack has several tasks; pass task=, one of: default, code"
    assert refusal(InputError, pack, lambda: Embedder(pack)) == message


def on_cuda(weights: str) -> Change:
    """A change of the manifest that makes the fp32 variant one for CUDA."""
    return changes(
        put("variants", "default-fp32", "device", "cuda"), put("variants", "default-fp32", "weights", weights)
    )


def test_variants_for_other_devices_are_refused(pack: Path, edit: Edit) -> None:
    edit(on_cuda("fp32"))
    message = (
        "PACK: default-fp32.onnx is made for cuda with fp32 weights; this embedpack runs fp32 and int8 on CPUs, "
        "fp16 on GPUs and int4 on both: open another variant"
    )
    assert refusal(PackError, pack, lambda: Embedder(pack, variant="default-fp32")) == message
    assert refusal(PackError, pack, lambda: check_golden(read_pack(pack), "default-fp32")) == message
    assert Embedder(pack, threads=1).variant == "default-int8"


def test_variants_for_gpus_run_on_cpus_when_they_are_named(pack: Path, edit: Edit) -> None:
    edit(on_cuda("fp16"))
    assert Embedder(pack, threads=1).variant == "default-int8"
    assert Embedder(pack, weights="fp16", threads=1).variant == "default-fp32"
    assert Embedder(pack, variant="default-fp32", threads=1).encode("text").dimensions
    edit(lambda manifest: [manifest["variants"].pop(name) for name in ("default-int8", "default-int4")])
    message = "PACK: its variants are for GPUs; pass weights= to compute with one on the CPU, slowly"
    assert refusal(OptionError, pack, lambda: Embedder(pack)) == message


SQUARE = {"type": "square", "size": 224, "patch_size": 14, "resize": "exact", "filter": "bicubic"}
CHANNELS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            changes(with_images(), put("image", SQUARE | CHANNELS)),
            "images of this type without vectors of their own (`$.image.type`)",
        ),
    ],
)
def test_parts_that_cannot_be_run_are_refused(pack: Path, edit: Edit, change: Change, part: str) -> None:
    edit(change)
    message = f"PACK: this embedpack cannot run {part}; update it"
    assert refusal(PackError, pack, lambda: Embedder(pack, threads=1)) == message
