"""Texts and images to token ids, and those to the inputs of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpack.errors import EmbedpackError, InputError
from embedpack.host.memory import check_memory
from embedpack.inputs.batching import pad
from embedpack.inputs.images import is_image, read_image
from embedpack.inputs.patches import ImagePatches, image_patches
from embedpack.inputs.resize import smart_resize
from embedpack.inputs.tokenizer import TextTokenizer, check_texts
from embedpack.inputs.vision_layout import token_grid, token_positions
from embedpack.pack.graph_io import IMAGE_EMBEDS, IMAGE_INDEX, INPUT_IDS, POOL_MASK, POSITION_IDS
from embedpack.pack.manifest import ImageInput

# A text, or an image in one of the forms that `embedpack.inputs.images` reads.
Item = Any
# Size of all that a vision tower holds at one time, as multiples of its input.
ACTIVATIONS = 12


@dataclass(frozen=True)
class ModelInput:
    """One item as a graph reads it.

    Attributes:
        ids: token ids, int64 [length].
        pooled: the tokens that count in the mean of the single vector.
        alone: tokens whose vectors are pooled with no other: special ones, and those around an image; bool [length].
        cut: it was a text that lost its end.
        image: the patches, if it is an image.
        image_start: where the tokens of the image begin.
    """

    ids: npt.NDArray[np.int64]
    pooled: slice
    alone: npt.NDArray[np.bool_]
    cut: bool = False
    image: ImagePatches | None = None
    image_start: int = 0


@dataclass(frozen=True)
class Processor:
    """How items become token ids.

    Attributes:
        tokenizer: of texts.
        pad_token_id: fills up a batch.
        image: how images are read; None where a model reads texts only.
        hidden: size of the vectors of an image's tokens.
    """

    tokenizer: TextTokenizer
    pad_token_id: int
    image: ImageInput | None = None
    hidden: int = 0

    def check(self, items: Sequence[Item], numbers: Sequence[int]) -> None:
        """Refuse items that can be seen to be unusable without opening a file.

        Args:
            items: texts and images.
            numbers: of the items, for error messages.

        Raises:
            InputError: see above.
        """
        for index, item in zip(numbers, items, strict=True):
            if not is_image(item):
                check_texts([item], index)
            elif self.image is None:
                raise InputError(f"item {index} is an image; this pack reads texts only")

    def process(
        self,
        items: Sequence[Item],
        prompt: str,
        *,
        numbers: Sequence[int] | None = None,
        max_pixels: int | None = None,
    ) -> list[ModelInput]:
        """Token ids of each item.

        Args:
            items: texts and images.
            prompt: prefix of every text.
            numbers: of the items, for error messages; None: counted from 0.
            max_pixels: size to which images are brought, in place of the model's own limit.

        Raises:
            InputError, CapacityError: an item cannot be used.
        """
        results: dict[int, ModelInput] = {}
        texts = [index for index, item in enumerate(items) if not is_image(item)]
        for index, tokens in zip(texts, self.tokenizer.encode([items[i] for i in texts], prompt), strict=True):
            results[index] = ModelInput(tokens.ids, slice(0, len(tokens.ids)), tokens.special, tokens.cut)
        for index, item in enumerate(items):
            if index not in results:
                results[index] = self._process_image(item, index if numbers is None else numbers[index], max_pixels)
        return [results[index] for index in range(len(items))]

    def collate(
        self, batch: Sequence[ModelInput], image_embeds: Sequence[npt.NDArray[np.float32]]
    ) -> dict[str, npt.NDArray[Any]]:
        """Inputs of the text graph, padded on the right.

        Args:
            batch: the items.
            image_embeds: vectors float32 [tokens, hidden] of the images among them, in their order.
        """
        found: dict[str, npt.NDArray[Any]] = dict(pad([item.ids for item in batch], self.pad_token_id))
        if self.image is None:
            return found
        shape = found[INPUT_IDS].shape
        positions, pool_mask = np.zeros((3, *shape), np.int64), np.zeros(shape, np.int64)
        for row, item in enumerate(batch):
            positions[:, row, : len(item.ids)] = self._positions(item)
            pool_mask[row, item.pooled] = 1
        images = [(row, item.image_start) for row, item in enumerate(batch) if item.image is not None]
        index = [
            np.stack([np.full(len(rows), row), start + np.arange(len(rows))], axis=1)
            for (row, start), rows in zip(images, image_embeds, strict=True)
        ]
        return found | {
            POSITION_IDS: positions,
            POOL_MASK: pool_mask,
            IMAGE_EMBEDS: np.concatenate([np.zeros((0, self.hidden), np.float32), *image_embeds]),
            IMAGE_INDEX: np.concatenate([np.zeros((0, 2), np.int64), *index]),
        }

    def _process_image(self, item: Item, index: int, max_pixels: int | None) -> ModelInput:
        spec = self.image
        assert spec is not None
        pixels = read_image(item, index)
        try:
            self._check_image_size(pixels.shape, max_pixels)
            patches = image_patches(pixels, spec, max_pixels)
        except EmbedpackError as cause:
            raise type(cause)(f"image {index}: {cause}") from cause
        rows, columns = token_grid(patches, spec)
        start, tokens = len(spec.tokens_before), rows * columns
        ids = np.array([*spec.tokens_before, *[spec.token] * tokens, *spec.tokens_after], np.int64)
        pooled = slice(start - spec.pooled_before, start + tokens + spec.pooled_after)
        alone = np.ones(len(ids), np.bool_)
        alone[start : start + tokens] = False
        return ModelInput(ids, pooled, alone, image=patches, image_start=start)

    def _check_image_size(self, shape: tuple[int, ...], max_pixels: int | None) -> None:
        """Refuse an image that would have more tokens than the model takes, or not fit the memory."""
        spec = self.image
        assert spec is not None
        limit = spec.max_pixels if max_pixels is None else max_pixels
        side = spec.patch_size * spec.merge_size
        height, width = smart_resize(shape[0], shape[1], side, spec.min_pixels, limit)
        tokens = len(spec.tokens_before) + height * width // side**2 + len(spec.tokens_after)
        if tokens > self.tokenizer.max_tokens:
            raise InputError(
                f"{tokens} tokens at {width} x {height} pixels, the model takes {self.tokenizer.max_tokens}; "
                "pass a smaller max_pixels"
            )
        values = height * width * 3 * spec.temporal_patch_size
        check_memory(values * 4 * ACTIVATIONS, f"{width} x {height} pixels", "pass a smaller max_pixels")

    def _positions(self, item: ModelInput) -> npt.NDArray[np.int64]:
        if item.image is None:
            return np.broadcast_to(np.arange(len(item.ids)), (3, len(item.ids)))
        assert self.image is not None
        grid = token_grid(item.image, self.image)
        return token_positions(item.image_start, grid, len(item.ids) - item.image_start - grid[0] * grid[1])
