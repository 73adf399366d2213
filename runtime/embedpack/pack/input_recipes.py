"""Inputs in the manifest: texts with their prompts, and images, to the inputs of a graph."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from embedpack.pack.strict import Dimension, Positive, Strict, TokenCount, TokenId

# Bounds of sides: the arrays of an attention window have (merge_size * window_size) ** 2 patches.
PatchSize = Annotated[int, msgspec.Meta(ge=1, le=256)]
WindowSize = Annotated[int, msgspec.Meta(ge=1, le=32)]
ImageSize = Annotated[int, msgspec.Meta(ge=1, le=8192)]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
# Values for red, green and blue.
Channels: TypeAlias = tuple[float, float, float]
PositiveChannels: TypeAlias = tuple[Positive, Positive, Positive]


class TextInput(Strict, frozen=True):
    """Conversion of texts to token ids, padded on the right.

    Attributes:
        tokenizer: file of the tokenizer.
        vocabulary: rows of the embedding table; every token id is below it.
        max_tokens: maximum length, special tokens included; longer texts are truncated.
        pad_token_id: token of the padding.
        strip: remove white space around texts before the prompt is added.
        after: token ids behind every text, after truncation; part of `max_tokens`.
    """

    tokenizer: str
    vocabulary: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    max_tokens: TokenCount
    pad_token_id: TokenId
    strip: bool
    after: tuple[TokenId, ...]


class Fill(Strict, frozen=True):
    """Query augmentation (Khattab and Zaharia 2020, arXiv 2004.12832, section 3.2): shorter texts are filled up.

    Attributes:
        token: token id that is appended.
        length: number of tokens that a text has at least; longer ones stay as they are.
        attended: attention mask of the appended tokens. Their vectors are part of the multi-vector in any case.
    """

    token: TokenId
    length: TokenCount
    attended: bool


class Prompt(Strict, frozen=True, omit_defaults=True):
    """Form of the texts of one side or use.

    Attributes:
        prefix: text before each text.
        max_tokens: maximum length under this prompt, `marker` included; null: that of `TextInput`.
        marker: token id that is inserted behind the first token, after truncation to `max_tokens` - 1.
        fill: query augmentation; null: none.
        skip: token ids whose vectors are left out of the multi-vector.
    """

    prefix: str = ""
    max_tokens: TokenCount | None = None
    marker: TokenId | None = None
    fill: Fill | None = None
    skip: tuple[TokenId, ...] = ()


class QwenImage(Strict, frozen=True, tag="qwen2_vl"):
    """Conversion of images to patches and token ids, as in Qwen2-VL's processor.

    Attributes:
        hidden: dimensions of the vectors that the vision graph gives for each token.
        patch_size: side of a patch in pixels.
        temporal_patch_size: number of frames of a patch; a still image is repeated.
        merge_size: number of patches along each side of a token.
        window_size: number of tokens along each side of an attention window; null: attention over the whole image.
        min_pixels, max_pixels: bounds of height x width after resizing.
        mean, std: mean and standard deviation of red, green and blue; pixels in 0..1.
        tokens_before: token ids before the image.
        token: token id of each token of the image.
        tokens_after: token ids after the image.
        pooled_before, pooled_after: number of tokens, last of `tokens_before` and first of `tokens_after`, that are
            pooled to the single vector together with those of the image.
    """

    hidden: Dimension
    patch_size: PatchSize
    temporal_patch_size: WindowSize
    merge_size: WindowSize
    window_size: WindowSize | None
    min_pixels: Pixels
    max_pixels: Pixels
    mean: Channels
    std: PositiveChannels
    tokens_before: tuple[TokenId, ...]
    token: TokenId
    tokens_after: tuple[TokenId, ...]
    pooled_before: Annotated[int, msgspec.Meta(ge=0)]
    pooled_after: Annotated[int, msgspec.Meta(ge=0)]

    @property
    def max_tokens(self) -> int:
        """Number of tokens of the largest image, with those before and after it."""
        around = len(self.tokens_before) + len(self.tokens_after)
        return around + self.max_pixels // (self.patch_size * self.merge_size) ** 2


class SquareImage(Strict, frozen=True, tag="square"):
    """Conversion of images to the patches of one square, as in CLIP's processors.

    Attributes:
        size: side of the square in pixels. Those right of and below the last whole patch are not read.
        patch_size: side of a patch in pixels, at most `size`.
        resize: "shortest": the shorter side becomes `size`, and the center is cut out; "exact": both sides do.
        filter: interpolation.
        mean, std: mean and standard deviation of red, green and blue; pixels in 0..1.
    """

    size: ImageSize
    patch_size: PatchSize
    resize: Literal["shortest", "exact"]
    filter: Literal["bicubic", "bilinear"]
    mean: Channels
    std: PositiveChannels

    @property
    def grid(self) -> int:
        """Number of patches along each side."""
        return self.size // self.patch_size
