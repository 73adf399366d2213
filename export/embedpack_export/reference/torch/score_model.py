"""Torch model of the scores of a checkpoint: of pairs, or of lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from embedpack.errors import MissingExtraError
from embedpack.inputs.pair_texts import Document
from embedpack.vectors.arrays import Float32
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.planning.score_head import ScorePlan

try:
    from embedpack_export.reference.torch.listwise import ListModel
    from embedpack_export.reference.torch.pair_model import PairModel
    from embedpack_export.reference.torch.text_image_pairs import TextAndImagePairs
except ModuleNotFoundError as cause:
    if cause.name not in ("torch", "transformers", "peft"):
        raise
    raise MissingExtraError("reference", cause.name) from cause


class ScoreTorchModel(Protocol):
    """A model in full precision."""

    def scores(self, query: str, documents: Sequence[Document]) -> Float32:
        """Scores, float32 [documents]; InputError if a text cannot be used."""


def open_score_model(source: ModelSource, scores: ScorePlan, task: str) -> ScoreTorchModel:
    """Load the model of a task; CheckpointError if transformers or PEFT would use the files otherwise."""
    if source.model.fixed_pairs is not None:
        return TextAndImagePairs(source)
    return ListModel(source) if scores.of_lists else PairModel(source, scores, task)
