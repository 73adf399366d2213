"""Adapters of a checkpoint in PEFT's format: in one folder, or in one folder for each task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embedpack.errors import CheckpointError
from embedpack_export.sources.adapter import Adapter
from embedpack_export.sources.checkpoint import Checkpoint
from embedpack_export.sources.lora_config import CONFIG_FILE
from embedpack_export.sources.peft_adapter import TENSORS_FILE, file_tasks, read_adapter


@dataclass(frozen=True)
class PeftFile:
    """One folder with the adapters of all tasks in one file, as in jina-embeddings-v4."""

    folder: Path
    tasks: tuple[str, ...]

    def read(self, checkpoint: Checkpoint, task: str) -> Adapter:
        """See `AdapterSource`."""
        others = sorted(file_tasks(self.folder) - set(self.tasks))
        if others:
            raise CheckpointError(
                f"{self.folder / TENSORS_FILE}: has adapters of {', '.join(others)}, config.json of "
                f"{', '.join(self.tasks)}; are both of one model?"
            )
        return read_adapter(self.folder, task)

    def take(self, checkpoint: Checkpoint) -> Checkpoint:
        """See `AdapterSource`: the adapters have their own file."""
        return checkpoint


@dataclass(frozen=True)
class PeftFolders:
    """A folder `<task>` for each task, as in jina-embeddings-v5."""

    folder: Path  # folder of these folders
    names: tuple[str, ...] = ()  # tasks in config.json, in their order; empty: it has none

    @property
    def tasks(self) -> tuple[str, ...]:
        """See `AdapterSource`: names in config.json, or else of the folders with files of an adapter, sorted.

        An adapter without its configuration, or in a folder further below, is an error when it is read.
        """
        inside = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        tasks = tuple(path.name for path in inside if any(path.rglob("adapter_*")))
        if not tasks:
            raise CheckpointError(
                f"{self.folder}: no folder in it has an {CONFIG_FILE}; download the adapters of the model again"
            )
        if self.names and sorted(self.names) != list(tasks):
            raise CheckpointError(
                f"{self.folder}: has the tasks {', '.join(tasks)}, task_names of config.json are "
                f"{', '.join(self.names)}; are both of one model, and complete?"
            )
        return self.names or tasks

    def read(self, checkpoint: Checkpoint, task: str) -> Adapter:
        """See `AdapterSource`."""
        return read_adapter(self.folder / task, task)

    def take(self, checkpoint: Checkpoint) -> Checkpoint:
        """See `AdapterSource`: the adapters have their own files."""
        return checkpoint
