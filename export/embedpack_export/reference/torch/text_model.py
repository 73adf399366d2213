"""TextModel: transformers computes the backbone in float32, PEFT adds the unmerged adapter, numpy pools."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError, MissingExtraError, unknown
from embedpack.inputs.items import check_text
from embedpack.pack.manifest import Pooling
from embedpack.progress import Progress
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Float64, unit_vectors
from embedpack_export.families.model import PROJECTOR
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.reference.protocol import Input

try:
    import torch

    from embedpack_export.reference.torch.loading import load_model
    from embedpack_export.reference.torch.own_reading import TextIds
except ModuleNotFoundError as cause:
    if cause.name not in ("torch", "transformers", "peft"):
        raise
    raise MissingExtraError("reference", cause.name) from cause

# Token ids int64 [tokens] of each text under a prompt.
ReadTexts: TypeAlias = Callable[[Sequence[str], str], list[npt.NDArray[np.int64]]]
# Tokens of texts that run together: bounds the memory. Only texts of equal length do, so nothing is padded.
TOKEN_BUDGET = 2048


class TextModel:
    """Model for texts in full precision: nothing merged, nothing quantized, nothing padded."""

    def __init__(self, model: torch.nn.Module, read: ReadTexts, pooling: Pooling) -> None:
        """`read` returns the token ids of each text under a prompt."""
        self._model = model
        # PEFT's wrapper forwards attributes to the model inside.
        self._projector = getattr(model, PROJECTOR, None)
        self._read = read
        self._pooling = pooling

    @classmethod
    def load(cls, source: ModelSource, task: str | None, pooling: Pooling | None = None) -> TextModel:
        """Load the files that an export merges and quantizes; arguments as for `open_torch_model`.

        Raises:
            InputError: the source has no such task.
            CheckpointError: transformers or PEFT would not use the files exactly as they are.
        """
        if task is not None and task not in source.tasks:
            raise InputError(unknown("task", task, source.tasks))
        return cls(load_model(source, task), TextIds(source, task), pooling or source.pooling)

    def encode(self, inputs: Sequence[Input], prompt: str = "") -> Float32:
        """Unit vectors of `prompt + text`, float32 [texts, dimensions]; long texts are cut as the pack cuts them.

        Raises:
            InputError: there are no texts, one is an image, or one cannot be used (see
                `embedpack.inputs.items.check_text`).
        """
        texts = texts_of(inputs)
        return np.stack(
            self._run(
                texts, prompt, lambda states: unit_vectors(_pool(states.numpy().astype(np.float64), self._pooling))
            )
        )

    def encode_multi(self, inputs: Sequence[Input], prompt: str = "") -> list[Float32]:
        """For each text unit vectors float32 [tokens, dimensions of the projector], special tokens included.

        Raises:
            InputError: the model has no projector, or as `encode`.
        """
        if self._projector is None:
            raise InputError("this model has no head for multi-vectors; measure single vectors")
        projector = self._projector
        return self._run(
            texts_of(inputs), prompt, lambda states: unit_vectors(projector(states).numpy().astype(np.float64))
        )

    def _run(self, texts: Sequence[str], prompt: str, head: Callable[[torch.Tensor], Float32]) -> list[Float32]:
        """Apply a head to the last hidden states of each text."""
        checked = [check_text(text, number) for number, text in enumerate(texts)]
        tokens = self._read(checked, prompt)
        if not tokens:
            raise InputError("no texts: the list is empty")
        vectors: dict[int, Float32] = {}
        with Progress("reference", len(tokens)) as progress, torch.inference_mode():
            for rows in _same_length(tokens):
                states = self._hidden_states(np.stack([tokens[row] for row in rows]))
                vectors.update(zip(rows, head(states), strict=True))
                progress.advance(len(rows))
        return [vectors[row] for row in range(len(tokens))]

    def _hidden_states(self, ids: npt.NDArray[np.int64]) -> torch.Tensor:
        """Last hidden states float32 [rows, length, hidden]."""
        batch = torch.from_numpy(ids)
        states: torch.Tensor = self._model(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state
        return states


def texts_of(inputs: Sequence[Input]) -> list[str]:
    """Inputs that are all texts; raises InputError if one is an image."""
    texts = [item for item in inputs if isinstance(item, str)]
    if len(texts) < len(inputs):
        raise InputError("the torch reference of this family reads texts only; leave out sets with images")
    return texts


def _same_length(tokens: Sequence[npt.NDArray[np.int64]]) -> Iterator[list[int]]:
    """Groups of rows whose texts have the same number of tokens."""
    groups: dict[int, list[int]] = {}
    for row, ids in enumerate(tokens):
        groups.setdefault(len(ids), []).append(row)
    for length, rows in sorted(groups.items()):
        size = max(1, TOKEN_BUDGET // length)
        yield from (rows[start : start + size] for start in range(0, len(rows), size))


def _pool(states: Float64, pooling: Pooling) -> Float64:
    """Pool hidden states [rows, length, hidden] to [rows, hidden]."""
    if pooling == "mean":
        return states.mean(1)
    return states[:, 0 if pooling == "cls" else -1]
