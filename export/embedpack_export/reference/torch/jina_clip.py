"""Full-precision vectors of texts and images for checkpoints in the layout of jina-clip-v2.

transformers computes the text tower, torch the vision tower and Pillow the pixels. Inputs run without padding, images
one at a time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError, MissingExtraError
from embedpack.inputs.images import read_image
from embedpack.inputs.prompt_rules import PromptOrPrefix
from embedpack.vectors.arrays import Float32
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.reference.protocol import Input

try:
    import torch
    from PIL import Image

    from embedpack_export.reference.torch.eva_vision import load_eva_tower
    from embedpack_export.reference.torch.head import unit
    from embedpack_export.reference.torch.text_model import TextModel
except ModuleNotFoundError as cause:
    if cause.name not in ("torch", "transformers", "peft", "PIL"):
        raise
    raise MissingExtraError("images" if cause.name == "PIL" else "reference", cause.name) from cause


class ClipReference:
    """Both towers of a checkpoint."""

    def __init__(self, source: ModelSource, task: str | None) -> None:
        """Load the towers that an export writes; errors as `TextModel.load`."""
        self._texts = TextModel.load(source, task)
        self._reads_images = source.model.vision is not None
        self._folder = source.checkpoint.folder
        self._tower = load_eva_tower(source.checkpoint) if self._reads_images else None

    def encode(self, inputs: Sequence[Input], prompt: PromptOrPrefix = "") -> Float32:
        """Unit vectors, float32 [inputs, dimensions]; InputError if one of them cannot be used."""
        if not inputs:
            raise InputError("no inputs: the list is empty")
        texts = [item for item in inputs if isinstance(item, str)]
        of_texts = iter(self._texts.encode(texts, prompt) if texts else ())
        return np.stack(
            [
                next(of_texts) if isinstance(item, str) else self._image(read_image(item, number))
                for number, item in enumerate(inputs)
            ]
        )

    def encode_multi(self, inputs: Sequence[Input], prompt: PromptOrPrefix = "") -> list[Float32]:
        """Raise InputError: the model has single vectors alone."""
        raise InputError("this model has no head for multi-vectors; measure single vectors")

    def _image(self, image: npt.NDArray[np.uint8]) -> Float32:
        if self._tower is None:
            raise InputError("this model was opened for texts alone")
        with torch.inference_mode():
            return unit(self._tower(self.pixels(image)))

    def pixels(self, image: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Normalized pixels of an image, float32 [3, size, size], as torchvision's transforms make them."""
        settings = json.loads((self._folder / "preprocessor_config.json").read_text("utf-8"))
        size, filter = settings["size"], Image.Resampling[settings["interpolation"].upper()]
        found, (height, width) = Image.fromarray(image), image.shape[:2]
        rows, columns = size, size
        if settings["resize_mode"] == "shortest":
            rows, columns = (int(size * side / min(height, width)) for side in (height, width))
        # Rows first, as all versions of Pillow did when the model was published.
        found = found.resize((columns, height), filter).resize((columns, rows), filter)
        top, left = round((rows - size) / 2), round((columns - size) / 2)
        found = found.crop((left, top, left + size, top + size))
        mean, std = (torch.tensor(settings[key])[:, None, None] for key in ("mean", "std"))
        return (torch.from_numpy(np.array(found)).permute(2, 0, 1).float() / 255 - mean) / std
