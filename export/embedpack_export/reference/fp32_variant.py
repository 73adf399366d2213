"""Reference for a finished pack without its checkpoint: the fp32 variants of the pack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedpack import Embedder
from embedpack.errors import InputError
from embedpack.inputs.prompt_rules import PromptOrPrefix, as_prompt
from embedpack.pack.folder import Pack
from embedpack.pack.manifest import Pooling
from embedpack.pack.prompts import NO_PROMPT
from embedpack.vectors.arrays import Float32
from embedpack_export.planning.settings import ReferenceKind
from embedpack_export.reference.protocol import Input


class Fp32VariantReference:
    """The fp32 variant of each task, merged if the pack has it; one is loaded at a time."""

    kind: ReferenceKind = "fp32 graph"
    packages: tuple[str, ...] = ()

    def __init__(self, pack: Pack, threads: int | None) -> None:
        """Choose the variants; raises InputError if a task has no fp32 variant."""
        self._pack = pack
        self._threads = threads
        self._loaded: tuple[str, Embedder] | None = None
        self._variants: dict[str | None, str] = {task: _variant(pack, task) for task in pack.manifest.tasks}

    def covers(
        self, task: str | None, inputs: Sequence[Input], prompt: PromptOrPrefix = "", pooling: Pooling | None = None
    ) -> bool:
        """True if this is a task of the pack, with the pooling of the pack."""
        head = self._pack.manifest.single
        return task in self._pack.manifest.tasks and pooling in (None, None if head is None else head.pooling)

    def single(
        self, task: str | None, inputs: Sequence[Input], prompt: PromptOrPrefix = "", pooling: Pooling | None = None
    ) -> Float32:
        """Single vectors, float32 [inputs, dimensions]."""
        model = self._model(task)
        return model.encode(list(inputs), task=task, prompt_name=_prompt_name(model, task, prompt)).codes

    def multi(self, task: str | None, inputs: Sequence[Input], prompt: PromptOrPrefix = "") -> list[Float32]:
        """Multi-vectors, for each input float32 [tokens, dimensions]."""
        model = self._model(task)
        vectors = model.encode_multi(list(inputs), task=task, prompt_name=_prompt_name(model, task, prompt))
        return np.split(vectors.codes, vectors.offsets[1:-1])

    def close(self) -> None:
        """Release the memory of the loaded variant."""
        self._loaded = None

    def _model(self, task: str | None) -> Embedder:
        name = self._variants[task]
        if self._loaded is None or self._loaded[0] != name:
            # Release the memory of the former one first.
            self._loaded = None
            self._loaded = (name, Embedder(self._pack.folder, variant=name, threads=self._threads))
        return self._loaded[1]


def _variant(pack: Pack, task: str) -> str:
    """Name of the fp32 variant of a task."""
    names = {
        variant.adapters: name
        for name, variant in pack.manifest.variants.items()
        if variant.weights == "fp32" and variant.task in (task, None)
    }
    if not names:
        raise InputError(
            f"{pack.folder}: task {task!r} has no fp32 variant to compare with; pass --reference CHECKPOINT "
            "(and --adapter TASK=DIR), the files that the pack was exported from"
        )
    return names.get("merged") or names["switchable"]


def _prompt_name(model: Embedder, task: str | None, prompt: PromptOrPrefix) -> str:
    """Name of the prompt in the pack."""
    prompts = {} if task is None else model.pack.manifest.tasks[task].prompts
    return next((name for name, known in prompts.items() if known == as_prompt(prompt)), NO_PROMPT)
