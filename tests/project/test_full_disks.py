"""Full disks and missing permissions: one error of one line, the old file stays, and no temporary file is left.

Two disks stand for full ones, as a small disk of its own needs the rights of root: the system's limit of a file's size,
which every writer meets, onnxruntime among them; and errors of the n-th fsync, at which a disk without room may report
it.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from embedpack.cli.main import main
from embedpack.storage.temporary import NAME
from tests.helpers.evaluation_sets import write_data
from tests.helpers.exports import calibration_file, tree
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_pack import TINY_PACK

Captured = pytest.CaptureFixture[str]
TEXTS = 200
# A user id without files.
NOBODY = 65_534
# Number of calls of fsync that fail in a test, one by one.
CALLS = 6
ENDINGS = {"lines": ".jsonl", "npz": ".npz", "safetensors": ".safetensors"}


@dataclass(frozen=True)
class Job:
    """A command that writes below a folder."""

    arguments: list[str]
    folder: Path
    # Prepared graphs are kept if a later step fails, and not written again if they are there.
    keeps_steps: bool = False

    def run(self) -> int:
        return main(self.arguments)

    def files(self) -> dict[str, bytes]:
        """Contents of the files below the folder."""
        return tree(self.folder)

    def empty(self) -> None:
        for path in self.folder.iterdir():
            shutil.rmtree(path)


def pack(home: Path) -> Path:
    """A copy of the tiny pack, which other users can read as well."""
    shutil.copytree(TINY_PACK, home / "pack")
    return home / "pack"


def export_job(home: Path) -> Job:
    checkpoint = make_checkpoint(home / "toy")
    options = ["--weights", "fp32", "--calibrate", str(calibration_file(home)), "--reference", "graph", "--overwrite"]
    return Job(["export", str(checkpoint), *options, "-o", str(home / "out" / "toy")], home / "out")


def embed_job(home: Path, ending: str) -> Job:
    texts = home / "texts.txt"
    texts.write_text("the cat sleeps\n" * TEXTS)
    output = str(home / "out" / f"vectors{ending}")
    return Job(["embed", str(pack(home)), str(texts), "-o", output, "--overwrite"], home / "out")


def prepare_job(home: Path) -> Job:
    arguments = ["prepare", str(pack(home)), "--variant", "default-int8", "--cache", str(home / "out")]
    return Job(arguments, home / "out", keeps_steps=True)


def bench_job(home: Path) -> Job:
    data, output = write_data(home / "data"), str(home / "out" / "results.json")
    options = ["--variant", "default-fp32", "--precision", "float32", "--set", "retrieval/words-en", "--max-loss", "2"]
    arguments = [
        "bench",
        "accuracy",
        str(pack(home)),
        "--data",
        str(data),
        "--no-cache",
        *options,
        "--json",
        output,
        "--overwrite",
    ]
    return Job(arguments, home / "out")


JOBS: dict[str, Callable[[Path], Job]] = {
    "export": export_job,
    "prepare": prepare_job,
    "bench": bench_job,
    **{f"embed {name}": partial(embed_job, ending=ending) for name, ending in ENDINGS.items()},
}


@pytest.fixture(params=JOBS)
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    (tmp_path / "out").mkdir(mode=0o700)
    return JOBS[request.param](tmp_path)


@contextmanager
def without_rights_of_root() -> Iterator[None]:
    """Permissions count for root too."""
    user = os.geteuid()
    os.seteuid(NOBODY if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file can become larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class FullDisk:
    """Stands for os.fsync; one call fails."""

    def __init__(self, failing: int) -> None:
        self.failing, self.calls = failing, 0

    def __call__(self, descriptor: int) -> None:
        self.calls += 1
        if self.calls == self.failing + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def check_failure(job: Job, before: dict[str, bytes], reasons: Collection[str], capsys: Captured) -> None:
    """The last run failed with one line that names a reason, and changed nothing that was there."""
    *progress, line = capsys.readouterr().err.splitlines()
    assert [text for text in (*progress, line) if text.startswith(("embedpack: ", "Traceback"))] == [line]
    assert any(reason in line for reason in reasons), line
    after = job.files()
    assert not [name for name in after if any(NAME.fullmatch(part) for part in Path(name).parts)]
    if job.keeps_steps:
        after = {name: after[name] for name in before}
    assert after == before


def test_files_that_cannot_become_so_large(job: Job, capsys: Captured) -> None:
    assert job.run() == 0
    written = job.files()
    largest = max(map(len, written.values()))
    for size in (0, largest // 2, largest - 1):
        if job.keeps_steps:
            job.empty()
        before = job.files()
        capsys.readouterr()
        with file_limit(size):
            assert job.run() == 1
        check_failure(job, before, [os.strerror(errno.EFBIG), "onnxruntime cannot write it"], capsys)
    assert job.run() == 0
    assert job.files().keys() == written.keys()


def test_disks_that_are_full_at_the_end_of_a_file(job: Job, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th fsync fails, for every n; those of folders count for nothing, as some systems have none."""
    fsync = FullDisk(-1)
    monkeypatch.setattr(os, "fsync", fsync)
    assert job.run() == 0
    failed = 0
    for number in range(0, fsync.calls, 1 + fsync.calls // CALLS):
        if job.keeps_steps:
            job.empty()
        before = job.files()
        capsys.readouterr()
        monkeypatch.setattr(os, "fsync", FullDisk(number))
        if job.run() == 1:
            failed += 1
            check_failure(job, before, ["the disk is full"], capsys)
    assert failed > 0


@pytest.mark.parametrize("name", JOBS)
def test_folders_without_permission(name: str, capsys: Captured) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o755)
        (home / "out").mkdir(mode=0o700)
        job = JOBS[name](home)
        assert job.run() == 0  # as the user: what it imports may not be readable for others
        if job.keeps_steps:
            job.empty()
        (home / "out").chmod(0o555)
        before = job.files()
        capsys.readouterr()
        with without_rights_of_root():
            assert job.run() == 1
        check_failure(job, before, [os.strerror(errno.EACCES)], capsys)
        (home / "out").chmod(0o755)
