"""Folder of a new pack: complete or absent, never in place of other files, also on full or read-only disks."""

from __future__ import annotations

import builtins
import errno
import importlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from embedpack.errors import CapacityError, EmbedpackError, InputError
from embedpack.pack.folder import read_pack
from embedpack_export.assembly import new_folder
from embedpack_export.families.bert import RULES
from embedpack_export.pipeline import export
from embedpack_export.sources.checkpoint import read_checkpoint
from embedpack_export.sources.weights import Weights
from tests.helpers.exports import (
    QUERY,
    exactly,
    quick,
    tree,
)
from tests.helpers.tiny_checkpoint import make_checkpoint

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
DENIED = PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "toy")


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """An empty folder for packs."""
    folder = tmp_path / "packs"
    folder.mkdir()
    return folder


# --- whole or not at all

INTERRUPTIONS = {
    "calibration inputs": "embedpack_export.stages.task_run.text_inputs",
    "calibration graph": "embedpack_export.stages.calibration_run._write_stage",
    "calibration": "embedpack_export.stages.calibration_run.StatisticsSum.add",
    "stage": "embedpack_export.stages.graph_writer.GraphWriter.append",
    "written stage": "embedpack_export.stages.graph_writer.WrittenStage.run",
    "exact vectors": "embedpack_export.stages.task_run.open_heads",
    "codes": "embedpack_export.assembly.text_graphs.fit_codes",
    "codebooks": "embedpack_export.stages.output_codes.write_codebooks",
    "graph": "embedpack_export.stages.graph_writer.GraphWriter.finish",
    "check": "embedpack_export.assembly.pack_builder.check_forms",
    "measuring": "embedpack_export.assembly.text_graphs.rounding_cosines",
    "licence": "embedpack_export.assembly.manifest.pack_license",
    "manifest": "embedpack_export.assembly.manifest.write_manifest",
    "comparison": "embedpack_export.accuracy_check.writing.check_pack",
    "page": "embedpack_export.accuracy_check.writing.html",
    "last manifest": "embedpack_export.accuracy_check.writing.write_manifest",
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
    """The old pack is renamed first; if the new one cannot be moved there, it is renamed back."""
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


# --- what appears during the export


def appear(monkeypatch: pytest.MonkeyPatch, output: Path, content: Path) -> None:
    """Copy a folder to the output when the pack is complete."""
    take_place = new_folder._take_place

    def late(*arguments: Any, **options: Any) -> None:
        shutil.copytree(content, output, dirs_exist_ok=True)
        take_place(*arguments, **options)

    monkeypatch.setattr(new_folder, "_take_place", late)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("there_before", [False, True], ids=["absent", "empty folder"])
def test_what_appears_at_the_output_meanwhile_is_kept(
    checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, there_before: bool
) -> None:
    thesis = packs.parent / "thesis"
    thesis.mkdir()
    (thesis / "chapter.tex").write_text("years of work")
    if there_before:
        (packs / "toy").mkdir()
    appear(monkeypatch, packs / "toy", thesis)
    message = "exists and is no pack" if overwrite else "appeared while the pack was written, and is kept"
    with pytest.raises(InputError, match=f"{packs / 'toy'}: {message}; choose another folder"):
        export(quick(checkpoint, packs / "toy", weights=("fp32",), overwrite=overwrite))
    assert tree(packs) == {"toy/chapter.tex": b"years of work"}


def test_files_added_to_a_pack_that_is_overwritten_are_kept(
    checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(quick(checkpoint, packs / "toy", weights=("fp32",)))
    thesis = packs.parent / "thesis"
    thesis.mkdir()
    (thesis / "chapter.tex").write_text("years of work")
    before = tree(packs)
    appear(monkeypatch, packs / "toy", thesis)
    with pytest.raises(InputError, match=r"contains 'chapter\.tex', which is not part of the pack"):
        export(quick(checkpoint, packs / "toy", weights=("int8",), overwrite=True))
    assert tree(packs) == before | {"toy/chapter.tex": b"years of work"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_exports_to_one_output_the_first_or_the_overwriting_one_wins(
    checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    take_place = new_folder._take_place

    def late(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(new_folder, "_take_place", take_place)
        export(quick(checkpoint, packs / "toy", weights=("int8",)))
        take_place(*arguments, **options)

    monkeypatch.setattr(new_folder, "_take_place", late)
    second = quick(checkpoint, packs / "toy", weights=("fp32",), overwrite=overwrite)
    if overwrite:
        export(second)
    else:
        with pytest.raises(InputError, match="appeared while the pack was written"):
            export(second)
    assert [path.name for path in packs.iterdir()] == ["toy"]
    assert list(read_pack(packs / "toy").manifest.variants) == ["default-fp32" if overwrite else "default-int8"]


# --- folders of dead processes


def test_a_killed_export_is_cleaned_up_by_the_next_one(checkpoint: Path, packs: Path) -> None:
    export(quick(checkpoint, packs / "toy", weights=("fp32",)))
    dead = packs / ".toy.0123456789abcdef.embedpack"
    (dead / "replaced").mkdir(parents=True)
    (dead / "scratch").mkdir()
    before = tree(packs)
    os.rename(packs / "toy", dead / "replaced" / "toy")
    refuse_message = f"{packs / 'toy'}: exists; choose another folder, or pass --overwrite"
    with pytest.raises(InputError, match=exactly(refuse_message)):
        export(quick(checkpoint, packs / "toy", weights=("fp32",)))
    assert tree(packs) == before
    assert [path.name for path in packs.iterdir()] == ["toy"]


def test_an_output_that_is_a_link_stays_one(checkpoint: Path, packs: Path) -> None:
    (packs / "current").symlink_to(packs / "toy")
    export(quick(checkpoint, packs / "current", weights=("fp32",)))
    export(quick(checkpoint, packs / "current", weights=("int8",), overwrite=True))
    assert (packs / "current").readlink() == packs / "toy"
    assert list(read_pack(packs / "toy").manifest.variants) == ["default-int8"]


def test_a_new_pack_is_on_the_disk_before_it_has_its_name(
    checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def log(module: str, name: str, step: str) -> None:
        function = getattr(importlib.import_module(module), name)

        def logged(*arguments: Any) -> None:
            steps.append(step)
            function(*arguments)

        monkeypatch.setattr(f"{module}.{name}", logged)

    log("embedpack_export.assembly.new_folder", "sync_tree", "files")
    log("os", "rename", "name")
    log("embedpack_export.assembly.new_folder", "sync_folder", "folder")
    export(quick(checkpoint, packs / "toy", weights=("fp32",)))
    assert steps == ["files", "name", "folder"]


# --- where a pack may be written


def refuse(error: type[EmbedpackError], message: str, checkpoint: Path, output: Path, **changes: Any) -> None:
    before = tree(output.parent)
    with pytest.raises(error, match=exactly(message)):
        export(quick(checkpoint, output, weights=("fp32",), **changes))
    assert tree(output.parent) == before


def test_an_existing_pack_is_not_replaced_unasked(checkpoint: Path, packs: Path) -> None:
    export(quick(checkpoint, packs / "toy", weights=("fp32",)))
    message = f"{packs / 'toy'}: exists; choose another folder, or pass --overwrite"
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
    refuse(
        InputError, f"{packs / 'toy'}: exists; choose another folder, or pass --overwrite", checkpoint, packs / "toy"
    )
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
    message = f"{packs / 'toy'}: exists and is no pack; choose another folder"
    refuse(InputError, message, checkpoint, packs / "toy", overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_never_replaced(checkpoint: Path, packs: Path, overwrite: bool) -> None:
    (packs / "toy").write_text("years of work")
    message = f"{packs / 'toy'}: exists and is no pack; choose another folder"
    refuse(InputError, message, checkpoint, packs / "toy", overwrite=overwrite)


@pytest.mark.parametrize(
    "content", ["{}", '{"name": "my-npm-packages"}', "", '{"format": "0.1"}', '{"format": "2.0", "files": 3}']
)
def test_a_folder_with_another_kind_of_pack_json_is_never_replaced(checkpoint: Path, packs: Path, content: str) -> None:
    (packs / "toy").mkdir()
    (packs / "toy" / "pack.json").write_text(content)
    (packs / "toy" / "thesis.tex").write_text("years of work")
    message = f"{packs / 'toy'}: exists and is no pack; choose another folder"
    refuse(InputError, message, checkpoint, packs / "toy", overwrite=True)


def test_a_pack_with_files_of_the_user_is_not_replaced(checkpoint: Path, packs: Path) -> None:
    export(quick(checkpoint, packs / "toy", weights=("fp32",)))
    (packs / "toy" / "notes").mkdir()
    (packs / "toy" / "notes" / "results.txt").write_text("years of work")
    message = f"{packs / 'toy'}: contains 'notes/results.txt', which is not part of the pack; move it away first"
    refuse(InputError, message, checkpoint, packs / "toy", overwrite=True)


def test_a_place_below_a_file_is_refused(checkpoint: Path, packs: Path) -> None:
    (packs / "file").write_text("")
    reason = os.strerror(errno.EEXIST)
    message = f"{packs / 'file' / 'toy'}: cannot be written: {reason}; check the path, its permissions and the disk"
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
    interrupt(monkeypatch, "embedpack_export.assembly.new_folder.temporary_folder", DENIED)
    message = f"{packs / 'toy'}: cannot be written: Permission denied; check the path, its permissions and the disk"
    refuse(InputError, message, checkpoint, packs / "toy")


def test_no_permission_to_make_the_folders_above(
    checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = quick(checkpoint, packs / "of" / "today" / "toy")
    interrupt(monkeypatch, "pathlib.Path.mkdir", DENIED)
    with pytest.raises(
        InputError,
        match=exactly(
            f"{settings.output}: cannot be written: Permission denied; check the path, its permissions and the disk"
        ),
    ):
        export(settings)


def test_no_permission_to_rename(checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, "embedpack_export.assembly.new_folder.os.rename", DENIED)
    message = f"{packs / 'toy'}: cannot be written: Permission denied; check the path, its permissions and the disk"
    refuse(InputError, message, checkpoint, packs / "toy")


def test_no_permission_to_look_at_the_place(checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (packs / "toy").mkdir()
    settings = quick(checkpoint, packs / "toy")
    interrupt(monkeypatch, "pathlib.Path.iterdir", DENIED)
    with pytest.raises(
        InputError,
        match=exactly(
            f"{packs / 'toy'}: cannot be written: Permission denied; check the path, its permissions and the disk"
        ),
    ):
        export(settings)


class FullDisk(io.BufferedRandom):
    """A file on a full disk."""

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
    interrupt(monkeypatch, "embedpack.storage.atomic.temporary_file", FULL)
    message = rf"\A{packs}/\S+: the disk is full; free some space or write elsewhere\Z"
    with pytest.raises(CapacityError, match=message):
        export(settings)
    assert list(packs.iterdir()) == []


def test_a_full_quota_counts_as_a_full_disk(checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, "embedpack_export.assembly.new_folder.temporary_folder", OSError(errno.EDQUOT, "quota"))
    message = f"{packs / 'toy'}: the disk is full; free some space or write elsewhere"
    refuse(CapacityError, message, checkpoint, packs / "toy")


def test_a_checkpoint_that_cannot_be_read_is_not_blamed_on_the_pack(
    checkpoint: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, "numpy.fromfile", OSError(errno.EIO, os.strerror(errno.EIO)))
    path = checkpoint / "model.safetensors"
    message = f"{path}: cannot be read: Input/output error; check the path, its permissions and the disk"
    refuse(EmbedpackError, message, checkpoint, packs / "toy")


def test_a_checkpoint_that_shrinks_while_it_is_read(checkpoint: Path) -> None:
    weights = Weights(read_checkpoint(checkpoint), None, RULES)
    path = checkpoint / "model.safetensors"
    os.truncate(path, path.stat().st_size // 4)
    message = f"{path}: {QUERY}.weight ends too early; was the file changed?"
    with pytest.raises(EmbedpackError, match=exactly(message)):
        list(weights.matrix(QUERY, (32, 32)).chunks())
