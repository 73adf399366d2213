"""Kills at random moments of an export and an embed: no incomplete output, and the next run removes temporary files.

EMBEDPACK_KILLS=10 makes 10 kills with each of three signals and each command, which takes minutes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedpack.pack.folder import read_pack
from embedpack.storage.temporary import NAME, remove_leftovers
from tests.helpers.exports import calibration_file
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_pack import TINY_PACK

# For each signal and command; each takes a second or two.
KILLS = int(os.environ.get("EMBEDPACK_KILLS", "1"))
TEXTS = 2000
PROGRAM = (
    "import signal, sys; from embedpack.cli.main import main;"
    # A job in the background inherits that SIGINT is ignored.
    "signal.signal(signal.SIGINT, signal.default_int_handler);"
    "sys.exit(main(sys.argv[1:]))"
)


@dataclass(frozen=True)
class Job:
    """A command, its output, and a check that the output is complete."""

    arguments: list[str]
    output: Path
    check: Callable[[Path], None]

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command; return when its temporary file or folder exists, or it has ended."""
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *self.arguments, "-o", str(self.output), "--overwrite"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before = self.leftovers()
        while process.poll() is None and self.leftovers() <= before:
            time.sleep(0.001)
        return process

    def leftovers(self) -> set[str]:
        return {name for name in os.listdir(self.output.parent) if NAME.fullmatch(name)}  # noqa: PTH208


def check_pack(folder: Path) -> None:
    assert len(list(read_pack(folder).check_files())) == len(read_pack(folder).manifest.files)


def check_lines(path: Path) -> None:
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [str(n + 1) for n in range(TEXTS)]


@pytest.fixture(params=["export", "embed"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    (tmp_path / "out").mkdir()
    if request.param == "export":
        checkpoint, texts = make_checkpoint(tmp_path / "toy"), calibration_file(tmp_path)
        arguments = ["export", str(checkpoint), "--weights", "fp32", "--calibrate", str(texts), "--reference", "graph"]
        return Job(arguments, tmp_path / "out" / "toy", check_pack)
    (tmp_path / "texts.txt").write_text("the cat sleeps\n" * TEXTS)
    arguments = ["embed", str(TINY_PACK), str(tmp_path / "texts.txt")]
    return Job(arguments, tmp_path / "out" / "vectors.jsonl", check_lines)


def test_kills_at_random_moments(job: Job) -> None:
    folder = job.output.parent
    process = job.start()
    process.kill()
    process.wait()
    assert not job.output.exists()
    process = job.start()
    begin = time.monotonic()
    assert process.wait() == 0
    duration = time.monotonic() - begin
    job.check(job.output)
    moments = random.Random(0)
    for _ in range(KILLS):
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            process = job.start()
            time.sleep(moments.uniform(0, duration))
            process.send_signal(number)
            assert process.wait() in (0, 128 + number, -number)
            others = {name for name in os.listdir(folder) if not NAME.fullmatch(name)}  # noqa: PTH208
            assert others <= {job.output.name}
            remove_leftovers(folder)
            assert os.listdir(folder) == [job.output.name]  # noqa: PTH208
            job.check(job.output)
