"""Output codes of a space: int8 scales and codebooks, fitted to the exact vectors of its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from embedpack.pack.codebooks import Codebooks, write_codebooks
from embedpack.pack.graph_io import SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS, center_input
from embedpack.pack.manifest import Space, VectorCodes
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codes import unit
from embedpack_export.graph.outputs import has_bits
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.quantization.codebook_fit import (
    CENTER,
    NONE,
    ROTATION,
    CodebookFit,
    FittedVectors,
    Modalities,
    fit_codebook,
)
from embedpack_export.stages.cosine_records import Vectors

# Vectors of other texts may have larger components than those of the calibration; codes beyond 127 are clipped.
HEADROOM = 1.15
# Lengths differ between texts, and are part of these codes.
HEADROOM_WITH_LENGTHS = 2.0
OUTPUTS = (SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS)


@dataclass(frozen=True)
class SpaceCodes:
    """Codes of a space, by output: `SENTENCE_EMBEDDING` and `TOKEN_EMBEDDINGS`, those that the model has."""

    int8_scales: Mapping[str, float]  # scale of the int8 codes
    # Codebook of the low-bit codes; empty in a graph of several tasks, which takes the centers as inputs.
    fits: Mapping[str, CodebookFit]
    inputs: int  # number of texts and images that they were fitted to
    # Centers where a graph of several tasks is given none, by output; empty: 0.
    centers: Mapping[str, Float32] = field(default_factory=dict)

    @property
    def without_adapter(self) -> SpaceCodes:
        """Codes of a switchable graph whose inputs are left out, if these are those of the task without an adapter."""
        return replace(self, fits={}, centers=self._centers)

    @property
    def scales_alone(self) -> SpaceCodes:
        """Codes without codebooks: the int8 scales, which all spaces of one switchable graph share."""
        return replace(self, fits={})

    @property
    def center_inputs(self) -> dict[str, Float32]:
        """Centers as inputs of a switchable graph, by input name."""
        return {center_input(name): center for name, center in self._centers.items() if has_bits(len(center))}

    @property
    def _centers(self) -> dict[str, Float32]:
        return {name: fit.codebook.center for name, fit in self.fits.items()}

    def write(self, folder: Path, space: str) -> Space:
        """Write the codebooks into the folder of a pack; the entry of the space in the manifest."""
        file = f"calibration/{space}.safetensors"
        (folder / file).parent.mkdir(exist_ok=True)
        codebooks = [self.fits[output].codebook if output in self.fits else None for output in OUTPUTS]
        write_codebooks(folder / file, Codebooks(*codebooks))
        single, multi = map(self._record, OUTPUTS)
        return Space(codebooks=file, inputs=self.inputs, single=single, multi=multi)

    def _record(self, output: str) -> VectorCodes | None:
        fit = self.fits.get(output)
        if fit is None:
            return None
        return VectorCodes(int8_scale=self.int8_scales[output], kept=fit.kept, recall_at_10=fit.recall_at_10)


def fit_codes(plan: ExportPlan, exact: Mapping[str, Vectors], *, rotate: bool) -> dict[str, SpaceCodes]:
    """Fit the codes of each space to the exact vectors of its tasks: `exact` are those of each task.

    Each space has codebooks of its own, all of them share the int8 scales. `rotate`: whether codebooks may have a
    rotation.
    """
    parts = NONE if plan.code_center == "none" else ROTATION if rotate else CENTER
    ends = {} if plan.single is None else {SENTENCE_EMBEDDING: plan.truncate_dims}
    if plan.tokens is not None:
        ends[TOKEN_EMBEDDINGS] = plan.tokens.allowed_dims
    by_space: dict[str, list[Vectors]] = {}
    for task, vectors in exact.items():
        by_space.setdefault(plan.tasks[task].space, []).append(vectors)
    normalized = plan.single is None or plan.single.normalize
    joined = {space: _joined(of_tasks, normalized=normalized) for space, of_tasks in by_space.items()}
    scales = {output: max(int8_scale(vectors[output].vectors) for vectors in joined.values()) for output in ends}
    if plan.single is not None and plan.single.similarity == "dot":
        single = [each.single for each in exact.values() if each.single is not None]
        scales[SENTENCE_EMBEDDING] = max(int8_scale(vectors, HEADROOM_WITH_LENGTHS) for vectors in single)
    return {
        space: SpaceCodes(
            scales,
            {output: fit_codebook(vectors[output], ends[output], parts=parts, seed=plan.seed) for output in ends},
            sum(each.inputs for each in by_space[space]),
        )
        for space, vectors in joined.items()
    }


def _joined(vectors: Sequence[Vectors], *, normalized: bool) -> dict[str, FittedVectors]:
    """Vectors of length 1 of several tasks by output; `normalized`: they have it already."""
    joined = {}
    single = [of_task.single for of_task in vectors if of_task.single is not None]
    if single:
        values = np.concatenate(single) if normalized else unit(np.concatenate(single))
        joined[SENTENCE_EMBEDDING] = FittedVectors(values, _modalities(vectors))
    tokens = [of_task.tokens for of_task in vectors if of_task.tokens is not None]
    if tokens:
        joined[TOKEN_EMBEDDINGS] = FittedVectors(np.concatenate(tokens))
    return joined


def _modalities(vectors: Sequence[Vectors]) -> Modalities | None:
    """1 for single vectors of images, 0 for those of texts; None: all are of texts."""
    if not any(of_task.images for of_task in vectors):
        return None
    return np.concatenate([np.arange(each.inputs) >= each.inputs - each.images for each in vectors]).astype(np.intp)


def int8_scale(vectors: Float32, headroom: float = HEADROOM) -> float:
    """Scale of the int8 codes of vectors [n, d]: the largest component times `headroom` has the code 127.

    Rounded to three digits, so that it does not depend on the last bits of a sum.
    """
    return float(f"{float(np.abs(vectors).max()) * headroom / 127:.2e}")
