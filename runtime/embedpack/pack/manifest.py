"""The manifest of a pack: every field of pack.json, with its type and range.

`embedpack.pack.rules` checks the fields against each other, `embedpack.pack.folder` reads and writes the file.
docs/pack-format.md describes the format on one screen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec

from embedpack.vectors.codebook import LowBit

MANIFEST_NAME = "pack.json"
FORMAT = "2.0"
MAX_MANIFEST_BYTES = 16_000_000

WeightsFormat = Literal["fp32", "int8", "int4"]
Pooling = Literal["mean", "cls", "last"]
Modality = Literal["text", "text+image"]
AdapterMode = Literal["merged", "switchable"]
CodeStep = Literal["center", "rotation"]
Verdict = Literal["within budget", "over budget", "allowed", "not judged"]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=20)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**50)]
Dimension = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
TokenCount = Annotated[int, msgspec.Meta(ge=1, le=1_048_576)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
ImageSize = Annotated[int, msgspec.Meta(ge=1, le=1024)]


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all parts of the manifest: immutable, and a field it does not know is an error."""


class FileEntry(Strict, frozen=True):
    """Digest and size of one file of the pack."""

    sha256: Sha256
    bytes: Size


class Source(Strict, frozen=True):
    """Where the weights came from; `fingerprint` identifies the vector space (see `Manifest.space`)."""

    name: str
    revision: str | None
    files: dict[str, Sha256]
    fingerprint: Sha256


class License(Strict, frozen=True):
    """Licence of the weights: the id the checkpoint states (null: it states none)."""

    id: str | None
    non_commercial: bool


class TextInput(Strict, frozen=True):
    """How a text becomes token ids: tokenizer file, cut after `max_tokens` (special tokens included), right padding.

    `vocabulary` is the number of rows of the embedding table: every token id is below it.
    """

    tokenizer: str
    vocabulary: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    max_tokens: TokenCount
    pad_token_id: Annotated[int, msgspec.Meta(ge=0)]


class ImageInput(Strict, frozen=True):
    """How an image becomes patches and token ids, as Qwen2-VL's processor does it.

    Attributes:
        patch_size: side of a patch in pixels.
        temporal_patch_size: frames of a patch; a still image is repeated that often.
        merge_size: patches along each side of one token.
        window_size: tokens along each side of an attention window.
        min_pixels, max_pixels: bounds of height x width after resizing.
        mean, std: of the channels red, green, blue; pixels in 0..1.
        tokens_before: token ids in front of the image.
        token: id that stands for each token of the image.
        tokens_after: token ids behind the image.
        pooled_before, pooled_after: how many of `tokens_before` (its last) and `tokens_after` (its first) count in the
            mean of the single vector, beside those of the image.
    """

    patch_size: ImageSize
    temporal_patch_size: ImageSize
    merge_size: ImageSize
    window_size: ImageSize
    min_pixels: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    max_pixels: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    tokens_before: tuple[TokenId, ...]
    token: TokenId
    tokens_after: tuple[TokenId, ...]
    pooled_before: Annotated[int, msgspec.Meta(ge=0)]
    pooled_after: Annotated[int, msgspec.Meta(ge=0)]

    @property
    def most_tokens(self) -> int:
        """Tokens of an image as large as any, those around it included."""
        around = len(self.tokens_before) + len(self.tokens_after)
        return around + self.max_pixels // (self.patch_size * self.merge_size) ** 2


class Adapter(Strict, frozen=True):
    """What was merged for a task.

    `relative_change` is the largest ||W' - W|| / ||W|| over the merged matrices (Frobenius norm).
    """

    modules: Annotated[int, msgspec.Meta(ge=1)]
    relative_change: Positive


class CodeCalibration(Strict, frozen=True):
    """What the codebook of the low-bit codes was fitted to, and what that brought.

    Attributes:
        file: the codebook; of a task's single vectors and multi-vectors the same file.
        texts: calibration texts, images included.
        sha256: of the file of these texts.
        kept: steps that won on texts held out from fitting; the others are neutral in the codebook.
        agreement: mean share of the ten nearest float vectors that codes find, on held-out texts, by the steps that
            were tried ("none", "center", "center+rotation") and precision.
    """

    file: str
    texts: Annotated[int, msgspec.Meta(ge=1)]
    sha256: Sha256
    kept: tuple[CodeStep, ...]
    agreement: dict[str, dict[LowBit, Share]]


class Task(Strict, frozen=True):
    """A task: its prompts, its adapter, and how its vectors are coded.

    `int8_scale`, the step between neighbouring values of int8 codes, and `codes` belong to single vectors,
    `token_int8_scale` and `token_codes` to multi-vectors (null: there are none).
    """

    prompts: dict[str, str]
    default_prompt_name: str | None
    int8_scale: Positive
    token_int8_scale: Positive | None
    codes: CodeCalibration
    token_codes: CodeCalibration | None
    adapter: Adapter | None

    def prompt_name(self, wanted: str | None) -> str | None:
        """Name of the prompt `wanted` if the task has it, else of the default prompt; None: no prompt."""
        return wanted if wanted in self.prompts else self.default_prompt_name

    def prompt(self, wanted: str | None) -> str:
        """Text prefix of the prompt that `prompt_name` chooses."""
        name = self.prompt_name(wanted)
        return "" if name is None else self.prompts[name]


class TokenAccuracy(Strict, frozen=True):
    """The same for the vectors of single tokens."""

    tokens: Annotated[int, msgspec.Meta(ge=1)]
    cosine_mean: float
    cosine_p1: float


class Accuracy(Strict, frozen=True):
    """Cosine of a variant's vectors with those of `reference`, over texts that took no part in any evaluation.

    `texts` counts images too; `tokens` is null where there are no multi-vectors.
    """

    reference: str
    texts: Annotated[int, msgspec.Meta(ge=1)]
    cosine_mean: float
    cosine_p1: float
    cosine_min: float
    tokens: TokenAccuracy | None


class Check(Strict, frozen=True):
    """Vectors of a task, read back from the finished pack as a user gets them, beside those of a reference.

    Attributes:
        reference: "torch": the model before export, its adapter unmerged; "fp32 graph": the exporter's own in float32.
        texts: calibration texts that were compared, each under its prompt.
        cosine_mean, cosine_p1, cosine_min: of the vectors with those of the reference.
        ranking_loss: points of nDCG@10 that a search among the texts loses; null: too few texts to tell.
        ranking_loss_95: its 95 % interval.
        top_10_overlap: mean share of the reference's ten nearest texts that are found.
        budget: most points that were to be lost.
        verdict: "allowed": over the budget, and asked for.
        tokens: cosines of multi-vectors; null: there are none.
    """

    reference: str
    texts: Annotated[int, msgspec.Meta(ge=1)]
    cosine_mean: float
    cosine_p1: float
    cosine_min: float
    ranking_loss: float | None
    ranking_loss_95: tuple[float, float] | None
    top_10_overlap: Share | None
    budget: Annotated[float, msgspec.Meta(ge=0)]
    verdict: Verdict
    tokens: TokenAccuracy | None


class Report(Strict, frozen=True):
    """Files with all that was measured at the end of the export: figures, and a page to read."""

    figures: str
    page: str


class VisionGraph(Strict, frozen=True):
    """The graph that reads images; its fields are those of `Variant`."""

    graph: str
    external_data: tuple[str, ...]
    operators: tuple[str, ...]

    @property
    def graph_files(self) -> tuple[str, ...]:
        """The graph and its weights."""
        return self.graph, *self.external_data


class Variant(Strict, frozen=True):
    """One loadable graph.

    Merged variants have one task. Switchable ones have none: `adapter_files` holds the adapter of each task, in
    onnxruntime's own format, whose tensors are inputs of the graph. `static_activations` names those that are quantized
    with a step from the calibration, not with one of each row. `checks` tells by task how the finished pack compares
    with a reference.
    """

    task: str | None
    weights: WeightsFormat
    adapters: AdapterMode
    adapter_files: dict[str, str]
    graph: str
    external_data: tuple[str, ...]
    opset: int
    operators: tuple[str, ...]
    min_onnxruntime: Version
    accuracy: Accuracy
    static_activations: tuple[str, ...]
    checks: dict[str, Check] = {}

    @property
    def graph_files(self) -> tuple[str, ...]:
        """The graph and its weights, without adapters."""
        return self.graph, *self.external_data


class ExportRecord(Strict, frozen=True):
    """The settings and tool versions that made the pack."""

    settings: dict[str, Any]
    tools: dict[str, str]
    calibration: Sha256
    seed: int


class Manifest(Strict, frozen=True):
    """What pack.json says; `report` is null, and `checks` are empty, until the export has compared the pack."""

    format: str
    name: str
    family: str
    source: Source
    license: License
    dimensions: Dimension
    truncate_dims: tuple[Dimension, ...]
    pooling: Pooling
    text: TextInput
    image: ImageInput | None
    multi_vector_dimensions: Dimension | None
    vision: dict[WeightsFormat, VisionGraph]
    tasks: dict[str, Task]
    variants: dict[str, Variant]
    golden: str
    export: ExportRecord
    files: dict[str, FileEntry]
    report: Report | None = None

    def bytes_of(self, files: Iterable[str]) -> int:
        """Bytes of some of the files; a name that comes twice counts once."""
        return sum(self.files[name].bytes for name in set(files))

    def variant_bytes(self, name: str) -> int:
        """Bytes of a variant: its graph, weights and adapters, and the vision graph and its weights if there is one.

        Variants share some of these files.
        """
        variant = self.variants[name]
        vision = () if self.image is None else self.vision[variant.weights].graph_files
        return self.bytes_of([*variant.graph_files, *variant.adapter_files.values(), *vision])

    def space(self, task: str) -> str:
        """Name of the vector space of a task: vectors of two packs may be compared where it is equal."""
        return f"{self.name}/{task}/{self.source.fingerprint[:16]}"
