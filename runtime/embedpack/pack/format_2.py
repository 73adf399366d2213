"""Manifest of pack format 2.0, which is only read: the parts that differ from those of today's format."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from embedpack.pack.accuracy_records import CheckOutcome, Report
from embedpack.pack.input_recipes import Channels, PatchSize, Pixels, PositiveChannels, WindowSize
from embedpack.pack.manifest import (
    AdapterRecord,
    CodebookPart,
    ExportRecord,
    FileEntry,
    Int8Scale,
    License,
    Source,
)
from embedpack.pack.strict import AdapterMode, Count, Dimension, Sha256, Share, Strict, TokenCount, TokenId, Version
from embedpack.vectors.codebook import LowBit

WeightsFormat2 = Literal["fp32", "int8", "int4"]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]


class TextInput2(Strict, frozen=True):
    """Conversion of texts."""

    tokenizer: str
    vocabulary: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    max_tokens: TokenCount
    pad_token_id: TokenId


class ImageInput2(Strict, frozen=True):
    """Conversion of images, of one kind."""

    patch_size: PatchSize
    temporal_patch_size: WindowSize
    merge_size: WindowSize
    window_size: WindowSize
    min_pixels: Pixels
    max_pixels: Pixels
    mean: Channels
    std: PositiveChannels
    tokens_before: tuple[TokenId, ...]
    token: TokenId
    tokens_after: tuple[TokenId, ...]
    pooled_before: NotNegative
    pooled_after: NotNegative


class CodeCalibration2(Strict, frozen=True):
    """Calibration of the codebook of low-bit codes; `agreement` is the recall at 10."""

    file: str
    texts: Count
    sha256: Sha256
    kept: tuple[CodebookPart, ...]
    agreement: dict[str, dict[LowBit, Share]]


class Task2(Strict, frozen=True):
    """A task with the codes of its vectors; its name is also that of its space. Prompts are prefixes."""

    prompts: dict[str, str]
    default_prompt_name: str | None
    int8_scale: Int8Scale
    token_int8_scale: Int8Scale | None
    codes: CodeCalibration2
    token_codes: CodeCalibration2 | None
    adapter: AdapterRecord | None


class TokenAccuracy2(Strict, frozen=True):
    """Cosines of token vectors."""

    tokens: Count
    cosine_mean: float
    cosine_p1: float


class Accuracy2(Strict, frozen=True):
    """Cosines of vectors; `texts` counts images too."""

    reference: str
    texts: Count
    cosine_mean: float
    cosine_p1: float
    cosine_min: float
    tokens: TokenAccuracy2 | None


class Check2(Strict, frozen=True):
    """Accuracy check of a task; `verdict` is its outcome."""

    reference: str
    texts: Count
    cosine_mean: float
    cosine_p1: float
    cosine_min: float
    ranking_loss: float | None
    ranking_loss_95: tuple[float, float] | None
    top_10_overlap: Share | None
    budget: Annotated[float, msgspec.Meta(ge=0)]
    verdict: CheckOutcome
    tokens: TokenAccuracy2 | None


class VisionGraph2(Strict, frozen=True):
    """The vision graph, which gives vectors of tokens."""

    graph: str
    external_data: tuple[str, ...]
    operators: tuple[str, ...]


class Variant2(Strict, frozen=True):
    """One loadable graph, for CPUs."""

    task: str | None
    weights: WeightsFormat2
    adapters: AdapterMode
    adapter_files: dict[str, str]
    graph: str
    external_data: tuple[str, ...]
    opset: int
    operators: tuple[str, ...]
    min_onnxruntime: Version
    accuracy: Accuracy2
    static_activations: tuple[str, ...]
    checks: dict[str, Check2] = msgspec.field(default_factory=dict)


class Manifest2(Strict, frozen=True):
    """Content of pack.json."""

    format: str
    name: str
    family: str
    source: Source
    license: License
    dimensions: Dimension
    truncate_dims: tuple[Dimension, ...]
    pooling: Literal["mean", "cls", "last"]
    text: TextInput2
    image: ImageInput2 | None
    multi_vector_dimensions: Dimension | None
    vision: dict[WeightsFormat2, VisionGraph2]
    tasks: dict[str, Task2]
    variants: dict[str, Variant2]
    golden: str
    export: ExportRecord
    files: dict[str, FileEntry]
    report: Report | None = None
