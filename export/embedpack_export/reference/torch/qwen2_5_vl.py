"""V4Reference: full-precision vectors of texts and images for checkpoints in the layout of jina-embeddings-v4.

transformers computes the towers in float32, PEFT adds the unmerged adapter of the task, torch processes the image,
numpy pools. Inputs run one at a time, so nothing is padded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from embedpack.errors import InputError, MissingExtraError
from embedpack.progress import Progress
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Float64, unit_vectors

try:
    import torch

    from embedpack_export.reference.torch.qwen2_5_vl_loading import load_v4
    from embedpack_export.reference.torch.qwen2_vl_image import Patches, image_patches, read_image_settings
except ModuleNotFoundError as cause:
    if cause.name not in ("torch", "transformers", "peft"):
        raise
    raise MissingExtraError("reference", cause.name) from cause

IMAGE_PROMPT = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>\n"
MAX_TOKENS = 32_768


@dataclass(frozen=True, eq=False)
class V4Input:
    """A text including its prompt, or an RGB image: uint8 [height, width, 3]."""

    text: str | None = None
    image: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class V4Vectors:
    """Unit vectors of a list of inputs."""

    single: Float32  # single vectors, float32 [inputs, hidden]
    # Multi-vectors, for each input float32 [tokens, dimensions of the projector]; empty if the checkpoint has no
    # projector.
    multi: list[Float32]


@dataclass(frozen=True, eq=False)
class _ModelInput:
    """An input of the towers."""

    ids: npt.NDArray[np.int64]
    patches: Patches | None


class V4Reference:
    """Model for texts and images in full precision: nothing merged, nothing quantized, nothing padded."""

    def __init__(self, folder: Path, model: Any, max_tokens: int = MAX_TOKENS) -> None:
        """Use the model that `load_v4` returns for the folder of a checkpoint; longer texts are cut."""
        self._model = model
        self._max_tokens = max_tokens
        self._images = read_image_settings(folder)
        self._special_text = _tokenizer(folder)
        self._plain_text = _tokenizer(folder)
        # "<|vision_start|>" in a text of a user is plain text.
        self._plain_text.encode_special_tokens = True

    @classmethod
    def from_checkpoint(cls, folder: Path, task: str | None, max_tokens: int = MAX_TOKENS) -> V4Reference:
        """Load a checkpoint with the unmerged adapter of a task; None: without an adapter. Longer texts are cut.

        Raises:
            CheckpointError: transformers or PEFT would not use the files exactly as they are.
        """
        return cls(folder, load_v4(folder, task), max_tokens)

    def encode(self, inputs: Sequence[V4Input]) -> V4Vectors:
        """Compute the vectors of the inputs, in their order.

        Raises:
            InputError: there are no inputs, or one cannot be used.
        """
        if not inputs:
            raise InputError("no inputs: the list is empty")
        single, multi = [], []
        with Progress("reference", len(inputs)) as progress:
            for item in inputs:
                model_input = self._process(item)
                states = self._hidden_states(model_input)
                single.append(unit_vectors(self._pooled(model_input, states)))
                if self._model.multi_vector_projector is not None:
                    multi.append(unit_vectors(self._projected(states)))
                progress.advance(1)
        return V4Vectors(np.stack(single), multi)

    def token_ids(self, item: V4Input) -> npt.NDArray[np.int64]:
        """Token ids of an input, with one image token for each 2 x 2 patches.

        Raises:
            InputError: the input cannot be used.
        """
        return self._process(item).ids

    def hidden_states(self, item: V4Input) -> Float32:
        """Last hidden states of an input after the final norm, [tokens, hidden].

        Raises:
            InputError: the input cannot be used.
        """
        return self._hidden_states(self._process(item)).numpy()

    def _process(self, item: V4Input) -> _ModelInput:
        if (item.text is None) == (item.image is None):
            raise InputError("an input is either a text or an image")
        if item.image is None:
            ids = self._plain_text.encode(item.text or "", add_special_tokens=False).ids[: self._max_tokens]
            if not ids:
                raise InputError("the text is empty")
            return _ModelInput(np.asarray(ids, np.int64), None)
        patches = image_patches(item.image, self._images)
        prompt = np.asarray(self._special_text.encode(IMAGE_PROMPT, add_special_tokens=False).ids, np.int64)
        tokens = patches.rows * patches.columns // self._images.merge_size**2
        return _ModelInput(np.repeat(prompt, np.where(prompt == self._config.image_token_id, tokens, 1)), patches)

    @property
    def _config(self) -> Any:
        return self._model.model.config

    def _hidden_states(self, item: _ModelInput) -> torch.Tensor:
        ids = torch.from_numpy(item.ids)[None]
        image: Mapping[str, torch.Tensor] = {}
        grid = None
        if item.patches is not None:
            grid = torch.tensor([[1, item.patches.rows, item.patches.columns]])
            image = {"pixel_values": item.patches.values, "image_grid_thw": grid}
        mask = torch.ones_like(ids)
        kinds = (ids == self._config.image_token_id).int() if grid is not None else torch.zeros_like(ids).int()
        with torch.inference_mode():
            positions, _ = self._model.model.get_rope_index(ids, kinds, image_grid_thw=grid, attention_mask=mask)
            outputs = self._model.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, **image
            )
        states: torch.Tensor = outputs.last_hidden_state[0]
        return states

    def _pooled(self, item: _ModelInput, states: torch.Tensor) -> Float64:
        first, last = 0, len(item.ids) - 1
        if item.patches is not None:
            ids = item.ids.tolist()
            first, last = ids.index(self._config.vision_start_token_id), ids.index(self._config.vision_end_token_id)
        return states[first : last + 1].numpy().astype(np.float64).mean(0)

    def _projected(self, states: torch.Tensor) -> Float64:
        with torch.inference_mode():
            return self._model.multi_vector_projector(states).numpy().astype(np.float64)


def _tokenizer(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
