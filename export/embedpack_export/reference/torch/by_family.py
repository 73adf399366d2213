"""Torch model of a checkpoint by its family. torch itself is imported when a model is opened: it takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from embedpack.errors import CheckpointError, InputError
from embedpack.inputs.images import read_image
from embedpack.inputs.prompt_rules import PromptOrPrefix
from embedpack.pack.manifest import Pooling
from embedpack.vectors.arrays import Float32
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.reference.prompt_prefix import prefix_of
from embedpack_export.reference.protocol import Input

if TYPE_CHECKING:
    from embedpack_export.reference.torch.qwen2_5_vl import V4Reference, V4Vectors


class TorchModel(Protocol):
    """A loaded model with the adapter of one task; `prompt` is that of every text."""

    def encode(self, inputs: Sequence[Input], prompt: PromptOrPrefix = "") -> Float32:
        """Single vectors, float32 [inputs, dimensions]."""

    def encode_multi(self, inputs: Sequence[Input], prompt: PromptOrPrefix = "") -> list[Float32]:
        """Multi-vectors, for each input float32 [tokens, dimensions]."""


def has_pooling(source: ModelSource, pooling: Pooling | None) -> bool:
    """True if the model of a checkpoint can be opened with this pooling; models of their own have one only."""
    return pooling in (None, source.pooling) or source.family not in OWN_MODELS


def open_torch_model(source: ModelSource, task: str | None, pooling: Pooling | None = None) -> TorchModel:
    """Load a checkpoint with the unmerged adapter of a task (None: no adapter); `pooling` None: that of the source.

    Raises:
        CheckpointError: transformers or PEFT would not use the files exactly as they are, or there is no reference for
            such adapters.
        InputError: this family has one pooling only.
    """
    return OWN_MODELS.get(source.family, _open_text_model)(source, task, pooling)


def _open_text_model(source: ModelSource, task: str | None, pooling: Pooling | None) -> TorchModel:
    from embedpack_export.reference.torch.text_model import TextModel

    return TextModel.load(source, task, pooling)


def _open_qwen2_5_vl(source: ModelSource, task: str | None, pooling: Pooling | None) -> TorchModel:
    if not has_pooling(source, pooling):
        raise InputError(f"the torch reference of this family has {source.pooling} pooling only")
    from embedpack_export.reference.torch.qwen2_5_vl import V4Reference

    adapter = None if task is None else source.tasks[task].adapter
    own = source.checkpoint.folder / "adapters"
    if adapter is not None and adapter.folder.resolve() != own.resolve():
        raise CheckpointError(
            f"{adapter.folder}: the torch reference of this family takes the adapters in {own} only; put it there, or "
            "leave --reference out to compare with the fp32 graph"
        )
    task = None if adapter is None else task
    return _TextsAndImages(V4Reference.from_checkpoint(source.checkpoint.folder, task, source.max_tokens))


class _TextsAndImages:
    """A model that computes single vectors and multi-vectors at once; those of the last call are kept for the next."""

    def __init__(self, model: V4Reference) -> None:
        self._model = model
        self._last: tuple[Sequence[Input], PromptOrPrefix, V4Vectors] | None = None

    def encode(self, inputs: Sequence[Input], prompt: PromptOrPrefix = "") -> Float32:
        return self._vectors(inputs, prompt).single

    def encode_multi(self, inputs: Sequence[Input], prompt: PromptOrPrefix = "") -> list[Float32]:
        return self._vectors(inputs, prompt).multi

    def _vectors(self, inputs: Sequence[Input], prompt: PromptOrPrefix) -> V4Vectors:
        from embedpack_export.reference.torch.qwen2_5_vl import V4Input

        if self._last is None or self._last[0] is not inputs or self._last[1] != prompt:
            prefix = prefix_of(prompt)
            items = [
                V4Input(text=prefix + item) if isinstance(item, str) else V4Input(image=read_image(item, index))
                for index, item in enumerate(inputs)
            ]
            self._last = (inputs, prompt, self._model.encode(items))
        return self._last[2]


def _open_jina_clip(source: ModelSource, task: str | None, pooling: Pooling | None) -> TorchModel:
    if not has_pooling(source, pooling):
        raise InputError(f"the torch reference of this family has {source.pooling} pooling only")
    from embedpack_export.reference.torch.jina_clip import ClipReference

    return ClipReference(source, task)


# Families with a model of their own; transformers' AutoModel loads all others, which read texts only.
OWN_MODELS: Mapping[str, Callable[[ModelSource, str | None, Pooling | None], TorchModel]] = {
    "jina_clip": _open_jina_clip,
    "qwen2_5_vl": _open_qwen2_5_vl,
}
