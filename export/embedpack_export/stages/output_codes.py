"""Output codes of a task: int8 scales and codebooks, fitted to the exact vectors of its calibration inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from embedpack.pack.codebooks import Codebooks, write_codebooks
from embedpack.pack.graph_io import SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS, center_input
from embedpack.pack.manifest import Space, VectorCodes
from embedpack.vectors.arrays import Float32
from embedpack_export.graph.outputs import has_bits
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.quantization.codebook_fit import CENTER, NONE, ROTATION, CodebookFit, fit_codebook
from embedpack_export.stages.cosine_records import Vectors

# Vectors of other texts may have larger components than those of the calibration; codes beyond 127 are clipped.
HEADROOM = 1.15


@dataclass(frozen=True)
class TaskCodes:
    """Codes of a task, by output: `SENTENCE_EMBEDDING`, and `TOKEN_EMBEDDINGS` if the model has multi-vectors."""

    int8_scales: Mapping[str, float]  # scale of the int8 codes
    # Codebook of the low-bit codes; empty in a graph of several tasks, which takes the centers as inputs.
    fits: Mapping[str, CodebookFit]
    inputs: int  # number of texts and images that they were fitted to
    # Centers where a graph of several tasks is given none, by output; empty: 0.
    centers: Mapping[str, Float32] = field(default_factory=dict)

    @property
    def without_adapter(self) -> TaskCodes:
        """Codes of a switchable graph whose inputs are left out, if these are those of the task without an adapter."""
        return replace(self, fits={}, centers=self._centers)

    @property
    def scales_alone(self) -> TaskCodes:
        """Codes without codebooks: the int8 scales, which all tasks of one switchable graph share."""
        return replace(self, fits={})

    @property
    def center_inputs(self) -> dict[str, Float32]:
        """Centers as inputs of a switchable graph, by input name."""
        return {center_input(name): center for name, center in self._centers.items() if has_bits(len(center))}

    @property
    def _centers(self) -> dict[str, Float32]:
        return {name: fit.codebook.center for name, fit in self.fits.items()}

    def space(self, file: str) -> Space:
        """Entry of the manifest for a space whose codebooks are in `file`."""
        single, multi = (self._record(output) for output in (SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS))
        return Space(codebooks=file, inputs=self.inputs, single=single, multi=multi)

    def _record(self, output: str) -> VectorCodes | None:
        fit = self.fits.get(output)
        if fit is None:
            return None
        return VectorCodes(int8_scale=self.int8_scales[output], kept=fit.kept, recall_at_10=fit.recall_at_10)

    def write(self, path: Path) -> None:
        """Write the codebooks."""
        path.parent.mkdir(exist_ok=True)
        tokens = self.fits[TOKEN_EMBEDDINGS].codebook if TOKEN_EMBEDDINGS in self.fits else None
        write_codebooks(path, Codebooks(self.fits[SENTENCE_EMBEDDING].codebook, tokens))


def fit_codes(plan: ExportPlan, exact: Mapping[str, Vectors], *, rotate: bool) -> dict[str, TaskCodes]:
    """Fit codes to the exact vectors of each task: codebooks of its own, and int8 scales that all tasks share.

    `rotate`: whether codebooks may have a rotation.
    """
    parts = NONE if plan.code_center == "none" else ROTATION if rotate else CENTER
    ends = {SENTENCE_EMBEDDING: plan.truncate_dims}
    vectors = {SENTENCE_EMBEDDING: {task: of_task.single for task, of_task in exact.items()}}
    if plan.tokens is not None:
        ends[TOKEN_EMBEDDINGS] = (plan.tokens.dimensions,)
        vectors[TOKEN_EMBEDDINGS] = {
            task: of_task.tokens for task, of_task in exact.items() if of_task.tokens is not None
        }
    scales = {output: max(map(int8_scale, by_task.values())) for output, by_task in vectors.items()}
    fits = {
        output: {
            task: fit_codebook(values, ends[output], parts=parts, seed=plan.seed) for task, values in by_task.items()
        }
        for output, by_task in vectors.items()
    }
    return {
        task: TaskCodes(scales, {output: fits[output][task] for output in fits}, len(of_task.single))
        for task, of_task in exact.items()
    }


def int8_scale(vectors: Float32) -> float:
    """Scale of the int8 codes of unit vectors [n, d]: the largest component times `HEADROOM` has the code 127.

    Rounded to three digits, so that it does not depend on the last bits of a sum.
    """
    return float(f"{float(np.abs(vectors).max()) * HEADROOM / 127:.2e}")
