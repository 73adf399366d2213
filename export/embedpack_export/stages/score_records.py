"""Agreement of a variant's scores with those of a reference, as the manifest records it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedpack.pack.accuracy_records import ScoreAgreement
from embedpack.vectors.arrays import Float32
from embedpack_export.metrics.score_agreement import agreement
from embedpack_export.planning.score_groups import ScoreGroup
from embedpack_export.stages.cosine_records import DIGITS


def by_query(groups: Sequence[ScoreGroup], scores: Float32) -> list[Float32]:
    """Scores of the documents of each query, from those of all, [documents of all groups]."""
    return np.split(scores, np.cumsum([len(group.documents) for group in groups])[:-1])


def recorded_agreement(groups: Sequence[ScoreGroup], reference: Float32, scores: Float32) -> ScoreAgreement:
    """Agreement of scores, [documents of all groups]."""
    found = agreement(by_query(groups, reference), by_query(groups, scores))
    return ScoreAgreement(
        queries=found.queries,
        pairs=found.pairs,
        largest_difference=float(f"{found.largest_difference:.3g}"),
        relative_difference=float(f"{found.relative_difference:.3g}"),
        kendall=round(found.kendall, DIGITS),
    )
