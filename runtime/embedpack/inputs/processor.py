"""Texts and images to token ids, and these to the inputs of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from embedpack.errors import EmbedpackError, InputError, ItemError
from embedpack.host.memory import check_memory
from embedpack.inputs.batching import mark_index, pad
from embedpack.inputs.images import read_image
from embedpack.inputs.items import Image, Input, Item, Text, is_blank, number_items
from embedpack.inputs.patches import ImagePatches, image_patches
from embedpack.inputs.prompt_rules import PromptedTokens, PromptOrPrefix, PromptRules, as_prompt
from embedpack.inputs.resize import smart_resize
from embedpack.inputs.square_image import square_patches
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.inputs.vision_layout import token_grid, token_positions
from embedpack.pack.graph_io import (
    ATTENTION_MASK,
    IMAGE_EMBEDS,
    IMAGE_INDEX,
    INPUT_IDS,
    MARK_INDEX,
    POOL_MASK,
    POSITION_IDS,
    TOKEN_TYPE_IDS,
)
from embedpack.pack.input_recipes import Prompt, QwenImage, SquareImage
from embedpack.vectors.arrays import Float32

# Peak memory of the vision tower's activations, as a multiple of its input.
ACTIVATIONS = 12

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class ModelInput:
    """Token ids of a text or an image, and its patches.

    Attributes:
        ids: token ids, int64 [length]; empty for an image whose vector the vision graph gives.
        pooled_range: range of the tokens that the single vector is pooled from.
        unpooled: tokens that token pooling leaves as they are, special tokens and those around an image, bool [length].
        truncated: whether a text lost its end.
        unattended: number of tokens at the end that no token attends to.
        skipped: tokens whose vectors are left out of the multi-vector, bool [length]; None: no token.
        image: patches of an image; None for texts.
        image_start: index of the first token of the image's content.
        chunks: begin and end of the tokens of each chunk of a document, int64 [chunks, 2]; None: not asked for.
        types: token types, int64 [length]; None: all 0.
        marks: places of the marks of a list, int64 [marks]; None: the last token alone.
    """

    ids: npt.NDArray[np.int64]
    pooled_range: slice
    unpooled: npt.NDArray[np.bool_]
    truncated: bool = False
    unattended: int = 0
    skipped: npt.NDArray[np.bool_] | None = None
    image: ImagePatches | None = None
    image_start: int = 0
    chunks: npt.NDArray[np.int64] | None = None
    types: npt.NDArray[np.int64] | None = None
    marks: npt.NDArray[np.int64] | None = None

    @property
    def of_vision_graph(self) -> bool:
        """True for an image whose vector the vision graph gives."""
        return self.image is not None and not len(self.ids)

    @property
    def length(self) -> int:
        """Number of tokens; of an image of the vision graph its patches, and the one that the vector is made of."""
        return len(self.ids) if self.image is None or len(self.ids) else len(self.image.rows) + 1

    def of_multi_vector(self, rows: npt.NDArray[T]) -> npt.NDArray[T]:
        """Rows of the multi-vector among those of all tokens, [length, ...] or more with padding behind them."""
        rows = rows[: len(self.ids)]
        return rows if self.skipped is None else rows[~self.skipped]


@dataclass(frozen=True)
class Processor:
    """Texts and images to token ids, and these to the inputs of a graph.

    `image` None: the model reads texts only. `token_types`: it takes token types; `marks`: the places of marks.
    """

    tokenizer: TextTokenizer
    pad_token_id: int
    image: QwenImage | SquareImage | None = None
    token_types: bool = False
    marks: bool = False

    def items(self, inputs: Iterable[Input], *, blank: bool = False) -> Iterator[Item]:
        """Number inputs from 0 and check them one by one, without opening files; InputError as `number_items`."""
        return number_items(inputs, images=self.image is not None, blank=blank)

    @cached_property
    def rules(self) -> PromptRules:
        """Tokenizer of texts under prompts."""
        return PromptRules(self.tokenizer)

    def has_tokens(self, items: Sequence[Item], prompt: PromptOrPrefix) -> list[bool]:
        """False for each text that is blank, or without any token; images have tokens."""
        prefix = as_prompt(prompt).prefix
        # Most tokenizers add tokens to every text; then only blank texts count as empty.
        if len(self.tokenizer.encode([""], prefix)[0].ids):
            return [isinstance(item, Image) or not is_blank(item.text) for item in items]
        texts = [item for item in items if isinstance(item, Text) and not is_blank(item.text)]
        tokens = self.tokenizer.encode([item.text for item in texts], prefix, [item.number for item in texts])
        full = {item.number for item, text in zip(texts, tokens, strict=True) if len(text.ids)}
        return [isinstance(item, Image) or item.number in full for item in items]

    def process(
        self, items: Iterable[Item], prompt: PromptOrPrefix, *, max_pixels: int | None = None
    ) -> list[ModelInput]:
        """Tokenize texts and read images; InputError or CapacityError if one of them cannot be used."""
        items = list(items)
        texts = iter(self._process_texts([item for item in items if isinstance(item, Text)], as_prompt(prompt)))
        return [next(texts) if isinstance(item, Text) else self._process_image(item, max_pixels) for item in items]

    def collate(self, batch: Sequence[ModelInput], image_embeds: Sequence[Float32]) -> dict[str, npt.NDArray[Any]]:
        """Inputs of the text graph by name, padded on the right, as `embedpack.pack.graph_io` defines them.

        `image_embeds` are the vectors, float32 [tokens, hidden], of the images of the batch in their order.
        """
        feeds: dict[str, npt.NDArray[Any]] = dict(pad([item.ids for item in batch], self.pad_token_id))
        for row, item in enumerate(batch):
            if item.unattended:
                feeds[ATTENTION_MASK][row, len(item.ids) - item.unattended :] = 0
        if self.token_types:
            types = [np.zeros(len(item.ids), np.int64) if item.types is None else item.types for item in batch]
            feeds[TOKEN_TYPE_IDS] = pad(types, 0)[INPUT_IDS]
        if self.marks:
            feeds[MARK_INDEX] = mark_index([item.marks for item in batch], [len(item.ids) for item in batch])
        if not isinstance(self.image, QwenImage):
            return feeds
        shape = feeds[INPUT_IDS].shape
        positions, pool_mask = np.zeros((3, *shape), np.int64), np.zeros(shape, np.int64)
        for row, item in enumerate(batch):
            positions[:, row, : len(item.ids)] = self._positions(item)
            pool_mask[row, item.pooled_range] = 1
        images = [(row, item.image_start) for row, item in enumerate(batch) if item.image is not None]
        index = [
            np.stack([np.full(len(rows), row), start + np.arange(len(rows))], axis=1)
            for (row, start), rows in zip(images, image_embeds, strict=True)
        ]
        return feeds | {
            POSITION_IDS: positions,
            POOL_MASK: pool_mask,
            IMAGE_EMBEDS: np.concatenate([np.zeros((0, self.image.hidden), np.float32), *image_embeds]),
            IMAGE_INDEX: np.concatenate([np.zeros((0, 2), np.int64), *index]),
        }

    def _process_texts(self, items: Sequence[Text], prompt: Prompt) -> list[ModelInput]:
        found = self.rules.encode([item.text for item in items], prompt, [item.number for item in items])
        for item, text in zip(items, found, strict=True):
            if not len(text.tokens.ids):
                problem = f"has no token: the tokenizer drops all of its {len(item.text)} characters; leave it out"
                raise ItemError("text", item.number, problem)
        return [_text_input(text) for text in found]

    def _process_image(self, item: Image, max_pixels: int | None) -> ModelInput:
        spec = self.image
        assert spec is not None
        pixels = read_image(item.source, item.number)
        try:
            if isinstance(spec, SquareImage):
                return _square_input(pixels, spec)
            self._check_image_size(pixels.shape, spec, max_pixels)
            patches = image_patches(pixels, spec, max_pixels)
        except EmbedpackError as cause:
            raise type(cause)(f"image {item.number}: {cause}") from cause
        rows, columns = token_grid(patches, spec)
        start, tokens = len(spec.tokens_before), rows * columns
        ids = np.array([*spec.tokens_before, *[spec.token] * tokens, *spec.tokens_after], np.int64)
        pooled_range = slice(start - spec.pooled_before, start + tokens + spec.pooled_after)
        unpooled = np.ones(len(ids), np.bool_)
        unpooled[start : start + tokens] = False
        return ModelInput(ids, pooled_range, unpooled, image=patches, image_start=start)

    def _check_image_size(self, shape: tuple[int, ...], spec: QwenImage, max_pixels: int | None) -> None:
        """Refuse an image with more tokens than the model accepts, or one that does not fit the memory."""
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
        """Positions of the tokens (time, row, column), int64 [3, length]."""
        if item.image is None:
            return np.broadcast_to(np.arange(len(item.ids)), (3, len(item.ids)))
        assert isinstance(self.image, QwenImage)
        grid = token_grid(item.image, self.image)
        return token_positions(item.image_start, grid, len(item.ids) - item.image_start - grid[0] * grid[1])


def _square_input(pixels: npt.NDArray[np.uint8], spec: SquareImage) -> ModelInput:
    """An image of the vision graph; CapacityError if it does not fit the memory."""
    check_memory(spec.size**2 * 3 * 4 * ACTIVATIONS, f"{spec.size} x {spec.size} pixels", "free some memory")
    return ModelInput(np.zeros(0, np.int64), slice(0), np.zeros(0, np.bool_), image=square_patches(pixels, spec))


def _text_input(text: PromptedTokens) -> ModelInput:
    ids = text.tokens.ids
    return ModelInput(
        ids, slice(0, len(ids)), text.tokens.special, text.tokens.truncated, text.unattended, text.skipped
    )
