"""TextModel: transformers computes the backbone in float32, PEFT adds the unmerged adapter, numpy pools."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError, MissingExtraError, unknown
from embedpack.inputs.items import check_text
from embedpack.inputs.prompt_rules import PromptOrPrefix
from embedpack.pack.manifest import Pooling
from embedpack.progress import Progress
from embedpack.storage.safetensors import StoredTensor
from embedpack.vectors.arrays import Float32
from embedpack_export.families.heads import SingleHead
from embedpack_export.families.model import PROJECTOR
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.reference.protocol import Input
from embedpack_export.sources.head_layers import Layer

try:
    import torch

    from embedpack_export.reference.torch.head import TorchHead, activation, open_layer, unit
    from embedpack_export.reference.torch.loading import load_model
    from embedpack_export.reference.torch.own_reading import TextIds
    from embedpack_export.reference.torch.prompted_ids import PromptedIds, prompted_ids
except ModuleNotFoundError as cause:
    if cause.name not in ("torch", "transformers", "peft"):
        raise
    raise MissingExtraError("reference", cause.name) from cause

# Vectors of the texts of a batch from their hidden states, [texts, length, hidden].
Head: TypeAlias = "Callable[[torch.Tensor, Sequence[PromptedIds]], Sequence[Float32]]"
# Tokens of texts that run together: bounds the memory. Only texts of equal length do, so nothing is padded.
TOKEN_BUDGET = 2048


class TextModel:
    """Model for texts in full precision: nothing merged, nothing quantized, nothing padded."""

    def __init__(self, source: ModelSource, task: str | None, head: SingleHead | None) -> None:
        """Load the files that an export merges and quantizes, with a head of single vectors, if there is one.

        Raises:
            CheckpointError: transformers or PEFT would not use the files exactly as they are.
        """
        self.model = load_model(source, task)
        self._read = TextIds(source, task)
        self._head = None if head is None else TorchHead(head, source.checkpoint.tensors)
        layers = () if source.tokens is None else source.tokens.layers
        self._token_layers = [self._open(layer, source.checkpoint.tensors) for layer in layers]

    @classmethod
    def load(cls, source: ModelSource, task: str | None, pooling: Pooling | None = None) -> TextModel:
        """Load the model of a source; arguments as for `open_torch_model`.

        Raises:
            InputError: the source has no such task.
            CheckpointError: transformers or PEFT would not use the files exactly as they are.
        """
        if task is not None and task not in source.tasks:
            raise InputError(unknown("task", task, source.tasks))
        head = source.single
        return cls(source, task, None if head is None else replace(head, pooling=pooling or head.pooling))

    def encode(self, inputs: Sequence[Input], prompt: PromptOrPrefix = "") -> Float32:
        """Unit vectors of texts, float32 [texts, dimensions]; long texts are cut as the pack cuts them.

        Raises:
            InputError: there are no texts, one is an image, or one cannot be used (see
                `embedpack.inputs.items.check_text`); or the model has no single vectors.
        """
        if self._head is None:
            raise InputError("this model has no single vectors; measure multi-vectors")
        return np.stack(self._run(texts_of(inputs), prompt, self._single_vectors))

    def encode_multi(self, inputs: Sequence[Input], prompt: PromptOrPrefix = "") -> list[Float32]:
        """For each text unit vectors float32 [tokens, dimensions of the projector], without those that are skipped.

        Raises:
            InputError: the model has no projector, or as `encode`.
        """
        if not self._token_layers:
            raise InputError("this model has no head for multi-vectors; measure single vectors")
        return self._run(texts_of(inputs), prompt, self._multi_vectors)

    def _single_vectors(self, states: torch.Tensor, batch: Sequence[PromptedIds]) -> Sequence[Float32]:
        assert self._head is not None
        return list(self._head(states[:, : batch[0].attended]))

    def _multi_vectors(self, states: torch.Tensor, batch: Sequence[PromptedIds]) -> Sequence[Float32]:
        return [vectors[text.kept] for vectors, text in zip(self._token_vectors(states), batch, strict=True)]

    def _token_vectors(self, states: torch.Tensor) -> Float32:
        for layer in self._token_layers:
            states = layer(states)
        return unit(states)

    def _open(self, layer: Layer, tensors: Mapping[str, StoredTensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        """A layer of multi-vectors; that which adapters may change is a part of the model."""
        if layer.module != PROJECTOR:
            return open_layer(layer, tensors, torch.float32)
        # PEFT's wrapper forwards attributes to the model inside.
        return lambda states: activation(layer)(getattr(self.model, layer.module)(states))

    def _run(self, texts: Sequence[str], prompt: PromptOrPrefix, head: Head) -> list[Float32]:
        """Apply a head to the last hidden states of each text."""
        checked = [check_text(text, number) for number, text in enumerate(texts)]
        tokens = prompted_ids(self._read, checked, prompt)
        if not tokens:
            raise InputError("no texts: the list is empty")
        vectors: dict[int, Float32] = {}
        with Progress("reference", len(tokens)) as progress, torch.inference_mode():
            for rows in _same_length(tokens):
                batch = [tokens[row] for row in rows]
                states = self._hidden_states(np.stack([text.ids for text in batch]), batch[0].attended)
                vectors.update(zip(rows, head(states, batch), strict=True))
                progress.advance(len(rows))
        return [vectors[row] for row in range(len(tokens))]

    def _hidden_states(self, ids: npt.NDArray[np.int64], attended: int | None = None) -> torch.Tensor:
        """Last hidden states float32 [rows, length, hidden]; `attended`: number of tokens from the first, else all."""
        batch = torch.from_numpy(ids)
        mask = torch.ones_like(batch)
        mask[:, attended:] = 0 if attended is not None else 1
        states: torch.Tensor = self.model(input_ids=batch, attention_mask=mask).last_hidden_state
        return states


def texts_of(inputs: Sequence[Input]) -> list[str]:
    """Inputs that are all texts; raises InputError if one is an image."""
    texts = [item for item in inputs if isinstance(item, str)]
    if len(texts) < len(inputs):
        raise InputError("the torch reference of this family reads texts only; leave out sets with images")
    return texts


def _same_length(tokens: Sequence[PromptedIds]) -> Iterator[list[int]]:
    """Groups of rows whose texts have the same number of tokens, and of those that are attended to."""
    groups: dict[tuple[int, int], list[int]] = {}
    for row, text in enumerate(tokens):
        groups.setdefault((len(text.ids), text.attended), []).append(row)
    for (length, _), rows in sorted(groups.items()):
        size = max(1, TOKEN_BUDGET // length)
        yield from (rows[start : start + size] for start in range(0, len(rows), size))
