"""Adapters in folders, with rows of special tokens for each task in the checkpoint, as in jina-embeddings-v5-omni."""

from __future__ import annotations

from dataclasses import dataclass, replace

from embedpack.errors import CheckpointError
from embedpack.storage.safetensors import StoredTensor
from embedpack_export.sources.adapter import Adapter
from embedpack_export.sources.checkpoint import Checkpoint, check_is_float
from embedpack_export.sources.peft_folders import PeftFolders
from embedpack_export.sources.token_rows import TokenRows

PREFIX = "task_token_embeddings."


@dataclass(frozen=True)
class TaskTokens:
    """The tensor `task_token_embeddings.TASK` [tokens, hidden] replaces rows of the embedding table under its task."""

    folders: PeftFolders
    table: str  # module name of the table, as in the checkpoint
    indices: tuple[int, ...]  # token ids, in the order of the rows
    key: str  # key of config.json that has the token ids

    @property
    def tasks(self) -> tuple[str, ...]:
        """See `AdapterSource`."""
        return self.folders.tasks

    def read(self, checkpoint: Checkpoint, task: str) -> Adapter:
        """See `AdapterSource`."""
        adapter = self.folders.read(checkpoint, task)
        if adapter.token_rows:
            raise CheckpointError(
                f"{adapter.folder}: replaces rows of {next(iter(adapter.token_rows))}, as {self._name(task)} of the "
                "checkpoint does; export a checkpoint with one of them"
            )
        rows = TokenRows(self.table, self.indices, self._tensor(checkpoint, task), self.key)
        return replace(adapter, token_rows={self.table: rows})

    def take(self, checkpoint: Checkpoint) -> Checkpoint:
        """See `AdapterSource`."""
        taken = {self._tensor(checkpoint, task).name for task in self.tasks}
        return replace(
            checkpoint, tensors={name: tensor for name, tensor in checkpoint.tensors.items() if name not in taken}
        )

    def _name(self, task: str) -> str:
        """Name of the tensor of a task; torch's names of parameters have no hyphens here."""
        return f"{PREFIX}{task.replace('-', '_')}"

    def _tensor(self, checkpoint: Checkpoint, task: str) -> StoredTensor:
        tensor = checkpoint.tensors.get(self._name(task))
        if tensor is None:
            raise CheckpointError(
                f"{checkpoint.folder}: tensor {self._name(task)!r} is missing, the rows of {self.key} under the task "
                f"{task!r}; is a shard or a file incomplete?"
            )
        check_is_float(tensor)
        return tensor
