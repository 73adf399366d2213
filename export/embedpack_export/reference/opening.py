"""The two judges: torch with unmerged adapters, and the fp32 graph of the pack itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from embedpack import Embedder
from embedpack.errors import InputError
from embedpack.pack.folder import Pack
from embedpack.vectors.codes import Float32
from embedpack_export.evaluation.scoring.encoding import encode, encode_multi
from embedpack_export.evaluation.sets.data import Input
from embedpack_export.planning.plan import ExportPlan, make_plan
from embedpack_export.planning.settings import ExportSettings, ReferenceKind
from embedpack_export.reference.cache import Question, ReferenceCache


class Reference(Protocol):
    """Full-precision vectors, all of unit length; `prompt` is the name of one, of which a task may have none."""

    kind: ReferenceKind

    def single(self, task: str, inputs: Sequence[Input], prompt: str) -> Float32:
        """One vector for each input, float32 [inputs, dimensions]."""

    def multi(self, task: str, inputs: Sequence[Input], prompt: str) -> list[Float32]:
        """Vectors of all tokens of each input, float32 [tokens, dimensions]."""

    def close(self) -> None:
        """Give the memory of models back; it may be asked again all the same."""


@dataclass(frozen=True)
class ReferenceSource:
    """Where the reference comes from: a checkpoint and adapters by hand; None: the pack's own fp32 variant."""

    checkpoint: Path | None
    adapters: Mapping[str, Path]
    cache: Path | None


def open_reference(pack: Pack, source: ReferenceSource, threads: int | None) -> Reference:
    """The reference for a pack.

    Raises:
        InputError: the checkpoint and adapters are not those that the pack was made of, or there is neither a
            checkpoint nor an fp32 variant.
        CheckpointError: the checkpoint or an adapter cannot be read.
    """
    if source.checkpoint is None:
        if source.adapters:
            raise InputError("--adapter goes with --reference; name the checkpoint that the adapters belong to")
        return GraphReference(pack, threads)
    plan = plan_of(pack, source.checkpoint, source.adapters)
    return TorchReference(plan, ReferenceCache(source.cache))


def plan_of(pack: Pack, checkpoint: Path, adapters: Mapping[str, Path]) -> ExportPlan:
    """The plan of the export that made a pack.

    Raises:
        InputError: the pack was made of other files.
        CheckpointError: the checkpoint or an adapter cannot be read, or a task of the pack is not in it.
    """
    manifest = pack.manifest
    plan = make_plan(
        ExportSettings(
            checkpoint=checkpoint,
            output=pack.folder,
            adapters=adapters,
            tasks=tuple(manifest.tasks),
            modality="text" if manifest.image is None else "text+image",
            pooling=manifest.pooling,
            max_tokens=manifest.text.max_tokens,
        )
    )
    if plan.source.fingerprint != manifest.source.fingerprint:
        named = "".join(f" and --adapter {task}={folder}" for task, folder in adapters.items())
        raise InputError(
            f"{pack.folder} was made of other files than {checkpoint}{named}: the pack's fingerprint is "
            f"{manifest.source.fingerprint[:16]}…, that of these files {plan.source.fingerprint[:16]}…; pass the "
            "checkpoint and all adapters that it was exported from"
        )
    return plan


class TorchReference:
    """transformers in float32 with PEFT's adapter beside the weights; loads a task's model when it is first needed."""

    kind: ReferenceKind = "torch"

    def __init__(self, plan: ExportPlan, cache: ReferenceCache) -> None:
        self._plan = plan
        self._cache = cache
        self._open: tuple[str, TorchModel] | None = None

    def single(self, task: str, inputs: Sequence[Input], prompt: str) -> Float32:
        """One vector for each input, float32 [inputs, dimensions]."""
        question = self._question(task, inputs, prompt)
        return self._cache.single(question, lambda: self._model(task).single(inputs, question.prompt))

    def multi(self, task: str, inputs: Sequence[Input], prompt: str) -> list[Float32]:
        """Vectors of all tokens of each input, float32 [tokens, dimensions]."""
        question = self._question(task, inputs, prompt)
        return self._cache.multi(question, lambda: self._model(task).multi(inputs, question.prompt))

    def close(self) -> None:
        """Give the memory of the model back."""
        self._open = None

    def _question(self, task: str, inputs: Sequence[Input], prompt: str) -> Question:
        return Question(self._plan.source.fingerprint, task, self._plan.tasks[task].prompt(prompt), inputs)

    def _model(self, task: str) -> TorchModel:
        """The model of a task; that of another one is closed before."""
        # Importing torch takes seconds, and vectors may all come from the cache.
        from embedpack_export.reference.torch_reference import open_torch_model

        if self._open is None or self._open[0] != task:
            self._open = None
            self._open = (task, open_torch_model(self._plan, task))
        return self._open[1]


class TorchModel(Protocol):
    """A model of one task; `prompt` is the text in front."""

    def single(self, inputs: Sequence[Input], prompt: str) -> Float32:
        """One vector for each input, float32 [inputs, dimensions]."""

    def multi(self, inputs: Sequence[Input], prompt: str) -> list[Float32]:
        """Vectors of all tokens of each input, float32 [tokens, dimensions]."""


class GraphReference:
    """The fp32 variants of a pack."""

    kind: ReferenceKind = "fp32 graph"

    def __init__(self, pack: Pack, threads: int | None) -> None:
        """Look for the variants.

        Raises:
            InputError: a task has none.
        """
        self._pack = pack
        self._threads = threads
        self._open: tuple[str, Embedder] | None = None
        for task in pack.manifest.tasks:
            self._variant(task)

    def single(self, task: str, inputs: Sequence[Input], prompt: str) -> Float32:
        """One vector for each input, float32 [inputs, dimensions]."""
        return encode(self._model(task), task, inputs, prompt).codes

    def multi(self, task: str, inputs: Sequence[Input], prompt: str) -> list[Float32]:
        """Vectors of all tokens of each input, float32 [tokens, dimensions]."""
        found = encode_multi(self._model(task), task, inputs, prompt)
        return np.split(found.codes, found.offsets[1:-1])

    def close(self) -> None:
        """Give the memory of the graph back."""
        self._open = None

    def _model(self, task: str) -> Embedder:
        name = self._variant(task)
        if self._open is None or self._open[0] != name:
            self._open = None
            self._open = (name, Embedder(self._pack.folder, variant=name, threads=self._threads))
        return self._open[1]

    def _variant(self, task: str) -> str:
        """The fp32 variant of a task, merged where there is a choice."""
        found = {
            variant.adapters: name
            for name, variant in self._pack.manifest.variants.items()
            if variant.weights == "fp32" and variant.task in (task, None)
        }
        if not found:
            raise InputError(
                f"{self._pack.folder}: task {task!r} has no fp32 variant to compare with; pass --reference CHECKPOINT "
                "(and --adapter TASK=DIR), the files that the pack was exported from"
            )
        return found.get("merged") or found["switchable"]
