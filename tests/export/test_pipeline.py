"""Whole exports: the same bytes every time, nothing stored twice, whole or not at all, in bounded memory."""

from __future__ import annotations

import builtins
import errno
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from embedpack import Embedder
from embedpack.engine.golden import TOLERANCE, check_golden
from embedpack.engine.loading import open_encoder
from embedpack.engine.options import EncodeOptions
from embedpack.errors import CapacityError, EmbedpackError, InputError
from embedpack.pack.codebooks import read_codebooks
from embedpack.pack.folder import read_pack
from embedpack_export.families.bert import RULES
from embedpack_export.graph.external_data import WeightStore
from embedpack_export.pipeline import export
from embedpack_export.planning.calibration_texts import SHIPPED, read_calibration
from embedpack_export.planning.plan import make_plan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.planning.tasks import TaskPlan
from embedpack_export.quantization.gptq import RoundingMethod
from embedpack_export.sources.checkpoint import read_checkpoint
from embedpack_export.sources.peft_adapter import read_adapter
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.inputs import text_inputs
from tests.helpers.exports import (
    QUERY,
    TEXTS,
    calibration_file,
    center_helps,
    edit_json,
    exactly,
    query_update,
    quick,
    tree,
    write_adapter,
)
from tests.helpers.tiny_checkpoint import make_checkpoint

TASKS = ("code", "retrieval")
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
DENIED = PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def adapters_of(folder: Path) -> dict[str, Path]:
    """Two adapters of the first query matrix."""
    return {task: write_adapter(folder / task, query_update(seed=seed)) for seed, task in enumerate(TASKS)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, two adapters and a pack of both in all formats; tests only read it."""
    folder = tmp_path_factory.mktemp("pipeline")
    checkpoint = make_checkpoint(folder / "toy")
    settings = quick(checkpoint, folder / "pack", weights=("fp32", "int8", "int4"), adapters=adapters_of(folder))
    export(settings)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "toy")


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """An empty folder for packs."""
    folder = tmp_path / "packs"
    folder.mkdir()
    return folder


def tensors_of(pack: Path, variant: str) -> dict[str, ir.ExternalTensor]:
    """External tensors of a variant's graph by name."""
    values = ir.load(pack / f"{variant}.onnx").graph.initializers.values()
    return {str(v.name): v.const_value for v in values if isinstance(v.const_value, ir.ExternalTensor)}


def place(tensor: ir.ExternalTensor) -> tuple[str, int, int]:
    return str(tensor.location), int(tensor.offset or 0), int(tensor.length or 0)


# --- what a pack holds


def test_a_second_export_is_byte_identical(home: Path, tmp_path: Path) -> None:
    adapters = {task: home / task for task in TASKS}
    export(quick(home / "toy", tmp_path / "again", weights=("fp32", "int8", "int4"), adapters=adapters))
    assert tree(tmp_path / "again") == tree(home / "pack")


def test_an_export_of_another_process_is_byte_identical(home: Path, tmp_path: Path) -> None:
    """Another hash seed: no set decides an order."""
    code = (
        "import sys; from pathlib import Path; from tests.helpers.exports import quick;"
        "from embedpack_export.pipeline import export; home = Path(sys.argv[1]);"
        "adapters = {task: home / task for task in ('code', 'retrieval')};"
        "weights = ('fp32', 'int8', 'int4');"
        "export(quick(home / 'toy', Path(sys.argv[2]), weights=weights, adapters=adapters))"
    )
    arguments = [str(home), str(tmp_path / "other")]
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=True)
    assert tree(tmp_path / "other") == tree(home / "pack")


def test_the_manifest_names_every_file(home: Path) -> None:
    pack = read_pack(home / "pack")
    assert sorted(pack.check_files()) == sorted(set(tree(home / "pack")) - {"pack.json"})
    assert {name.split("/")[0] for name in pack.manifest.files} == {
        "LICENSE",
        "calibration",
        "report",
        "tokenizer.json",
        "weights",
        *(f"{task}-{weights}.onnx" for task in TASKS for weights in ("fp32", "int8", "int4")),
    }


def test_the_manifest_tells_where_the_weights_came_from(home: Path) -> None:
    source = read_pack(home / "pack").manifest.source
    paths = {name: home / "toy" / name for name in ("config.json", "tokenizer.json", "model.safetensors")}
    for task in TASKS:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            paths[f"adapters/{task}/{name}"] = home / task / name
    assert source.name == "toy"
    assert dict(source.files) == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}


def test_the_fingerprint_follows_what_decides_the_vectors(checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update())

    def fingerprint(name: str, **changes: Any) -> str:
        return export(quick(checkpoint, tmp_path / name, weights=("fp32",), **changes)).source.fingerprint

    plain = fingerprint("plain")
    assert fingerprint("plain-again", truncate_dims=(8,), seed=3) == plain
    others = [
        fingerprint("pooling", pooling="cls"),
        fingerprint("length", max_tokens=16),
        fingerprint("adapted", adapters={"retrieval": adapter}),
    ]
    edit_json(checkpoint / "config_sentence_transformers.json", prompts={"query": "other: "})
    others.append(fingerprint("prompts"))
    assert len({plain, *others}) == 5


def test_the_record_tells_settings_and_tools(home: Path) -> None:
    record = read_pack(home / "pack").manifest.export
    assert record.settings == {
        "weights": ["fp32", "int8", "int4"],
        "adapters": list(TASKS),
        "adapter_modes": ["merged"],
        "max_loss": None,
        "allow_loss": None,
    }
    assert set(record.tools) == {"embedpack", "numpy", "onnx", "onnx-ir", "onnxruntime", "tokenizers"}
    assert record.seed == 0


def test_another_rounding_of_int4_is_recorded_and_changes_the_weights_alone(checkpoint: Path, tmp_path: Path) -> None:
    methods: tuple[RoundingMethod, ...] = ("rtn", "gptq", "gptaq")
    manifests = [
        export(quick(checkpoint, tmp_path / method, weights=("int4",), int4_method=method)) for method in methods
    ]
    assert [manifest.export.settings.get("int4_method") for manifest in manifests] == ["rtn", "gptq", None]
    assert len({manifest.files["weights/int4.bin"].sha256 for manifest in manifests}) == 3
    assert len({manifest.files["weights/shared.bin"].sha256 for manifest in manifests}) == 1


def test_a_pack_is_as_readable_as_any_folder(home: Path) -> None:
    assert stat.S_IMODE((home / "pack").stat().st_mode) == 0o755
    (home / "plain").touch()
    for path in (home / "pack").rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((home / "plain").stat().st_mode), path


def test_every_variant_gives_its_golden_vectors_again(home: Path) -> None:
    pack = read_pack(home / "pack")
    assert len(pack.manifest.variants) == 6
    for name, variant in pack.manifest.variants.items():
        assert check_golden(pack, name) <= TOLERANCE[variant.weights]


def test_each_task_has_its_own_vectors(home: Path) -> None:
    base = export(quick(home / "toy", home / "base", weights=("fp32",)))
    assert base.tasks["default"].adapter is None
    vectors = [
        Embedder(home / pack, variant=variant).encode(TEXTS).decode()
        for pack, variant in (("base", "default-fp32"), ("pack", "code-fp32"), ("pack", "retrieval-fp32"))
    ]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (1 - (vectors[one] * vectors[other]).sum(1)).max() > 1e-3


def test_the_accuracy_of_each_variant_is_measured_on_the_calibration_texts(home: Path) -> None:
    for variant in read_pack(home / "pack").manifest.variants.values():
        assert variant.accuracy.texts == len(TEXTS)
        assert variant.accuracy.cosine_min <= variant.accuracy.cosine_p1 <= variant.accuracy.cosine_mean <= 1
        assert variant.accuracy.cosine_min > {"fp32": 0.999999, "int8": 0.999, "int4": 0.97}[variant.weights]


def test_the_adapter_record_counts_what_was_merged(home: Path) -> None:
    for task in read_pack(home / "pack").manifest.tasks.values():
        assert task.adapter is not None
        assert task.adapter.modules == 1
        assert task.adapter.relative_change > 0.1


# --- external data


def test_large_tensors_begin_on_a_page_and_all_on_a_cache_line(home: Path) -> None:
    sizes = []
    for weights in ("fp32", "int8", "int4"):
        for name, tensor in tensors_of(home / "pack", f"code-{weights}").items():
            _, offset, length = place(tensor)
            assert offset % (4096 if length >= 4096 else 64) == 0, name
            sizes.append(length)
    assert min(sizes) < 4096 <= max(sizes)


@pytest.mark.parametrize("weights", ["fp32", "int8", "int4"])
def test_tensors_do_not_overlap(home: Path, weights: str) -> None:
    spans = sorted({place(tensor) for tensor in tensors_of(home / "pack", f"code-{weights}").values()})
    for (file, offset, length), (next_file, next_offset, _) in pairwise(spans):
        assert file != next_file or offset + length <= next_offset


def test_norms_and_biases_are_shared_by_formats_and_tasks(home: Path) -> None:
    """What is equal has one place: LayerNorm weights in all four graphs, biases of fp32 in both of its own."""
    graphs = [tensors_of(home / "pack", f"{task}-{weights}") for task in TASKS for weights in ("fp32", "int4")]
    name = "embeddings.position_embeddings.weight"
    assert len({place(graph[name]) for graph in graphs}) == 1
    assert place(graphs[0][name])[0] == "weights/shared.bin"


def test_matrices_that_no_adapter_changed_are_stored_once(home: Path) -> None:
    code, retrieval = (tensors_of(home / "pack", f"{task}-fp32") for task in TASKS)
    differing = {name for name in code if place(code[name]) != place(retrieval[name])}
    assert differing == {f"{QUERY}.weight"}


def test_two_tasks_of_one_adapter_need_no_more_room_than_one(checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update())
    formats = ("fp32", "int8", "int4")
    export(quick(checkpoint, tmp_path / "one", weights=formats, adapters={"a": adapter}))
    export(quick(checkpoint, tmp_path / "two", weights=formats, adapters={"a": adapter, "b": adapter}))
    assert tree(tmp_path / "one" / "weights") == tree(tmp_path / "two" / "weights")


def test_the_store_keeps_equal_tensors_apart_where_type_or_shape_differ(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    zeros = np.zeros(256, np.float32)
    first = store.add("a", "x", [zeros], np.float32, (256,))
    again = store.add("b", "x", [zeros[:100], zeros[100:]], np.float32, (256,))
    shaped = store.add("c", "x", [zeros], np.float32, (16, 16))
    typed = store.add("d", "x", [zeros.astype(np.int32)], np.int32, (256,))
    elsewhere = store.add("e", "y", [zeros], np.float32, (256,))
    assert place(again) == place(first)
    assert again.name == "b"
    assert len({place(first), place(shaped), place(typed)}) == 3
    assert place(elsewhere) == ("weights/y.bin", 0, 1024)
    assert (tmp_path / "weights" / "x.bin").stat().st_size == 3 * 1024


def test_the_store_refuses_a_tensor_of_another_size_than_announced(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=exactly("a: 12 bytes written, 16 announced")):
        WeightStore(tmp_path).add("a", "x", [np.zeros(3, np.float32)], np.float32, (4,))


# --- whole or not at all

INTERRUPTIONS = {
    "calibration inputs": "embedpack_export.stages.task_run.text_inputs",
    "calibration graph": "embedpack_export.stages.exact_run._write_stage",
    "calibration": "embedpack_export.stages.exact_run.StatisticsSum.add",
    "stage": "embedpack_export.stages.graph_writer.GraphWriter.append",
    "written stage": "embedpack_export.stages.graph_writer.WrittenStage.run",
    "exact vectors": "embedpack_export.stages.task_run.open_heads",
    "codes": "embedpack_export.pipeline.fit_codes",
    "codebooks": "embedpack_export.stages.output_codes.write_codebooks",
    "graph": "embedpack_export.stages.graph_writer.GraphWriter.finish",
    "check": "embedpack_export.assembly.pack_builder.check_forms",
    "measuring": "embedpack_export.pipeline.accuracy",
    "licence": "embedpack_export.assembly.manifest.pack_license",
    "manifest": "embedpack_export.assembly.manifest.write_manifest",
    "comparison": "embedpack_export.gate.writing.check_pack",
    "page": "embedpack_export.gate.writing.html",
    "last manifest": "embedpack_export.gate.writing.write_manifest",
}


def interrupt(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    def stop(*arguments: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(name, stop)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug")], ids=["Ctrl-C", "bug"])
@pytest.mark.parametrize("where", INTERRUPTIONS.values(), ids=INTERRUPTIONS)
def test_an_interrupted_export_leaves_nothing_behind(
    checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    interrupt(monkeypatch, where, error)
    with pytest.raises(type(error)):
        export(quick(checkpoint, packs / "toy", weights=("int8",)))
    assert list(packs.iterdir()) == []


def test_an_interrupted_export_can_be_repeated(checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        interrupt(patched, INTERRUPTIONS["manifest"], KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            export(quick(checkpoint, packs / "toy", weights=("fp32",)))
    export(quick(checkpoint, packs / "toy", weights=("fp32",)))
    assert [path.name for path in packs.iterdir()] == ["toy"]


def test_an_interrupted_overwrite_keeps_the_old_pack(
    checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(quick(checkpoint, packs / "toy", weights=("fp32",)))
    before = tree(packs)
    interrupt(monkeypatch, INTERRUPTIONS["manifest"], KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        export(quick(checkpoint, packs / "toy", weights=("int8",), overwrite=True))
    assert tree(packs) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DENIED], ids=["Ctrl-C", "denied"])
def test_an_overwrite_that_fails_at_the_last_step_keeps_the_old_pack(
    checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """The old pack has to step aside first; when the new one then cannot take its place, it has to come back."""
    export(quick(checkpoint, packs / "toy", weights=("fp32",)))
    before = tree(packs)
    rename, errors = os.rename, [error]

    def fail_once(source: Path, target: Path) -> None:
        if Path(target) == packs / "toy" and errors:
            raise errors.pop()
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises((KeyboardInterrupt, InputError)):
        export(quick(checkpoint, packs / "toy", weights=("fp32", "int8"), overwrite=True))
    assert tree(packs) == before


# --- where a pack may be written


def refuse(error: type[EmbedpackError], message: str, checkpoint: Path, output: Path, **changes: Any) -> None:
    before = tree(output.parent)
    with pytest.raises(error, match=exactly(message)):
        export(quick(checkpoint, output, weights=("fp32",), **changes))
    assert tree(output.parent) == before


def test_an_existing_pack_is_not_replaced_unasked(checkpoint: Path, packs: Path) -> None:
    export(quick(checkpoint, packs / "toy", weights=("fp32",)))
    message = f"{packs / 'toy'}: exists; choose another place, or pass --overwrite"
    refuse(InputError, message, checkpoint, packs / "toy")


def test_an_existing_pack_is_replaced_when_asked(checkpoint: Path, packs: Path) -> None:
    export(quick(checkpoint, packs / "toy", weights=("fp32",)))
    export(quick(checkpoint, packs / "toy", weights=("int8",), overwrite=True))
    assert [path.name for path in packs.iterdir()] == ["toy"]
    assert list(read_pack(packs / "toy").manifest.variants) == ["default-int8"]
    assert not (packs / "toy" / "default-fp32.onnx").exists()


def test_a_pack_of_another_minor_format_is_replaced_when_asked(checkpoint: Path, packs: Path) -> None:
    export(quick(checkpoint, packs / "toy", weights=("fp32",)))
    path = packs / "toy" / "pack.json"
    old = json.loads(path.read_text("utf-8")) | {"format": "2.9", "field_of_its_own": 1}
    del old["tasks"]
    path.write_text(json.dumps(old), "utf-8")
    refuse(InputError, f"{packs / 'toy'}: exists; choose another place, or pass --overwrite", checkpoint, packs / "toy")
    export(quick(checkpoint, packs / "toy", weights=("int8",), overwrite=True))
    assert list(read_pack(packs / "toy").manifest.variants) == ["default-int8"]


def test_an_empty_folder_is_a_good_place(checkpoint: Path, packs: Path) -> None:
    (packs / "toy").mkdir()
    export(quick(checkpoint, packs / "toy", weights=("fp32",)))
    assert [path.name for path in packs.iterdir()] == ["toy"]


def test_missing_folders_above_are_made(checkpoint: Path, packs: Path) -> None:
    export(quick(checkpoint, packs / "of" / "today" / "toy", weights=("fp32",)))
    assert read_pack(packs / "of" / "today" / "toy").manifest.name == "toy"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_things_is_never_replaced(checkpoint: Path, packs: Path, overwrite: bool) -> None:
    (packs / "toy").mkdir()
    (packs / "toy" / "thesis.tex").write_text("years of work")
    message = f"{packs / 'toy'}: exists and is no pack; choose another place"
    refuse(InputError, message, checkpoint, packs / "toy", overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_never_replaced(checkpoint: Path, packs: Path, overwrite: bool) -> None:
    (packs / "toy").write_text("years of work")
    message = f"{packs / 'toy'}: exists and is no pack; choose another place"
    refuse(InputError, message, checkpoint, packs / "toy", overwrite=overwrite)


@pytest.mark.parametrize(
    "content", ["{}", '{"name": "my-npm-packages"}', "", '{"format": "0.1"}', '{"format": "2.0", "files": 3}']
)
def test_a_folder_with_another_kind_of_pack_json_is_never_replaced(checkpoint: Path, packs: Path, content: str) -> None:
    (packs / "toy").mkdir()
    (packs / "toy" / "pack.json").write_text(content)
    (packs / "toy" / "thesis.tex").write_text("years of work")
    message = f"{packs / 'toy'}: exists and is no pack; choose another place"
    refuse(InputError, message, checkpoint, packs / "toy", overwrite=True)


def test_a_pack_with_files_of_the_user_is_not_replaced(checkpoint: Path, packs: Path) -> None:
    export(quick(checkpoint, packs / "toy", weights=("fp32",)))
    (packs / "toy" / "notes").mkdir()
    (packs / "toy" / "notes" / "results.txt").write_text("years of work")
    message = f"{packs / 'toy'}: holds 'notes/results.txt', which is no part of the pack; move it away first"
    refuse(InputError, message, checkpoint, packs / "toy", overwrite=True)


def test_a_place_below_a_file_is_refused(checkpoint: Path, packs: Path) -> None:
    (packs / "file").write_text("")
    message = f"{packs / 'file' / 'toy'}: cannot be written: {os.strerror(errno.EEXIST)}"
    with pytest.raises(InputError, match=exactly(message)):
        export(quick(checkpoint, packs / "file" / "toy"))


def test_refused_places_are_told_before_the_work(
    checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (packs / "toy").write_text("")
    interrupt(monkeypatch, "embedpack_export.pipeline.make_plan", AssertionError("the work began"))
    with pytest.raises(InputError, match="exists and is no pack"):
        export(quick(checkpoint, packs / "toy"))


# --- disks that refuse


def test_no_permission_to_write(checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, "embedpack_export.assembly.new_folder.tempfile.mkdtemp", DENIED)
    message = f"{packs / 'toy'}: cannot be written: Permission denied"
    refuse(InputError, message, checkpoint, packs / "toy")


def test_no_permission_to_make_the_folders_above(
    checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = quick(checkpoint, packs / "of" / "today" / "toy")
    interrupt(monkeypatch, "pathlib.Path.mkdir", DENIED)
    with pytest.raises(InputError, match=exactly(f"{settings.output}: cannot be written: Permission denied")):
        export(settings)


def test_no_permission_to_rename(checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, "embedpack_export.assembly.new_folder.os.rename", DENIED)
    message = f"{packs / 'toy'}: cannot be written: Permission denied"
    refuse(InputError, message, checkpoint, packs / "toy")


def test_no_permission_to_look_at_the_place(checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (packs / "toy").mkdir()
    settings = quick(checkpoint, packs / "toy")
    interrupt(monkeypatch, "pathlib.Path.iterdir", DENIED)
    with pytest.raises(InputError, match=exactly(f"{packs / 'toy'}: cannot be written: Permission denied")):
        export(settings)


class FullDisk(io.BufferedRandom):
    """A file on a disk without room for another byte."""

    def write(self, data: object, /) -> int:
        raise FULL


def fill_disk(monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Let every write to files of that ending fail."""
    opened = builtins.open

    def fake(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if isinstance(file, str | os.PathLike) and str(file).endswith(suffix) and mode not in ("r", "rb"):
            return FullDisk(io.FileIO(file, "r+" if "+" in mode else "w+"))
        return opened(file, mode, *arguments, **named)

    monkeypatch.setattr(builtins, "open", fake)
    monkeypatch.setattr(io, "open", fake)


@pytest.mark.parametrize(
    "suffix", ["shared.bin", "int8.bin", "default-int8.onnx", "stage.onnx", ".stage.onnx", "heads.onnx", "LICENSE"]
)
def test_a_full_disk(checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    settings = quick(checkpoint, packs / "toy", weights=("int8",))
    fill_disk(monkeypatch, suffix)
    message = rf"\A{packs}/\S+: the disk is full; free some space or write elsewhere\Z"
    with pytest.raises(CapacityError, match=message):
        export(settings)
    assert list(packs.iterdir()) == []


def test_a_full_disk_when_the_manifest_is_written(
    checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = quick(checkpoint, packs / "toy", weights=("fp32",))
    interrupt(monkeypatch, "embedpack.storage.atomic.tempfile.NamedTemporaryFile", FULL)
    message = rf"\A{packs}/\S+: the disk is full; free some space or write elsewhere\Z"
    with pytest.raises(CapacityError, match=message):
        export(settings)
    assert list(packs.iterdir()) == []


def test_a_full_quota_counts_as_a_full_disk(checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, "embedpack_export.assembly.new_folder.tempfile.mkdtemp", OSError(errno.EDQUOT, "quota"))
    message = f"{packs / 'toy'}: the disk is full; free some space or write elsewhere"
    refuse(CapacityError, message, checkpoint, packs / "toy")


def test_a_checkpoint_that_cannot_be_read_is_not_blamed_on_the_pack(
    checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, "numpy.fromfile", OSError(errno.EIO, os.strerror(errno.EIO)))
    message = f"{checkpoint / 'model.safetensors'}: cannot be read: Input/output error"
    refuse(EmbedpackError, message, checkpoint, packs / "toy")


def test_a_checkpoint_that_shrinks_while_it_is_read(checkpoint: Path) -> None:
    weights = Weights(read_checkpoint(checkpoint), None, RULES)
    path = checkpoint / "model.safetensors"
    os.truncate(path, path.stat().st_size // 4)
    message = f"{path}: {QUERY}.weight ends too early; was the file changed?"
    with pytest.raises(EmbedpackError, match=exactly(message)):
        list(weights.matrix(QUERY, (32, 32)).chunks())


# --- memory


def peak_of(action: Callable[[], object]) -> int:
    """Most bytes that Python objects and numpy arrays took at once."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def wide_checkpoint(folder: Path, layers: int) -> Path:
    """Wide enough that arrays, not the Python objects of nodes, make the memory."""
    shape: dict[str, Any] = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 2}
    checkpoint = make_checkpoint(folder / f"toy-{layers}", num_hidden_layers=layers, **shape)
    (checkpoint / "config_sentence_transformers.json").unlink()
    return checkpoint


class Nearest:
    """In place of the real rounding, which would invert a large matrix for every layer: seconds of it."""

    def __init__(self, columns: int) -> None:
        self.order = np.arange(columns)

    @classmethod
    def for_covariance(cls, covariance: np.ndarray) -> Nearest:
        assert covariance.shape[0] == covariance.shape[1]
        return cls(len(covariance))

    def round(self, weights: np.ndarray, scales: np.ndarray, low: int, high: int) -> np.ndarray:
        return np.clip(np.rint(weights / scales), low, high)


def test_peak_memory_does_not_grow_with_the_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are streamed, and so must be what calibration collects: 36 layers must need no more than 2."""
    monkeypatch.setattr("embedpack.engine.golden.TEXTS", ("a cat",))
    monkeypatch.setattr("embedpack_export.quantization.gptq.Rounding", Nearest)
    few, many = (
        quick(wide_checkpoint(tmp_path, layers), tmp_path / f"pack-{layers}", weights=("int8",), overwrite=True)
        for layers in (2, 6)
    )
    calibration_file(tmp_path, ("a cat", "how to"))
    export(few)
    assert peak_of(lambda: export(many)) < 1.2 * peak_of(lambda: export(few))


def test_merging_takes_the_memory_of_a_few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merged table is never whole in memory: 8 chunks of 32 rows take about the memory of one."""
    monkeypatch.setattr("embedpack_export.arrays.CHUNK_ROWS", 32)
    checkpoint = make_checkpoint(tmp_path / "toy", hidden_size=512, num_hidden_layers=1)
    rng = np.random.default_rng(0)
    key, module = "base_model.model.embeddings.word_embeddings", "embeddings.word_embeddings"
    rows = json.loads((checkpoint / "config.json").read_text())["vocab_size"]
    update = {
        f"{key}.lora_embedding_A": rng.standard_normal((4, rows)).astype(np.float32),
        f"{key}.lora_embedding_B": rng.standard_normal((512, 4)).astype(np.float32),
    }
    adapter = read_adapter(write_adapter(tmp_path / "adapter", update), "any")
    weights = Weights(read_checkpoint(checkpoint), adapter, RULES)

    def read_all() -> None:
        for _ in weights.matrix(module, (rows, 512)).chunks():
            pass

    read_all()
    assert peak_of(read_all) < rows * 512 * 4


# --- calibration


def test_the_shipped_texts_are_the_default(home: Path) -> None:
    shipped = read_calibration(None)
    assert shipped.sha256 == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert len(shipped.texts) > 100


def test_a_calibration_file_is_used_and_recorded(checkpoint: Path, tmp_path: Path) -> None:
    short = export(quick(checkpoint, tmp_path / "one", weights=("int8",)))
    path = calibration_file(tmp_path, ("a sentence of its own", "day , night !"))
    settings = quick(checkpoint, tmp_path / "two", weights=("int8",))
    assert settings.calibrate == path
    path = calibration_file(tmp_path, ("a sentence of its own", "day , night !"))
    other = export(settings)
    assert other.export.calibration == hashlib.sha256(path.read_bytes()).hexdigest()
    assert other.export.calibration != short.export.calibration
    assert other.variants["default-int8"].accuracy.texts == 2
    assert other.tasks["default"].int8_scale != short.tasks["default"].int8_scale
    assert tree(tmp_path / "one")["weights/int8.bin"] != tree(tmp_path / "two")["weights/int8.bin"]


def test_the_graph_codes_with_the_codebook_of_its_task(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitted to the calibration texts, the same every time, and where the manifest says."""
    monkeypatch.setattr("embedpack_export.quantization.codebook_fit.shares_found", center_helps)
    texts = [f"{first} {second}" for first in ("the cat", "a house", "rain", "how to", "blue") for second in TEXTS]
    settings = quick(checkpoint, tmp_path / "pack", weights=("fp32",))
    calibration_file(tmp_path, tuple(texts))
    manifest = export(settings)
    export(replace(settings, output=tmp_path / "again"))
    assert tree(tmp_path / "again") == tree(tmp_path / "pack")
    record = manifest.tasks["default"].codes
    assert (record.file, record.texts, record.kept) == ("calibration/default.safetensors", 20, ("center",))
    assert record.sha256 == manifest.export.calibration
    assert list(record.agreement) == ["none", "center", "center+rotation"]
    assert record.agreement["center"]["binary"] > record.agreement["none"]["binary"]
    assert manifest.tasks["default"].token_codes is None
    codebook = read_codebooks(tmp_path / "pack" / record.file, manifest.dimensions, None).single
    pack = read_pack(tmp_path / "pack")
    encoder = open_encoder(pack, manifest.variants["default-fp32"], 1)
    items = list(encoder.processor.items(TEXTS))
    vectors, bits = (encoder.run(items, f"sentence_embedding{end}", EncodeOptions()) for end in ("", "_binary"))
    np.testing.assert_array_equal(bits, np.packbits(codebook.digits(vectors, "binary"), axis=-1))
    assert not np.array_equal(bits, np.packbits(vectors > 0, axis=-1))


def test_few_texts_give_plain_signs(home: Path) -> None:
    record = read_pack(home / "pack").manifest.tasks["code"].codes
    assert (record.texts, record.kept, record.agreement) == (len(TEXTS), (), {})
    assert not read_codebooks(home / "pack" / record.file, 32, None).single.center.any()


def test_the_kind_of_a_text_picks_its_prompt(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    lines = [{"text": "a", "kind": "query"}, {"text": "b", "kind": "poem"}, {"text": "c", "lang": "en"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    found = read_calibration(path)
    prompts = {"query": "query: ", "passage": "passage: "}
    assert found.by_prompt(TaskPlan(None, prompts, None).prompt) == {"query: ": ["a"], "": ["b", "c"]}
    assert found.by_prompt(TaskPlan(None, prompts, "passage").prompt) == {"query: ": ["a"], "passage: ": ["b", "c"]}


@pytest.mark.parametrize(
    ("work", "fewest", "most", "expected"),
    [
        (4e12, 3, 25_000, ["cat", "river", "roof", "rain", "house", "door", "tree"]),
        (0, 9, 25_000, ["cat", "rain", "tree"]),
        (4e12, 3, 9, ["cat", "rain", "tree"]),
        (0, 1, 1, ["cat"]),
    ],
)
def test_large_models_look_at_fewer_texts(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, work: float, fewest: int, most: int, expected: list[str]
) -> None:
    """Spread over the file, whose texts may be sorted."""
    for name, value in (("MAX_WORK", work), ("MIN_TOKENS", fewest), ("MAX_TOKENS", most)):
        monkeypatch.setattr(f"embedpack_export.stages.inputs.{name}", value)
    calibrate = calibration_file(checkpoint.parent, ("cat", "river", "roof", "rain", "house", "door", "tree"))
    found = make_plan(ExportSettings(checkpoint=checkpoint, output=checkpoint.parent / "pack", calibrate=calibrate))
    inputs = text_inputs(found, found.tasks["default"], [])
    chosen = {tuple(item.ids) for batch in inputs.calibration for item in batch.items}
    assert chosen == {tuple(item.ids) for item in found.processor.process(found.processor.items(expected), "")}
    assert inputs.golden == []


def test_no_calibration_file(checkpoint: Path, packs: Path, tmp_path: Path) -> None:
    path = tmp_path / "nowhere.jsonl"
    message = f"{path}: cannot be read: No such file or directory"
    refuse(InputError, message, checkpoint, packs / "toy", calibrate=path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"just text\n", "JSON is malformed: invalid character (byte 0)"),
        (b'{"text": "a"}\n{"text": "b"\n', "Input data was truncated"),
        (b'{"txt": "a"}\n', "Object missing required field `text`"),
        (b'{"text": 7}\n', "Expected `str`, got `int` - at `$.text`"),
        (b'["a"]\n', "Expected `object`, got `array`"),
        (b'{"text": "\xff"}\n', "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
)
def test_lines_that_are_no_texts(checkpoint: Path, packs: Path, tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(content)
    line = content.count(b"\n")
    message = f'{path}: line {line} must be a JSON object with a "text": {reason}'
    refuse(InputError, message, checkpoint, packs / "toy", calibrate=path)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_calibration_file_without_texts(checkpoint: Path, packs: Path, tmp_path: Path, content: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(content)
    refuse(InputError, f"{path}: holds no texts to calibrate on", checkpoint, packs / "toy", calibrate=path)


@pytest.mark.parametrize("text", ["", " \t"])
def test_an_empty_calibration_text_is_named_by_its_line(
    checkpoint: Path, packs: Path, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a cat"}\n\n' + json.dumps({"text": text}) + "\n")
    refuse(InputError, f"{path}: line 3 holds an empty text; leave it out", checkpoint, packs / "toy", calibrate=path)
