"""References of scores, and the choice of the one that an export compares its pack with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from embedpack.errors import CapacityError, CheckpointError, EmbedpackError, InputError
from embedpack.vectors.arrays import Float32
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.score_groups import ScoreGroup
from embedpack_export.planning.score_head import ScorePlan
from embedpack_export.planning.settings import ExportSettings, ReferenceKind
from embedpack_export.reference.choice import PROBE_TEXT, torch_obstacle
from embedpack_export.reference.score_reading_check import check_score_reading
from embedpack_export.reference.torch_reference import TORCH_PACKAGES, library_errors
from embedpack_export.stages.score_run import RecordedScores

if TYPE_CHECKING:
    from embedpack_export.reference.torch.score_model import ScoreTorchModel

logger = logging.getLogger("embedpack")


class ScoreReference(Protocol):
    """Full-precision scores; attributes as of `Reference`."""

    kind: ReferenceKind
    packages: tuple[str, ...]

    def scores(self, task: str, groups: Sequence[ScoreGroup]) -> Float32:
        """Scores of all documents of the groups, float32 [documents].

        Raises:
            CheckpointError: the model cannot be loaded.
            InputError, CapacityError: a text cannot be used, or the model does not fit the memory.
        """

    def close(self) -> None:
        """Release the memory of loaded models."""


class RecordedScoreReference:
    """Scores that the export computed in float32 before quantization, for its own groups.

    Attributes:
        recorded: groups and scores by task.
    """

    kind: ReferenceKind = "fp32 graph"
    packages: tuple[str, ...] = ()

    def __init__(self, recorded: Mapping[str, RecordedScores]) -> None:
        self.recorded = recorded

    def scores(self, task: str, groups: Sequence[ScoreGroup]) -> Float32:
        """Scores of these groups, which are those of the export."""
        of_task = self.recorded[task]
        assert list(groups) == list(of_task.groups)
        return of_task.scores

    def close(self) -> None:
        """Keep the scores: there is no model."""


class TorchScoreReference:
    """Scores of a checkpoint with unmerged adapters; the model of one task is loaded at a time."""

    kind: ReferenceKind = "torch"
    packages = TORCH_PACKAGES

    def __init__(self, plan: ExportPlan, scores: ScorePlan) -> None:
        self._plan = plan
        self._scores = scores
        self._loaded: tuple[str, ScoreTorchModel] | None = None

    def scores(self, task: str, groups: Sequence[ScoreGroup]) -> Float32:
        """Scores of all documents of the groups, float32 [documents]."""
        with library_errors(self._plan.checkpoint.folder):
            model = self._model(task)
            return np.concatenate([model.scores(group.query, group.documents) for group in groups])

    def close(self) -> None:
        """Release the memory of the loaded model."""
        self._loaded = None

    def _model(self, task: str) -> ScoreTorchModel:
        from embedpack_export.reference.torch.score_model import open_score_model

        if self._loaded is None or self._loaded[0] != task:
            # Release the memory of the former one first.
            self._loaded = None
            self._loaded = task, open_score_model(self._plan, self._scores, task)
        return self._loaded[1]


@dataclass(frozen=True)
class ChosenScores:
    """References of a finished pack that gives scores."""

    main: ScoreReference
    fp32_graph: RecordedScoreReference  # scores that the export recorded, in place of `main` if that fails
    notes: tuple[str, ...]  # sentences about the choice, for the report

    @property
    def groups(self) -> Mapping[str, Sequence[ScoreGroup]]:
        """Groups of each task."""
        return {task: of_task.groups for task, of_task in self.fp32_graph.recorded.items()}

    def without_torch(self, note: str) -> ChosenScores:
        """The fp32 graph in place of torch, with the reason in the notes."""
        return replace(self, main=self.fp32_graph, notes=(*self.notes, note))


@dataclass(frozen=True)
class ScoreReferenceChoice:
    """Choice before calibration: torch, which has computed a score of each task, or the fp32 graph."""

    torch: TorchScoreReference | None
    notes: tuple[str, ...]

    def with_recorded(self, recorded: Mapping[str, RecordedScores]) -> ChosenScores:
        """References with the float32 scores of each task."""
        fp32_graph = RecordedScoreReference(recorded)
        return ChosenScores(self.torch or fp32_graph, fp32_graph, self.notes)


def choose_score_reference(plan: ExportPlan, scores: ScorePlan, settings: ExportSettings) -> ScoreReferenceChoice:
    """Choose the reference of scores; rules and errors as of `choose_reference`."""
    notes = check_score_reading(plan, scores, settings)
    if settings.reference == "fp32 graph":
        return ScoreReferenceChoice(None, notes)
    torch = TorchScoreReference(plan, scores)
    obstacle = torch_obstacle(plan) or _refusal(torch, plan)
    if obstacle is None:
        logger.info("reference: torch with unmerged adapters")
        return ScoreReferenceChoice(torch, notes)
    if settings.reference == "torch":
        raise obstacle
    logger.warning("reference: the fp32 graph, not torch: %s", obstacle)
    return ScoreReferenceChoice(None, (f"The reference is not torch: {obstacle}.", *notes))


def _refusal(torch: TorchScoreReference, plan: ExportPlan) -> EmbedpackError | None:
    """Reason of transformers or PEFT against the files, from one pair of each task."""
    try:
        for task in plan.tasks:
            torch.scores(task, [ScoreGroup(PROBE_TEXT, (PROBE_TEXT,))])
    except (CheckpointError, InputError, CapacityError) as refusal:
        return refusal
    finally:
        # Calibration needs the memory.
        torch.close()
    return None
