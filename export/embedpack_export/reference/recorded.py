"""Reference for an export without torch: vectors that its float32 run recorded for the calibration inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from embedpack.inputs.processor import ModelInput
from embedpack.inputs.prompt_rules import PromptOrPrefix
from embedpack.pack.manifest import Pooling
from embedpack.vectors.arrays import Float32
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.settings import ReferenceKind
from embedpack_export.reference.protocol import Input
from embedpack_export.stages.task_run import RecordedVectors


class RecordedReference:
    """Recorded vectors of the calibration texts under their prompts, with the adapters and pooling of the export."""

    kind: ReferenceKind = "fp32 graph"
    packages: tuple[str, ...] = ()

    def __init__(self, plan: ExportPlan, recorded: Mapping[str, RecordedVectors]) -> None:
        """Index the vectors of the calibration inputs of each task."""
        self._plan = plan
        self._single: dict[str | None, dict[bytes, Float32]] = {}
        self._multi: dict[str | None, dict[bytes, Float32]] = {}
        for task, of_task in recorded.items():
            vectors = of_task.vectors
            items = of_task.inputs.items
            keys = [_key(item) for item in items]
            if vectors.single is not None:
                self._single[task] = dict(zip(keys, vectors.single, strict=True))
            if vectors.tokens is not None:
                ends = np.cumsum([len(item.of_multi_vector(item.ids)) for item in items])[:-1]
                self._multi[task] = dict(zip(keys, np.split(vectors.tokens, ends), strict=True))

    def covers(
        self, task: str | None, inputs: Sequence[Input], prompt: PromptOrPrefix = "", pooling: Pooling | None = None
    ) -> bool:
        """True if all inputs are calibration inputs of an exported task, texts under their prompts."""
        recorded = self._single.get(task) or self._multi.get(task, {})
        return pooling in (None, self._plan.pooling) and all(key in recorded for key in self._keys(inputs, prompt))

    def single(
        self, task: str | None, inputs: Sequence[Input], prompt: PromptOrPrefix = "", pooling: Pooling | None = None
    ) -> Float32:
        """Single vectors, float32 [inputs, dimensions], of inputs that are covered."""
        return np.stack([self._single[task][key] for key in self._keys(inputs, prompt)])

    def multi(self, task: str | None, inputs: Sequence[Input], prompt: PromptOrPrefix = "") -> list[Float32]:
        """Multi-vectors, for each input float32 [tokens, dimensions], of inputs that are covered."""
        return [self._multi[task][key] for key in self._keys(inputs, prompt)]

    def close(self) -> None:
        """Keep the vectors: there is no model."""

    def _keys(self, inputs: Sequence[Input], prompt: PromptOrPrefix) -> list[bytes]:
        processor = self._plan.processor
        return [_key(item) for item in processor.process(processor.items(inputs), prompt)]


def _key(item: ModelInput) -> bytes:
    """Bytes that determine the vectors of an input: token ids with their rules, and the patches of an image."""
    rules = b"%d" % item.unattended + (b"" if item.skipped is None else item.skipped.tobytes())
    return item.ids.tobytes() + rules + (b"" if item.image is None else item.image.rows.tobytes())
