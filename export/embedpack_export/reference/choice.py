"""What the vectors of a pack are compared with: the model in torch, or what the exporter computed in float32."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from embedpack.errors import CheckpointError, InputError, MissingExtraError
from embedpack.host.memory import MEGABYTE, available_memory
from embedpack.pack.manifest import Pooling
from embedpack.vectors.codes import Float32
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.settings import ReferenceKind
from embedpack_export.stages.closeness import Vectors
from embedpack_export.stages.inputs import Inputs

if TYPE_CHECKING:
    from embedpack_export.reference.torch.model import ReferenceModel

logger = logging.getLogger("embedpack")

TORCH_PACKAGES: tuple[str, ...] = ("torch", "transformers", "peft")
# float32, and what loading and activations take beside the weights.
BYTES_A_PARAMETER = 4 * 1.3

# A text and the prompt in front of it.
Prompted = tuple[str, str]


@dataclass(frozen=True)
class Setup:
    """A way to compute vectors: the task whose adapter is used (None: no adapter), and the pooling."""

    task: str | None
    pooling: Pooling


class Reference(Protocol):
    """Vectors as they should be; `kind` is for the manifest, `packages` are those that computed them."""

    kind: ReferenceKind
    packages: tuple[str, ...]

    def knows(self, setup: Setup, texts: Sequence[Prompted]) -> bool:
        """Whether `single` has vectors of all these texts."""

    def single(self, setup: Setup, texts: Sequence[Prompted]) -> Float32:
        """Unit vectors [texts, dimensions]."""

    def tokens(self, setup: Setup, texts: Sequence[Prompted]) -> list[Float32]:
        """Unit vectors [tokens, dimensions of the head] of each text."""


class TorchReference:
    """transformers in float32 with PEFT's adapter beside the weights; one model is loaded at a time."""

    kind: ReferenceKind = "torch"
    packages = TORCH_PACKAGES

    def __init__(self, plan: ExportPlan) -> None:
        self._plan = plan
        self._loaded: tuple[Setup, ReferenceModel] | None = None

    def knows(self, setup: Setup, texts: Sequence[Prompted]) -> bool:
        """It computes them all."""
        return True

    def single(self, setup: Setup, texts: Sequence[Prompted]) -> Float32:
        """As the protocol says.

        Raises:
            CheckpointError: transformers or PEFT would not use the files exactly as they are.
        """
        model = self._model(setup)
        # The prompt is part of the text for a tokenizer; so texts under several prompts are one call.
        return model.encode([prompt + text for prompt, text in texts])

    def tokens(self, setup: Setup, texts: Sequence[Prompted]) -> list[Float32]:
        """As the protocol says."""
        return self._model(setup).encode_multi([prompt + text for prompt, text in texts])

    def _model(self, setup: Setup) -> ReferenceModel:
        if self._loaded is None or self._loaded[0] != setup:
            # The former one makes room first.
            self._loaded = None
            self._loaded = setup, self._load(setup)
        return self._loaded[1]

    def _load(self, setup: Setup) -> ReferenceModel:
        # Importing torch takes seconds.
        from embedpack_export.reference.torch.model import ReferenceModel

        task = next(iter(self._plan.tasks)) if setup.task is None else setup.task
        chosen = self._plan.tasks[task]
        if setup.task is None:
            chosen = replace(chosen, adapter=None)
        return ReferenceModel.from_plan(replace(self._plan, pooling=setup.pooling, tasks={task: chosen}), task)


class GraphReference:
    """What the exporter computed stage by stage in float32, for the calibration inputs; it knows no others."""

    kind: ReferenceKind = "fp32 graph"
    packages: tuple[str, ...] = ()

    def __init__(self, plan: ExportPlan, exact: Mapping[str, tuple[Inputs, Vectors]]) -> None:
        """Take the calibration inputs of each task with their exact vectors."""
        self._plan = plan
        self._single: dict[str, dict[bytes, Float32]] = {}
        self._tokens: dict[str, dict[bytes, Float32]] = {}
        for task, (inputs, vectors) in exact.items():
            items = [item for batch in inputs.calibration for item in batch.items]
            keys = [item.ids.tobytes() if item.image is None else b"" for item in items]
            self._single[task] = dict(zip(keys, vectors.single, strict=True))
            if vectors.tokens is not None:
                ends = np.cumsum([len(item.ids) for item in items])[:-1]
                self._tokens[task] = dict(zip(keys, np.split(vectors.tokens, ends), strict=True))

    def knows(self, setup: Setup, texts: Sequence[Prompted]) -> bool:
        """Only calibration texts, under their prompts, with the adapter and pooling of an exported task."""
        known = self._single.get(setup.task or "", {})
        return setup.pooling == self._plan.pooling and all(key in known for key in self._keys(texts))

    def single(self, setup: Setup, texts: Sequence[Prompted]) -> Float32:
        """As the protocol says."""
        vectors = self._single[setup.task or ""]
        return np.stack([vectors[key] for key in self._keys(texts)])

    def tokens(self, setup: Setup, texts: Sequence[Prompted]) -> list[Float32]:
        """As the protocol says."""
        vectors = self._tokens[setup.task or ""]
        return [vectors[key] for key in self._keys(texts)]

    def _keys(self, texts: Sequence[Prompted]) -> list[bytes]:
        """Token ids, which are all that a graph gets of a text."""
        found = [self._plan.processor.process([text], prompt)[0] for prompt, text in texts]
        return [item.ids.tobytes() for item in found]


def choose_reference(
    plan: ExportPlan, exact: Mapping[str, tuple[Inputs, Vectors]], asked: ReferenceKind | None
) -> Reference:
    """The reference that was asked for, else torch where it can be had; the log says which, and why.

    Raises:
        MissingExtraError, InputError: torch was asked for, and cannot be had.
        CheckpointError: torch was asked for, and refuses the checkpoint or an adapter.
    """
    if asked == "fp32 graph":
        return GraphReference(plan, exact)
    obstacle = _obstacle(plan)
    if asked == "torch":
        if obstacle is not None:
            raise obstacle
        return TorchReference(plan)
    torch = TorchReference(plan)
    if obstacle is None:
        obstacle = _refusal(torch, plan)
    if obstacle is not None:
        logger.warning("reference: the graph in float32, not torch: %s", obstacle)
        return GraphReference(plan, exact)
    logger.info("reference: torch with unmerged adapters")
    return torch


def _obstacle(plan: ExportPlan) -> Exception | None:
    """Why torch cannot judge, as far as is known without loading anything."""
    for package in TORCH_PACKAGES:
        if importlib.util.find_spec(package) is None:
            return MissingExtraError("reference", package)
    if plan.model.other_tensors:
        return InputError("models that read images are compared with the graph in float32")
    needed, available = int(plan.parameters * BYTES_A_PARAMETER), available_memory()
    if available is not None and needed > available:
        return InputError(f"it needs about {needed // MEGABYTE} MB of memory, {available // MEGABYTE} MB are available")
    return None


def _refusal(torch: TorchReference, plan: ExportPlan) -> CheckpointError | None:
    """What transformers or PEFT have against the files, tried with one text of each task."""
    try:
        for task in plan.tasks:
            torch.single(Setup(task, plan.pooling), [("", "a")])
    except CheckpointError as refused:
        return refused
    return None
