"""The manifest of a pack: every field of pack.json, with its type and range.

`embedpack.pack.rules` checks the fields against each other, `embedpack.pack.folder` reads and writes the file.
docs/pack-format.md describes the format on one screen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec

from embedpack.pack.prompts import prompt_name
from embedpack.vectors.codebook import LowBit

MANIFEST_NAME = "pack.json"
FORMAT = "2.0"
MAX_MANIFEST_BYTES = 16_000_000

WeightsFormat = Literal["fp32", "int8", "int4"]
Pooling = Literal["mean", "cls", "last"]
Modality = Literal["text", "text+image"]
AdapterMode = Literal["merged", "switchable"]
CodebookPart = Literal["center", "rotation"]
CheckOutcome = Literal["within budget", "over budget", "allowed", "not judged"]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=20)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**50)]
Dimension = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
TokenCount = Annotated[int, msgspec.Meta(ge=1, le=1_048_576)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
# Values of a unit vector are at most 1, codes at most 127.
Int8Scale = Annotated[float, msgspec.Meta(ge=1e-6, le=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
# Bounds of sides: the arrays of an attention window have (merge_size * window_size) ** 2 patches.
PatchSize = Annotated[int, msgspec.Meta(ge=1, le=256)]
WindowSize = Annotated[int, msgspec.Meta(ge=1, le=32)]


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all parts of the manifest: immutable; an unknown field is an error."""


class FileEntry(Strict, frozen=True):
    """Digest and size of one file of the pack."""

    sha256: Sha256
    bytes: Size


class Source(Strict, frozen=True):
    """Origin of the weights; `fingerprint` identifies the vector space (see `Manifest.space`)."""

    name: str
    revision: str | None
    files: dict[str, Sha256]
    fingerprint: Sha256


class License(Strict, frozen=True):
    """Licence of the weights: the id in the checkpoint; null: the checkpoint has none."""

    id: str | None
    non_commercial: bool


class TextInput(Strict, frozen=True):
    """Conversion of texts to token ids, padded on the right.

    `tokenizer` is the file of the tokenizer; every token id is below `vocabulary`, the number of rows of the embedding
    table. Texts are truncated to `max_tokens`, special tokens included.
    """

    tokenizer: str
    vocabulary: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    max_tokens: TokenCount
    pad_token_id: TokenId


class ImageInput(Strict, frozen=True):
    """Conversion of images to patches and token ids, as in Qwen2-VL's processor.

    Attributes:
        patch_size: side of a patch in pixels.
        temporal_patch_size: number of frames of a patch; a still image is repeated.
        merge_size: number of patches along each side of a token.
        window_size: number of tokens along each side of an attention window.
        min_pixels, max_pixels: bounds of height x width after resizing.
        mean, std: mean and standard deviation of red, green and blue; pixels in 0..1.
        tokens_before: token ids before the image.
        token: token id of each token of the image.
        tokens_after: token ids after the image.
        pooled_before, pooled_after: number of tokens, last of `tokens_before` and first of `tokens_after`, that are
            pooled to the single vector together with those of the image.
    """

    patch_size: PatchSize
    temporal_patch_size: WindowSize
    merge_size: WindowSize
    window_size: WindowSize
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
    def max_tokens(self) -> int:
        """Number of tokens of the largest image, with those before and after it."""
        around = len(self.tokens_before) + len(self.tokens_after)
        return around + self.max_pixels // (self.patch_size * self.merge_size) ** 2


class AdapterRecord(Strict, frozen=True):
    """Adapter of a task: the number of its matrices, and the size of its change.

    `relative_change` is the largest ||W' - W|| / ||W|| over the merged matrices (Frobenius norm).
    """

    modules: Annotated[int, msgspec.Meta(ge=1)]
    relative_change: Positive


class CodeCalibration(Strict, frozen=True):
    """Calibration of the codebook of low-bit codes.

    Attributes:
        file: file of the codebooks; the same for single vectors and multi-vectors of a task.
        texts, sha256: number of calibration texts and images, and digest of their file.
        kept: steps that raised the recall on held-out texts; the others are neutral in the codebook.
        agreement: recall of the ten nearest float32 vectors by codes, mean over held-out texts, by tried steps ("none",
            "center", "center+rotation") and precision.
    """

    file: str
    texts: Annotated[int, msgspec.Meta(ge=1)]
    sha256: Sha256
    kept: tuple[CodebookPart, ...]
    agreement: dict[str, dict[LowBit, Share]]


class Task(Strict, frozen=True):
    """A task: its prompts, its adapter, and the codes of its vectors.

    Attributes:
        prompts: text prefixes by prompt name.
        default_prompt_name: prompt of calls without a prompt name; null: none.
        int8_scale, codes: scale of int8 codes, and codebook of low-bit codes, of single vectors.
        token_int8_scale, token_codes: the same of multi-vectors; null: the pack has none.
        adapter: adapter of the task; null: the backbone is used.
    """

    prompts: dict[str, str]
    default_prompt_name: str | None
    int8_scale: Int8Scale
    token_int8_scale: Int8Scale | None
    codes: CodeCalibration
    token_codes: CodeCalibration | None
    adapter: AdapterRecord | None

    def prompt_name(self, wanted: str | None) -> str:
        """Name of the prompt `wanted`, or of another one: see `embedpack.pack.prompts.prompt_name`."""
        return prompt_name(self, self.default_prompt_name, wanted)

    def prompt(self, wanted: str | None) -> str:
        """Text prefix of the prompt with that name; "" for NO_PROMPT."""
        return self.prompts.get(self.prompt_name(wanted), "")


class TokenAccuracy(Strict, frozen=True):
    """Cosines of token vectors with those of the reference; `tokens` is their number."""

    tokens: Annotated[int, msgspec.Meta(ge=1)]
    cosine_mean: float
    cosine_p1: float


class Accuracy(Strict, frozen=True):
    """Cosines of a variant's vectors with those of `reference` over calibration inputs: mean, 1st percentile, lowest.

    `texts` is the number of texts and images; `tokens` is null if the pack has no multi-vectors.
    """

    reference: str
    texts: Annotated[int, msgspec.Meta(ge=1)]
    cosine_mean: float
    cosine_p1: float
    cosine_min: float
    tokens: TokenAccuracy | None


class Check(Strict, frozen=True):
    """Accuracy check of a task: vectors of the finished pack compared with those of a reference.

    Attributes:
        reference: "torch": the checkpoint with unmerged adapters; "fp32 graph": the exporter's unquantized graph.
        texts: number of calibration texts, each with its prompt.
        cosine_mean, cosine_p1, cosine_min: mean, 1st percentile and minimum of the cosines with the reference.
        ranking_loss: loss of self-retrieval in points of nDCG@10; null: too few texts.
        ranking_loss_95: its 95 % interval.
        top_10_overlap: mean share of the reference's ten nearest texts among those of the pack.
        budget: largest allowed loss in points.
        verdict: outcome; "allowed": over budget, but accepted with `--allow-loss`.
        tokens: cosines of token vectors; null: the pack has no multi-vectors.
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
    verdict: CheckOutcome
    tokens: TokenAccuracy | None


class Report(Strict, frozen=True):
    """Files of the accuracy check: its figures in JSON, and an HTML page."""

    figures: str
    page: str


class VisionGraph(Strict, frozen=True):
    """The vision graph; its fields are those of `Variant`."""

    graph: str
    external_data: tuple[str, ...]
    operators: tuple[str, ...]

    @property
    def graph_files(self) -> tuple[str, ...]:
        """The graph and its weights."""
        return self.graph, *self.external_data


class Variant(Strict, frozen=True):
    """One loadable graph.

    Attributes:
        task: task of a merged variant; null for switchable ones.
        adapter_files: adapters of a switchable variant by task, in onnxruntime's format; graph inputs at run time.
        graph, external_data: file of the graph, files of its weights.
        opset, operators: ONNX opset and operators of the graph.
        min_onnxruntime: oldest release that runs the graph.
        accuracy: accuracy measured while the graph was written.
        static_activations: activations with a static scale; the others have one for each row.
        checks: accuracy checks of the finished pack by task.
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
    """Settings and tool versions of the export."""

    settings: dict[str, Any]
    tools: dict[str, str]
    calibration: Sha256
    seed: int

    @property
    def text_tokens(self) -> tuple[str, ...]:
        """Special tokens that are parsed in texts as well."""
        tokens = self.settings.get("text_tokens")
        return tuple(map(str, tokens)) if isinstance(tokens, list) else ()


class Manifest(Strict, frozen=True):
    """Content of pack.json; without an accuracy check `report` is null and all `checks` are empty."""

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
        """Total bytes of some of the files; a repeated name counts once."""
        return sum(self.files[name].bytes for name in set(files))

    def variant_bytes(self, name: str) -> int:
        """Bytes of a variant: its graph, weights and adapters, and the vision graph and its weights if there is one.

        Variants share some of these files.
        """
        variant = self.variants[name]
        vision = () if self.image is None else self.vision[variant.weights].graph_files
        return self.bytes_of([*variant.graph_files, *variant.adapter_files.values(), *vision])

    def space(self, task: str) -> str:
        """Name of the vector space of a task: vectors of two packs may be compared if it is equal."""
        return f"{self.name}/{task}/{self.source.fingerprint[:16]}"
