"""The manifest of a pack: every field of pack.json, with its type and range.

Parts of it are in `input_recipes`, `score_recipes`, `variants` and `accuracy_records` of this package. `rules` checks
the fields against each other, `folder` reads and writes the file, `upgrade` reads older formats. docs/pack-format.md
describes the format on one screen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec

from embedpack.pack.accuracy_records import Report
from embedpack.pack.input_recipes import Prompt, QwenImage, SquareImage, TextInput
from embedpack.pack.prompts import prompt_name
from embedpack.pack.score_recipes import ListScores, MaxSimScores, PairScores
from embedpack.pack.strict import Count, Dimension, Positive, Sha256, Share, Size, Strict, WeightsFormat
from embedpack.pack.variants import Variant, VisionGraph
from embedpack.vectors.codebook import LowBit
from embedpack.vectors.metric import Similarity

MANIFEST_NAME = "pack.json"
FORMAT = "3.0"
MAX_MANIFEST_BYTES = 16_000_000

Kind = Literal["embedder", "reranker"]
Pooling = Literal["mean", "cls", "last", "max", "weighted_mean", "mean_sqrt_len"]
Modality = Literal["text", "text+image"]
CodebookPart = Literal["center", "rotation"]
# Values of a unit vector are at most 1, codes at most 127; vectors with lengths of their own are larger.
Int8Scale = Annotated[float, msgspec.Meta(ge=1e-6, le=1e4)]

NO_PREFIX = Prompt()


class FileEntry(Strict, frozen=True):
    """Digest and size of one file of the pack."""

    sha256: Sha256
    bytes: Size


class Source(Strict, frozen=True):
    """Origin of the weights; `fingerprint` identifies the vector spaces (see `Manifest.space`)."""

    name: str
    revision: str | None
    files: dict[str, Sha256]
    fingerprint: Sha256


class License(Strict, frozen=True):
    """Licence of the weights: the id in the checkpoint; null: the checkpoint has none."""

    id: str | None
    non_commercial: bool


class SingleVectors(Strict, frozen=True):
    """Head of single vectors.

    Attributes:
        dimensions: dimensions of a vector that is not truncated.
        truncate_dims: allowed truncations, ascending; the last is `dimensions`.
        pooling: pooling of the hidden states.
        normalized: whether the graph gives vectors of length 1.
        similarity: similarity that the model was trained for.
    """

    dimensions: Dimension
    truncate_dims: tuple[Dimension, ...]
    pooling: Pooling
    normalized: bool
    similarity: Similarity


class MultiVectors(Strict, frozen=True):
    """Head of multi-vectors, all of length 1; fields as of `SingleVectors`."""

    dimensions: Dimension
    truncate_dims: tuple[Dimension, ...]


class VectorCodes(Strict, frozen=True):
    """Codes of the vectors of one head in one space.

    Attributes:
        int8_scale: scale of int8 codes.
        kept: steps of the calibration of low-bit codes that raised the recall on held-out texts; the others are neutral
            in the codebook.
        recall_at_10: share of the ten nearest float32 vectors that codes find, mean over held-out texts, by tried steps
            ("none", "center", "center+rotation") and precision; empty: too few texts.
    """

    int8_scale: Int8Scale
    kept: tuple[CodebookPart, ...]
    recall_at_10: dict[str, dict[LowBit, Share]]


class Space(Strict, frozen=True):
    """Vectors that may be compared with each other; all tasks of a space share its codes.

    `codebooks` is the file of its codebooks, `inputs` the number of texts and images that they were fitted to. `single`
    and `multi` are null if the pack has no such head.
    """

    codebooks: str
    inputs: Count
    single: VectorCodes | None
    multi: VectorCodes | None


class AdapterRecord(Strict, frozen=True):
    """Adapter of a task: the number of its matrices, and the size of its change.

    `relative_change` is the largest ||W' - W|| / ||W|| over the merged matrices (Frobenius norm).
    """

    modules: Count
    relative_change: Positive


class Task(Strict, frozen=True):
    """A task: its space, its prompts and its adapter.

    Attributes:
        space: space of its vectors; null: the pack gives scores only.
        prompts: prompts by name.
        default_prompt_name: prompt of calls without a prompt name; null: none.
        adapter: adapter of the task; null: the backbone is used.
    """

    space: str | None
    prompts: dict[str, Prompt]
    default_prompt_name: str | None
    adapter: AdapterRecord | None

    def prompt_name(self, wanted: str | None) -> str:
        """Name of the prompt `wanted`, or of another one: see `embedpack.pack.prompts.prompt_name`."""
        return prompt_name(self, self.default_prompt_name, wanted)

    def prompt(self, wanted: str | None) -> Prompt:
        """The prompt with that name; NO_PREFIX for NO_PROMPT."""
        return self.prompts.get(self.prompt_name(wanted), NO_PREFIX)


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
    """Content of pack.json.

    Attributes:
        kind: "embedder": the pack gives vectors; "reranker": it gives scores only.
        single, multi, score: heads; null: the pack does not have it.
        vision: vision graphs by weights format; empty: the pack reads texts only.
        default_task: task of calls that name none; null: such calls are refused if there are several tasks.
        late_chunking: whether the graphs give one vector for each part of a text.
        report: null without an accuracy check; then all `checks` are empty.
    """

    format: str
    kind: Kind
    name: str
    family: str
    source: Source
    license: License
    single: SingleVectors | None
    multi: MultiVectors | None
    score: PairScores | ListScores | MaxSimScores | None
    late_chunking: bool
    text: TextInput
    image: QwenImage | SquareImage | None
    vision: dict[WeightsFormat, VisionGraph]
    spaces: dict[str, Space]
    tasks: dict[str, Task]
    default_task: str | None
    variants: dict[str, Variant]
    golden: str
    export: ExportRecord
    files: dict[str, FileEntry]
    report: Report | None = None

    @property
    def unnamed_task(self) -> str | None:
        """Task of calls that name none: `default_task`, else the only one; None: such calls are refused."""
        only = next(iter(self.tasks)) if len(self.tasks) == 1 else None
        return self.default_task or only

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
        """Name of the space of a task: vectors of two packs or tasks may be compared if it is equal."""
        return f"{self.name}/{self.tasks[task].space}/{self.source.fingerprint[:16]}"

    def codes(self, task: str) -> Space:
        """Codes of the vectors of a task, which has a space."""
        name = self.tasks[task].space
        assert name is not None, task
        return self.spaces[name]
