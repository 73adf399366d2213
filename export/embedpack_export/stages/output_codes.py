"""What the codes of a task are made with, as its graphs, its calibration file and the manifest need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedpack.pack.codebooks import Codebooks, write_codebooks
from embedpack.pack.graph_io import SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS, center_input
from embedpack.pack.manifest import CodeCalibration
from embedpack_export.arrays import Float32
from embedpack_export.graph.heads import VectorCodes, has_bits
from embedpack_export.planning.calibration_texts import int8_scale
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.quantization.codebook_fit import CodeFit, CodeFitter
from embedpack_export.stages.closeness import Vectors
from embedpack_export.stages.graph_writer import HeadCodes


@dataclass(frozen=True)
class Fitted:
    """Step of the int8 codes and codebook of the low-bit codes of one kind of vectors."""

    int8_scale: float
    low_bit: CodeFit

    @property
    def heads(self) -> VectorCodes:
        """For the graph of one task."""
        return VectorCodes(self.int8_scale, self.low_bit.codebook)

    def record(self, plan: ExportPlan, file: str, texts: int) -> CodeCalibration:
        """For the manifest."""
        return CodeCalibration(
            file=file,
            texts=texts,
            sha256=plan.calibration.sha256,
            kept=self.low_bit.kept,
            agreement=self.low_bit.agreement,
        )


@dataclass(frozen=True)
class TaskCodes:
    """Codes of a task.

    Attributes:
        single: of single vectors.
        tokens: of multi-vectors; None: there are none.
        inputs: texts and images that they were fitted to.
    """

    single: Fitted
    tokens: Fitted | None
    inputs: int

    @property
    def heads(self) -> HeadCodes:
        """For a graph of this task."""
        return HeadCodes(self.single.heads, None if self.tokens is None else self.tokens.heads)

    @property
    def shared_heads(self) -> HeadCodes:
        """For a graph of several tasks, which takes the centers as inputs."""
        tokens = None if self.tokens is None else VectorCodes(self.tokens.int8_scale, None)
        return HeadCodes(VectorCodes(self.single.int8_scale, None), tokens)

    @property
    def center_inputs(self) -> dict[str, Float32]:
        """What such a graph takes for this task."""
        fits = {SENTENCE_EMBEDDING: self.single, TOKEN_EMBEDDINGS: self.tokens}
        centers = {name: fit.low_bit.codebook.center for name, fit in fits.items() if fit is not None}
        return {center_input(name): center for name, center in centers.items() if has_bits(len(center))}

    def write(self, path: Path) -> None:
        """Write the codebooks."""
        path.parent.mkdir(exist_ok=True)
        token = None if self.tokens is None else self.tokens.low_bit.codebook
        write_codebooks(path, Codebooks(self.single.low_bit.codebook, token))


def fit_codes(plan: ExportPlan, exact: Mapping[str, Vectors], *, rotate: bool) -> dict[str, TaskCodes]:
    """Codes for the exact vectors of each task: a codebook for each, and int8 steps that fit all of them."""
    single = _fit(
        {task: item.single for task, item in exact.items()}, CodeFitter(plan.truncate_dims, rotate, plan.seed)
    )
    found = {task: item.tokens for task, item in exact.items() if item.tokens is not None}
    head = plan.model.tokens
    tokens = {} if head is None else _fit(found, CodeFitter((head.dimensions,), rotate, plan.seed))
    return {task: TaskCodes(single[task], tokens.get(task), len(item.single)) for task, item in exact.items()}


def _fit(vectors: Mapping[str, Float32], fitter: CodeFitter) -> dict[str, Fitted]:
    scale = max(map(int8_scale, vectors.values()))
    return {task: Fitted(scale, fitter.fit(found)) for task, found in vectors.items()}
