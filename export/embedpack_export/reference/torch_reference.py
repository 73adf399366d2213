"""Reference for checkpoints: torch in float32, adapters unmerged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from embedpack.errors import CapacityError, CheckpointError, EmbedpackError
from embedpack.inputs.prompt_rules import PromptOrPrefix
from embedpack.pack.manifest import Pooling
from embedpack.vectors.arrays import Float32
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.planning.settings import ReferenceKind
from embedpack_export.reference.cache import CacheKey, ReferenceCache
from embedpack_export.reference.protocol import Input
from embedpack_export.reference.torch.by_family import TorchModel, has_pooling, open_torch_model

TORCH_PACKAGES: tuple[str, ...] = ("torch", "transformers", "peft", "sentence_transformers")
# Characters of an error of another library that are quoted.
MAX_REASON = 300


class TorchReference:
    """Vectors of a checkpoint and its adapters; the model of one task is loaded at a time, when it is first needed."""

    kind: ReferenceKind = "torch"
    packages = TORCH_PACKAGES

    def __init__(self, source: ModelSource, cache: ReferenceCache | None = None) -> None:
        """Use a checkpoint and its adapters; keep vectors of its tasks in the cache, if there is one."""
        self._source = source
        self._cache = cache
        self._loaded: tuple[tuple[str | None, Pooling | None], TorchModel] | None = None

    def covers(
        self, task: str | None, inputs: Sequence[Input], prompt: PromptOrPrefix = "", pooling: Pooling | None = None
    ) -> bool:
        """True if the model can be computed with this pooling."""
        return has_pooling(self._source, pooling)

    def single(
        self, task: str | None, inputs: Sequence[Input], prompt: PromptOrPrefix = "", pooling: Pooling | None = None
    ) -> Float32:
        """Single vectors, float32 [inputs, dimensions]."""

        def compute() -> Float32:
            with library_errors(self._source.checkpoint.folder):
                return self._model(task, pooling).encode(inputs, prompt)

        if self._cache is None or task is None or pooling is not None:
            return compute()
        return self._cache.single(CacheKey(self._source.fingerprint, task, prompt, inputs), compute)

    def multi(self, task: str | None, inputs: Sequence[Input], prompt: PromptOrPrefix = "") -> list[Float32]:
        """Multi-vectors, for each input float32 [tokens, dimensions]."""

        def compute() -> list[Float32]:
            with library_errors(self._source.checkpoint.folder):
                return self._model(task).encode_multi(inputs, prompt)

        if self._cache is None or task is None:
            return compute()
        return self._cache.multi(CacheKey(self._source.fingerprint, task, prompt, inputs), compute)

    def close(self) -> None:
        """Release the memory of the loaded model."""
        self._loaded = None

    def _model(self, task: str | None, pooling: Pooling | None = None) -> TorchModel:
        if self._loaded is None or self._loaded[0] != (task, pooling):
            # Release the memory of the former one first.
            self._loaded = None
            self._loaded = (task, pooling), open_torch_model(self._source, task, pooling)
        return self._loaded[1]


@contextmanager
def library_errors(folder: Path) -> Iterator[None]:
    """Turn whatever transformers, PEFT and torch raise about the model in a folder into errors of one line."""
    try:
        yield
    except EmbedpackError:
        raise
    except MemoryError as cause:
        raise CapacityError(f"{folder}: the torch reference does not fit the memory; free some") from cause
    except BaseException as cause:
        # Their errors have no common class, and the panics of the tokenizers library are no Exception.
        if not isinstance(cause, Exception) and type(cause).__name__ != "PanicException":
            raise
        reason = " ".join(str(cause).split())[:MAX_REASON]
        raise CheckpointError(
            f"{folder}: transformers or PEFT fails at it with {type(cause).__name__}: {reason}"
        ) from cause
