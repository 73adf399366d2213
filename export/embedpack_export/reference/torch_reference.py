"""Reference for checkpoints: torch in float32, adapters unmerged."""

from __future__ import annotations

from collections.abc import Sequence

from embedpack.pack.manifest import Pooling
from embedpack.vectors.codes import Float32
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.settings import ReferenceKind
from embedpack_export.reference.cache import CacheKey, ReferenceCache
from embedpack_export.reference.protocol import Input
from embedpack_export.reference.torch.by_family import TorchModel, open_torch_model

TORCH_PACKAGES: tuple[str, ...] = ("torch", "transformers", "peft")


class TorchReference:
    """Vectors of a checkpoint and its adapters; the model of one task is loaded at a time, when it is first needed."""

    kind: ReferenceKind = "torch"
    packages = TORCH_PACKAGES

    def __init__(self, plan: ExportPlan, cache: ReferenceCache | None = None) -> None:
        """Use the files of an export; vectors of its tasks are kept in the cache, if there is one."""
        self._plan = plan
        self._cache = cache or ReferenceCache(None)
        self._loaded: tuple[tuple[str | None, Pooling | None], TorchModel] | None = None

    def covers(
        self, task: str | None, inputs: Sequence[Input], prompt: str = "", pooling: Pooling | None = None
    ) -> bool:
        """Always true: vectors are computed."""
        return True

    def single(
        self, task: str | None, inputs: Sequence[Input], prompt: str = "", pooling: Pooling | None = None
    ) -> Float32:
        """Single vectors, float32 [inputs, dimensions]."""
        if task is None or pooling is not None:
            return self._model(task, pooling).encode(inputs, prompt)
        return self._cache.single(self._key(task, inputs, prompt), lambda: self._model(task).encode(inputs, prompt))

    def multi(self, task: str | None, inputs: Sequence[Input], prompt: str = "") -> list[Float32]:
        """Multi-vectors, for each input float32 [tokens, dimensions]."""
        if task is None:
            return self._model(task).encode_multi(inputs, prompt)
        return self._cache.multi(
            self._key(task, inputs, prompt), lambda: self._model(task).encode_multi(inputs, prompt)
        )

    def close(self) -> None:
        """Release the memory of the loaded model."""
        self._loaded = None

    def _key(self, task: str, inputs: Sequence[Input], prompt: str) -> CacheKey:
        return CacheKey(self._plan.source.fingerprint, task, prompt, inputs)

    def _model(self, task: str | None, pooling: Pooling | None = None) -> TorchModel:
        if self._loaded is None or self._loaded[0] != (task, pooling):
            # Release the memory of the former one first.
            self._loaded = None
            self._loaded = (task, pooling), open_torch_model(self._plan, task, pooling)
        return self._loaded[1]
