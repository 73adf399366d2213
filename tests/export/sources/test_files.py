"""Files of checkpoints and adapters from strangers: pipes, devices, links out of the folder, sizes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from embedpack.errors import CheckpointError, InputError
from embedpack.storage.safetensors import open_safetensors
from embedpack_export.pipeline import export
from embedpack_export.sources import files
from embedpack_export.sources.checkpoint import read_checkpoint
from embedpack_export.sources.files import check_file, read_file
from embedpack_export.sources.license import read_license
from embedpack_export.sources.peft_adapter import read_adapter
from embedpack_export.sources.sentence_transformers import read_sentence_transformers
from tests.helpers.exports import exactly, query_update, quick, write_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "toy")


def read_everything(folder: Path) -> None:
    read_checkpoint(folder)
    read_license(folder)
    read_sentence_transformers(folder)
    export(quick(folder, folder.parent / "pack", weights=("fp32",)))


NAMES = ("config.json", "tokenizer.json", "model.safetensors", "LICENSE", "README.md", "modules.json")


@pytest.mark.parametrize("name", NAMES)
def test_pipes_are_refused_before_they_are_opened(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink(missing_ok=True)
    os.mkfifo(checkpoint / name)
    message = f"{checkpoint / name}: not a regular file; put a copy of the file in its place"
    with pytest.raises(CheckpointError, match=exactly(message)):
        read_everything(checkpoint)


def test_a_tokenizer_that_is_a_pipe_is_refused_before_a_family_opens_it(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    os.mkfifo(checkpoint / "tokenizer.json")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a regular file"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
def test_links_out_of_the_folder_are_refused(checkpoint: Path, name: str, relative: bool) -> None:
    secret = checkpoint.parent / "secret"
    path = checkpoint / name
    if path.exists():
        path.rename(secret)
    else:
        secret.write_text("[]")
    path.symlink_to(Path("../secret") if relative else secret)
    message = f"{path}: leads to {secret}, outside of the folder; put a copy of the file in its place"
    with pytest.raises(CheckpointError, match=exactly(message)):
        read_everything(checkpoint)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "LICENSE"])
def test_links_out_of_an_adapter_are_refused(checkpoint: Path, name: str) -> None:
    adapter = write_adapter(checkpoint.parent / "adapter", query_update())
    (adapter / "LICENSE").write_text("Do as you please.")
    (adapter / name).rename(checkpoint.parent / "secret")
    (adapter / name).symlink_to(checkpoint.parent / "secret")
    with pytest.raises(CheckpointError, match=f"{adapter / name}: leads to .*secret, outside of the folder"):
        export(quick(checkpoint, checkpoint.parent / "pack", adapters={"retrieval": adapter}))


def test_a_device_is_refused(checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()
    (checkpoint / "config.json").symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="leads to /dev/zero, outside of the folder"):
        read_checkpoint(checkpoint)


def test_modules_outside_of_the_folder_are_refused(checkpoint: Path) -> None:
    outside = checkpoint.parent / "outside"
    outside.mkdir()
    (outside / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (checkpoint / "modules.json").write_text('[{"type": "x.Pooling", "path": "../outside"}]')
    with pytest.raises(CheckpointError, match="outside of the folder"):
        read_sentence_transformers(checkpoint)


def test_links_inside_of_the_folder_are_files(checkpoint: Path) -> None:
    (checkpoint / "config.json").rename(checkpoint / "config.1.json")
    (checkpoint / "config.json").symlink_to("config.1.json")
    assert read_checkpoint(checkpoint).config["model_type"] == "bert"


def test_a_link_to_the_folder_itself_is_fine(checkpoint: Path) -> None:
    (checkpoint.parent / "latest").symlink_to(checkpoint)
    assert read_checkpoint(checkpoint.parent / "latest").config["model_type"] == "bert"


def in_cache(checkpoint: Path, name: str) -> Path:
    """Lay out a checkpoint as the hub's cache does, its files in blobs; the folder of its commit."""
    repository = checkpoint.parent / name
    snapshot = repository / "snapshots" / ("0" * 40)
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(each for each in checkpoint.rglob("*") if each.is_file())):
        shutil.copy(path, repository / "blobs" / str(number))
        target = snapshot / path.relative_to(checkpoint)
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(os.path.relpath(repository / "blobs" / str(number), target.parent))
    return snapshot


def test_links_of_the_cache_of_the_hub_are_followed_into_the_blobs_of_their_repository_alone(checkpoint: Path) -> None:
    (checkpoint / "LICENSE").write_text("Do as you please.")
    write_adapter(checkpoint / "adapters", query_update())
    snapshot = in_cache(checkpoint, "models--of--toy")
    assert read_checkpoint(snapshot).config["model_type"] == "bert"
    assert read_license(snapshot)[1] == "Do as you please."
    assert len(read_adapter(snapshot / "adapters", "any").updates) == 1
    other = in_cache(checkpoint, "models--of--another")
    (snapshot / "LICENSE").unlink()
    (snapshot / "LICENSE").symlink_to(other / "LICENSE")
    with pytest.raises(CheckpointError, match="outside of the folder"):
        read_license(snapshot)
    (snapshot / "LICENSE").unlink()
    (snapshot / "LICENSE").symlink_to("../../refs")
    with pytest.raises(CheckpointError, match="cannot be read: No such file or directory"):
        read_license(snapshot)


def test_blobs_that_repositories_of_the_cache_share_count_as_files(checkpoint: Path) -> None:
    """The layout of huggingface_hub 2: a blob of a repository is a link to one that all repositories share."""
    snapshot, shared = in_cache(checkpoint, "models--of--toy"), checkpoint.parent / "blobs" / "ab"
    shared.mkdir(parents=True)
    blob = (snapshot / "model.safetensors").resolve()
    shutil.move(blob, shared / "abc")
    blob.symlink_to("../../blobs/ab/abc")
    with pytest.raises(CheckpointError, match="outside of the folder"):
        read_checkpoint(snapshot)
    (shared.parent / ".huggingface-shared-blobs").write_text("1\n")
    assert read_checkpoint(snapshot).config["model_type"] == "bert"


def test_sizes_are_bounded(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkpoint / "LICENSE").write_bytes(b"")
    os.truncate(checkpoint / "LICENSE", files.MAX_TEXT_BYTES + 1)
    size = files.MAX_TEXT_BYTES
    message = f"{checkpoint / 'LICENSE'}: has {size + 1} bytes, at most {size} are read; is it another file?"
    with pytest.raises(CheckpointError, match=exactly(message)):
        read_license(checkpoint)


REFUSALS: list[Callable[[Path], object]] = [
    lambda path: check_file(path, path.parent),
    lambda path: read_file(path, path.parent, 10),
]


@pytest.mark.parametrize("read", REFUSALS)
def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: No such file or directory"):
        read(tmp_path / "missing")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match="not a regular file"):
        read(tmp_path / "folder")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "LICENSE").write_text("")
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(CheckpointError, match=r"LICENSE: cannot be read: Permission denied"):
        read_license(tmp_path)


def test_saved_vectors_that_are_a_pipe_are_refused_before_they_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "vectors.safetensors")
    with pytest.raises(InputError, match="it is no regular file"):
        open_safetensors(tmp_path / "vectors.safetensors")
