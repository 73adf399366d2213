"""Download of checkpoints from the Hugging Face hub, all files from one commit."""

from __future__ import annotations

import errno
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedpack.errors import CapacityError, CheckpointError, EmbedpackError, MissingExtraError
from embedpack_export.sources.hub_check import check_snapshot, checked_answers
from embedpack_export.sources.hub_files import fetch_files

_PART = r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?"
REPOSITORY = re.compile(rf"(?!.*(?:--|\.\.))(?!.*\.git$){_PART}/{_PART}", re.ASCII)
MAX_PART_LENGTH = 96

FOLDER_INSTEAD = "or pass a folder instead"
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# The same error from hf_xet, which is not Python.
XET_DISK_FULL = f"(os error {errno.ENOSPC})"


@dataclass(frozen=True)
class Downloaded:
    """Downloaded files of a repository."""

    folder: Path  # folder of the files in the hub's cache
    name: str
    revision: str  # full hash of their commit


def is_repository(name: str) -> bool:
    """True if a name has the form `owner/name` of a repository and no such path exists."""
    shaped = REPOSITORY.fullmatch(name) and max(map(len, name.split("/"))) <= MAX_PART_LENGTH
    return bool(shaped) and not Path(name).exists()


def download(repository: str, revision: str | None) -> Downloaded:
    """Download the files that an export reads; files in the hub's cache are not downloaded again.

    The revision is resolved to a commit once, and every file is requested by that commit. If the hub does not answer,
    the last known commit of `revision` is taken from the cache, provided that it is complete.

    `revision` is a branch, tag or commit; None: the main branch.

    Raises:
        CheckpointError: the files are neither available from the hub nor complete in the cache, or differ from the
            digests that the hub has sent.
        CapacityError: the disk is full.
        MissingExtraError: huggingface_hub is not installed.
    """
    try:
        import huggingface_hub  # noqa: F401 - its own error names the extra
    except ImportError as missing:
        raise MissingExtraError("hub", "huggingface_hub") from missing
    _check_revision(repository, revision)
    try:
        with _bars_on_terminals_only(), checked_answers(repository):
            folder = fetch_files(repository, revision)
    except EmbedpackError:
        raise
    except Exception as cause:
        # Its class depends on the HTTP library below this version of huggingface_hub. Its text may quote a request
        # header, and so a token: neither the message nor a traceback may show it.
        raise _explained(cause, repository, revision or "main") from None
    check_snapshot(repository, folder)
    if not any((folder / name).is_file() for name in ("config.json", "0_Transformer/config.json")):
        raise CheckpointError(
            f"{repository}: commit {folder.name} has no config.json, so it is no checkpoint of transformers; "
            f"pass another revision, {FOLDER_INSTEAD}"
        )
    return Downloaded(folder, repository, folder.name)


def _check_revision(repository: str, revision: str | None) -> None:
    # The hub's cache writes a file of this name.
    if revision is not None and (not revision or ".." in revision or revision.startswith("/")):
        raise CheckpointError(
            f"{repository}: {revision!r} cannot name a revision; pass a branch, a tag or a commit hash"
        )


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    decided = constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or are_progress_bars_disabled()
    if decided or sys.stderr.isatty():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _explained(cause: Exception, repository: str, revision: str) -> EmbedpackError:
    """Convert an error of huggingface_hub."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(cause, LocalEntryNotFoundError) and isinstance(cause.__cause__, Exception):
        # It only adds that the file is not in the cache.
        cause = cause.__cause__
    return _disk_error(cause, repository) or _refusal(cause, repository, revision) or _other_error(cause, repository)


def _disk_error(cause: Exception, repository: str) -> EmbedpackError | None:
    from huggingface_hub.constants import HF_HUB_CACHE

    code = cause.errno if isinstance(cause, OSError) else None
    if code in DISK_FULL or XET_DISK_FULL in str(cause):
        cache = Path(HF_HUB_CACHE)
        free = shutil.disk_usage(cache).free // 10**6 if cache.is_dir() else 0
        return CapacityError(
            f"{HF_HUB_CACHE}: no room for {repository}, {free} MB are free; make room or set HF_HOME to a larger disk "
            f"and run it again (finished files are kept), {FOLDER_INSTEAD}"
        )
    if isinstance(cause, OSError) and code in NOT_WRITABLE and cause.filename is not None:
        return CheckpointError(
            f"{cause.filename}: {cause.strerror}; set HF_HOME to a folder that you may write to, {FOLDER_INSTEAD}"
        )
    return None


def _refusal(cause: Exception, repository: str, revision: str) -> CheckpointError | None:
    """Error for a refusal by the hub or by offline mode; None for other causes."""
    from huggingface_hub import constants, errors

    hub = _endpoint()
    sentences = {
        errors.GatedRepoError: f"{hub} requires that its terms are accepted; accept them at "
        f"{hub}/{repository} and set HF_TOKEN to a token of that account, {FOLDER_INSTEAD}",
        errors.RevisionNotFoundError: f"{hub} has it, but no revision {revision!r} of it; pass a branch, a tag or a "
        f"full commit hash that it has, {FOLDER_INSTEAD}",
        errors.RepositoryNotFoundError: f"no such folder, and {hub} has no such repository for you; "
        f"check the name, set HF_TOKEN if the repository is private, {FOLDER_INSTEAD}",
        errors.OfflineModeIsEnabled: f"HF_HUB_OFFLINE is set, and {constants.HF_HUB_CACHE} does not hold all files of "
        f"revision {revision!r}; unset it for one run, or run '{_download(repository)}' elsewhere and pass the folder",
    }
    for kind, sentence in sentences.items():
        if isinstance(cause, kind):
            return CheckpointError(f"{repository}: {sentence}")
    if not isinstance(cause, errors.HfHubHTTPError):
        return None
    status = cause.response.status_code
    advice = "check HF_TOKEN" if status in (401, 403) else "try again later"
    return CheckpointError(f"{repository}: {hub} answered with status {status}; {advice}, {FOLDER_INSTEAD}")


def _other_error(cause: Exception, repository: str) -> CheckpointError:
    if type(cause) is ValueError:  # of names and values; that of a text that is no JSON is a class below it
        return CheckpointError(
            f"{repository}: {_endpoint()} sent the name of a file or a value that cannot be used; check HF_ENDPOINT, "
            f"{FOLDER_INSTEAD}"
        )
    return CheckpointError(
        f"{repository}: the download from {_endpoint()} failed ({_reason(cause)}); check the network and run it again "
        f"(finished files are kept), or run '{_download(repository)}' elsewhere and pass the folder"
    )


def _download(repository: str) -> str:
    """Command that downloads a repository to a folder."""
    return f"hf download {repository} --local-dir FOLDER"


def _reason(cause: BaseException) -> str:
    """Message of the operating system; the name of the error if there is none."""
    link: BaseException | None = cause
    while link is not None:
        if isinstance(link, OSError) and link.errno is not None and link.strerror:
            return link.strerror
        link = link.__cause__ or link.__context__
    return type(cause).__name__


def _endpoint() -> str:
    from huggingface_hub.constants import ENDPOINT

    # A mirror's address may hold a password.
    return re.sub("//[^/@]*@", "//", ENDPOINT)
