"""Shards of `embedpack embed`: their files beside the output's name, and the journal of the run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from embedpack.cli.output import check_output
from embedpack.corpus.journal import Journal, Run
from embedpack.errors import InputError
from embedpack.storage.atomic import disk_errors

JOURNAL_SUFFIX = ".shards.jsonl"


@dataclass(frozen=True)
class Shards:
    """Shards of `size` inputs of a run; `output` names their files."""

    output: Path
    size: int
    journal: Journal

    @classmethod
    def open(cls, output: Path, run: Run, *, resume: bool) -> Shards:
        """Begin a run, or go on with the one that was begun; shards of a new run replace those that there are.

        Raises:
            InputError, CapacityError: the journal is that of another run, or cannot be written.
        """
        path = journal_path(output)
        if resume and path.exists():
            return cls(output, run.shard_size, Journal.resume(path, run))
        with disk_errors(path):
            # The journal first: without it, shards are of no run.
            path.unlink(missing_ok=True)
            for shard in _files(output):
                shard.unlink()
        return cls(output, run.shard_size, Journal.begin(path, run))

    def done(self) -> frozenset[int]:
        """Numbers of the shards that are on the disk, or have no vectors; looks for each file."""
        found = self.journal.done.values()
        return frozenset(each.shard for each in found if not each.vectors or self.path(each.shard).exists())

    def path(self, number: int) -> Path:
        """File of a shard."""
        return self.output.with_name(f"{self.output.stem}-{number:05d}{self.output.suffix}")


def check_shards(output: Path, inputs: list[str | Path], *, overwrite: bool, resume: bool) -> None:
    """Refuse shards that exist, and a journal that cannot be written, before any work.

    Raises:
        InputError, CapacityError: a file cannot be used.
    """
    path = journal_path(output)
    check_output(path, inputs, overwrite=overwrite or resume)
    found = [] if overwrite or (resume and path.exists()) else _files(output)
    if found:
        raise InputError(f"{found[0]}: exists, and no journal {path}; choose another output, or pass --overwrite")


def journal_path(output: Path) -> Path:
    """Path of the journal of a run."""
    return output.with_name(output.stem + JOURNAL_SUFFIX)


def _files(output: Path) -> list[Path]:
    """Files with the name of a shard, in their order."""
    name = re.compile(re.escape(output.stem) + r"-\d{5,}" + re.escape(output.suffix))
    return sorted(path for path in output.parent.glob("*") if name.fullmatch(path.name))
