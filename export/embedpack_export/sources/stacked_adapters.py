"""Adapters of all tasks in the checkpoint itself, stacked along the first axis, as in jina-embeddings-v3.

torch.nn.utils.parametrize names the tensors of a module: `MODULE.parametrizations.weight.original` is the weight
without adapters, `MODULE.parametrizations.weight.0.lora_A` and `.lora_B` have one adapter for each task. Embeddings
have the factors A [tasks, vocabulary, r] and B [tasks, r, hidden], others A [tasks, r, in] and B [tasks, out, r].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from embedpack.errors import CheckpointError, unknown
from embedpack.storage.safetensors import StoredTensor
from embedpack_export.sources.adapter import Adapter
from embedpack_export.sources.checkpoint import Checkpoint, check_is_float
from embedpack_export.sources.lora import LowRankUpdate

PARTS = ("A", "B")


@dataclass(frozen=True)
class Stacked:
    """Adapters in the tensors `MODULE + infix + A` and `MODULE + infix + B`."""

    tasks: tuple[str, ...]  # in the order of the first axis
    rank: int
    scale: float  # factor of the product
    embeddings: re.Pattern[str]  # pattern of the names of embeddings
    infix: str = ".parametrizations.weight.0.lora_"

    def read(self, checkpoint: Checkpoint, task: str) -> Adapter:
        """See `AdapterSource`."""
        if task not in self.tasks:
            raise CheckpointError(f"{checkpoint.folder}: {unknown('task', task, self.tasks)}")
        index = self.tasks.index(task)
        updates = {
            module: self._update(module, pair["A"].part(index), pair["B"].part(index))
            for module, pair in self._pairs(checkpoint).items()
        }
        return Adapter(checkpoint.folder, {}, updates, {})

    def take(self, checkpoint: Checkpoint) -> Checkpoint:
        """See `AdapterSource`."""
        taken = {tensor for pair in self._pairs(checkpoint).values() for tensor in pair.values()}
        others = {name: tensor for name, tensor in checkpoint.tensors.items() if tensor not in taken}
        return replace(checkpoint, tensors=others)

    def _pairs(self, checkpoint: Checkpoint) -> dict[str, Mapping[str, StoredTensor]]:
        """Both stacked factors of each module."""
        pairs: dict[str, dict[str, StoredTensor]] = {}
        for name, tensor in checkpoint.tensors.items():
            module, infix, part = name.partition(self.infix)
            if infix and part in PARTS:
                self._check(tensor)
                pairs.setdefault(module, {})[part] = tensor
        if not pairs:
            raise CheckpointError(
                f"{checkpoint.folder}: no tensor is named ...{self.infix}A; is it a checkpoint without adapters?"
            )
        for pair in pairs.values():
            if len(pair) < len(PARTS):
                (tensor,) = pair.values()
                raise CheckpointError(
                    f"{tensor.path}: {tensor.name} is half of an adapter, the other factor is missing; download the "
                    "checkpoint again"
                )
        return dict(pairs)

    def _check(self, tensor: StoredTensor) -> None:
        check_is_float(tensor)
        if len(tensor.shape) != 3 or tensor.shape[0] != len(self.tasks):
            raise CheckpointError(
                f"{tensor.path}: {tensor.name} has the shape {list(tensor.shape)}, not [{len(self.tasks)}, ., .] for "
                f"the tasks {', '.join(self.tasks)} of config.json; are both of one model?"
            )

    def _update(self, module: str, a: StoredTensor, b: StoredTensor) -> LowRankUpdate:
        is_embedding = self.embeddings.search(module) is not None
        ranks = (a.shape[1], b.shape[0]) if is_embedding else (a.shape[0], b.shape[1])
        if ranks != (self.rank, self.rank):
            raise CheckpointError(
                f"{a.path}: {a.name} {list(a.shape)} and {b.name} {list(b.shape)} are no factors of rank {self.rank}, "
                "which config.json has; are both of one model?"
            )
        return LowRankUpdate(module, a, b, self.scale, "rows" if is_embedding else "linear")
