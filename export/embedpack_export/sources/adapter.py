"""Adapter of one task, whatever files it comes from, and the sources of adapters that a checkpoint brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from embedpack.storage.safetensors import StoredTensor
from embedpack_export.sources.checkpoint import Checkpoint
from embedpack_export.sources.lora import LowRankUpdate
from embedpack_export.sources.token_rows import TokenRows


@dataclass(frozen=True)
class Adapter:
    """Adapter of one task."""

    folder: Path  # folder of its files, or of the checkpoint that it is a part of
    files: Mapping[str, Path]  # its own files by name; empty: its tensors are in the checkpoint's files
    updates: Mapping[str, LowRankUpdate]  # low-rank updates by module name
    # Tensors that replace those of the backbone, by name (trained biases, `modules_to_save`).
    replacements: Mapping[str, StoredTensor]
    token_rows: Mapping[str, TokenRows] = field(default_factory=dict)  # replaced rows of embedding tables by module


class AdapterSource(Protocol):
    """Adapters that come with a checkpoint."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, one for each adapter.

        Raises:
            CheckpointError: there are none.
        """
        ...

    def read(self, checkpoint: Checkpoint, task: str) -> Adapter:
        """Read the adapter of a task.

        Raises:
            CheckpointError: its files or tensors are missing, damaged or contradictory.
        """
        ...

    def take(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint without the tensors of adapters: all that is left belongs to the backbone.

        Raises:
            CheckpointError: some of them are missing or contradictory.
        """
        ...
