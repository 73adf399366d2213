"""The pack format: what pack.json says, and the only code that reads and writes it.

A pack is one plain folder. pack.json names every file with its digest and size; a file that it does not name does not
count. Everything that it says is checked before anything else is opened: format version, field names, types, ranges,
paths, references between its parts. README.md describes the format on one screen.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import msgspec

from embedpack.codebook import LowBit
from embedpack.disk import atomic_file
from embedpack.errors import PackError, unknown
from embedpack.safetensors_file import unique_keys

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

    def space(self, task: str) -> str:
        """Name of the vector space of a task: vectors of two packs may be compared where it is equal."""
        return f"{self.name}/{task}/{self.source.fingerprint[:16]}"


@dataclass(frozen=True)
class Pack:
    """An opened pack: its folder and its checked manifest."""

    folder: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        """Path of one of the pack's files, once it is known to be a plain file of the stated size.

        Raises:
            PackError: the file is missing, a symbolic link, or of another size.
        """
        path = self.folder / name
        for part in (path, *path.parents):
            if part == self.folder:
                break
            _refuse_link(path, part)
        if not path.is_file():
            raise PackError(f"{path}: missing, though {MANIFEST_NAME} names it; copy the pack again")
        expected, found = self.manifest.files[name].bytes, path.stat().st_size
        if found != expected:
            raise PackError(f"{path}: expected {expected} bytes, found {found}; copy the pack again")
        return path

    def read(self, name: str) -> bytes:
        """Content of one of the pack's files, its digest checked.

        Raises:
            PackError: as `path`, or the digest differs.
        """
        path = self.path(name)
        with _reading(path):
            content = path.read_bytes()
        self._check_digest(path, name, hashlib.sha256(content).hexdigest())
        return content

    def check_files(self) -> Iterator[str]:
        """Check size and digest of every file, then that there are no others; yields each name once it is checked.

        Raises:
            PackError: a file is missing, changed, a link, or not named in the manifest.
        """
        for name in self.manifest.files:
            path = self.path(name)
            with _reading(path), path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            self._check_digest(path, name, digest)
            yield name
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if (path.is_symlink() or not path.is_dir()) and name != MANIFEST_NAME and name not in self.manifest.files:
                raise PackError(f"{path}: {MANIFEST_NAME} does not name this file; remove it")

    def _check_digest(self, path: Path, name: str, found: str) -> None:
        expected = self.manifest.files[name].sha256
        if found != expected:
            raise PackError(f"{path}: expected sha256 {expected[:16]}…, found {found[:16]}…; copy the pack again")


def read_pack(folder: str | Path) -> Pack:
    """Open a pack: read and check its manifest. Files are checked when they are asked for.

    Raises:
        PackError: the folder is no pack, or its manifest is not valid.
    """
    folder = Path(folder)
    path = folder / MANIFEST_NAME
    manifest = _convert(path, _read_json(folder, path))
    for problem in _contradictions(manifest):
        raise PackError(f"{path}: {problem}")
    return Pack(folder, manifest)


def listed_files(folder: Path) -> frozenset[str]:
    """Names of the files that a pack lists, also one of another minor format, whose manifest says other things.

    Raises:
        PackError: the folder is no pack.
    """
    path = folder / MANIFEST_NAME
    value = _read_json(folder, path)
    _check_format(path, value)
    if not isinstance(value, dict) or not {"format", "files"} <= set(value):
        raise PackError(f"{path}: no manifest of a pack")
    try:
        files = msgspec.convert(value["files"], dict[str, FileEntry])
    except msgspec.ValidationError as cause:
        raise PackError(f"{path}: {cause} - at `$.files`") from cause
    for problem in _bad_paths(files):
        raise PackError(f"{path}: {problem}")
    return frozenset(files)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write pack.json; the same manifest always gives the same bytes."""
    text = json.dumps(msgspec.to_builtins(manifest), indent=1, ensure_ascii=False)
    with atomic_file(folder / MANIFEST_NAME) as stream:
        stream.write(text.encode() + b"\n")


def describe_file(path: Path) -> FileEntry:
    """Digest and size of a file."""
    with path.open("rb") as stream:
        return FileEntry(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), bytes=path.stat().st_size)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        raise PackError(f"{path}: cannot be read: {cause.strerror or cause}") from cause


def _refuse_link(path: Path, part: Path) -> None:
    if part.is_symlink():
        raise PackError(f"{path}: {part.name!r} is a symbolic link; copy the pack with its links resolved")


def _read_json(folder: Path, path: Path) -> Any:
    """The JSON of a manifest; nothing of what it says is checked."""
    if not path.is_file():
        raise PackError(f"{folder}: no pack here ({MANIFEST_NAME} is missing); make one with: embedpack export")
    _refuse_link(path, path)
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise PackError(f"{path}: {path.stat().st_size} bytes; a manifest has at most {MAX_MANIFEST_BYTES}")
    with _reading(path):
        content = path.read_bytes()
    try:
        return json.loads(
            content.decode("utf-8"), object_pairs_hook=unique_keys, parse_constant=_no_constant, parse_float=_finite
        )
    except UnicodeDecodeError as cause:
        raise PackError(f"{path}: not UTF-8 at byte {cause.start}; copy the pack again") from cause
    except RecursionError as cause:
        raise PackError(f"{path}: nested too deeply to be a manifest") from cause
    except ValueError as cause:
        raise PackError(f"{path}: not valid JSON: {cause}") from cause


def _convert(path: Path, value: Any) -> Manifest:
    _check_format(path, value)
    try:
        return msgspec.convert(value, Manifest)
    except msgspec.ValidationError as cause:
        version = value.get("format", FORMAT) if isinstance(value, dict) else FORMAT
        newer = "" if version == FORMAT else f" (format {version}, this embedpack writes {FORMAT})"
        raise PackError(f"{path}: {cause}{newer}") from cause


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    # float() reads 1e999 as infinity.
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return value


def _check_format(path: Path, value: object) -> None:
    if not isinstance(value, dict) or "format" not in value:
        return  # the conversion to a Manifest says what is missing
    version = value["format"]
    major = FORMAT.partition(".")[0]
    if not isinstance(version, str) or not re.fullmatch(rf"{major}\.[0-9]+", version, re.ASCII):
        raise PackError(f"{path}: format {version!r} at `$.format`; this embedpack reads {FORMAT}: update one of them")


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """What the parts of a manifest say against each other, each with its JSON path."""
    yield from _bad_paths(manifest.files)
    if list(manifest.truncate_dims) != sorted(set(manifest.truncate_dims)):
        yield "the truncations do not ascend - at `$.truncate_dims`"
    if manifest.text.pad_token_id >= manifest.text.vocabulary:
        yield f"the pad token is not below {manifest.text.vocabulary}, the vocabulary - at `$.text.pad_token_id`"
    if not manifest.truncate_dims or manifest.truncate_dims[-1] != manifest.dimensions:
        yield f"the last truncation is not {manifest.dimensions}, the full dimension - at `$.truncate_dims`"
    for name, task in manifest.tasks.items():
        if task.default_prompt_name is not None and task.default_prompt_name not in task.prompts:
            yield f"{unknown('prompt', task.default_prompt_name, task.prompts)} - at `$.tasks[{name!r}]`"
    yield from _bad_variants(manifest)
    yield from _bad_inputs_and_heads(manifest)
    for where, file in _references(manifest):
        if file not in manifest.files:
            yield f"{file!r} is not among the files - at `{where}`"


def _bad_variants(manifest: Manifest) -> Iterator[str]:
    if not manifest.variants:
        yield "there is no variant - at `$.variants`"
    used: set[str] = set()
    for name, variant in manifest.variants.items():
        path = f"$.variants[{name!r}]"
        own = {variant.task} if variant.task is not None else set(variant.adapter_files)
        for task in sorted(own - set(manifest.tasks)):
            yield f"{unknown('task', task, manifest.tasks)} - at `{path}.task`"
        switchable = variant.task is None and own == set(manifest.tasks)
        if not (switchable if variant.adapters == "switchable" else variant.task is not None):
            yield f"a merged variant has one task, a switchable one an adapter file for each - at `{path}.adapters`"
        if variant.adapters == "merged" and variant.adapter_files:
            yield f"a merged variant has no adapter files - at `{path}.adapter_files`"
        for task in sorted(set(variant.checks) - own):
            yield f"task {task!r} is none of the variant's - at `{path}.checks`"
        if manifest.image is not None and variant.weights not in manifest.vision:
            yield f"there is no vision graph of {variant.weights} - at `{path}.weights`"
        used |= own
    for name in manifest.tasks:
        if name not in used:
            yield f"task {name!r} has no variant - at `$.tasks[{name!r}]`"


def _bad_inputs_and_heads(manifest: Manifest) -> Iterator[str]:
    for name, task in manifest.tasks.items():
        if (task.token_int8_scale is None) != (manifest.multi_vector_dimensions is None):
            yield f"token_int8_scale and multi_vector_dimensions do not agree - at `$.tasks[{name!r}].token_int8_scale`"
        if (task.token_codes is None) != (manifest.multi_vector_dimensions is None):
            yield f"token_codes and multi_vector_dimensions do not agree - at `$.tasks[{name!r}].token_codes`"
        if task.token_codes is not None and task.token_codes.file != task.codes.file:
            yield f"the codebooks of a task are in one file - at `$.tasks[{name!r}].token_codes.file`"
    image = manifest.image
    if image is None:
        return
    for token in (*image.tokens_before, image.token, *image.tokens_after):
        if token >= manifest.text.vocabulary:
            yield f"token {token} is not below {manifest.text.vocabulary}, the vocabulary - at `$.image`"
    if image.pooled_before > len(image.tokens_before) or image.pooled_after > len(image.tokens_after):
        yield "more tokens are pooled than there are - at `$.image`"
    if image.min_pixels > image.max_pixels:
        yield "min_pixels is above max_pixels - at `$.image`"


def _references(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Every file that a part of the manifest relies on, with the JSON path of that part."""
    yield "$.text.tokenizer", manifest.text.tokenizer
    yield "$.golden", manifest.golden
    if manifest.report is not None:
        yield "$.report.figures", manifest.report.figures
        yield "$.report.page", manifest.report.page
    for name, task in manifest.tasks.items():
        yield f"$.tasks[{name!r}].codes.file", task.codes.file
    for weights, vision in manifest.vision.items():
        for file in (vision.graph, *vision.external_data):
            yield f"$.vision[{weights!r}]", file
    for name, variant in manifest.variants.items():
        for file in (variant.graph, *variant.external_data, *variant.adapter_files.values()):
            yield f"$.variants[{name!r}]", file


def _bad_paths(files: Mapping[str, FileEntry]) -> Iterator[str]:
    for name in files:
        path = PurePosixPath(name)
        plain = path.parts and path.as_posix() == name and name.isprintable() and not any(c in name for c in "\\:")
        if not plain or path.is_absolute() or ".." in path.parts or name == MANIFEST_NAME:
            yield f"{name!r} is not a plain path inside the pack - at `$.files`"
