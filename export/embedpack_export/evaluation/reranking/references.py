"""Reference of the scores of a finished pack: its checkpoint in torch, or its own fp32 variant."""

from __future__ import annotations

from dataclasses import dataclass

from embedpack import Reranker
from embedpack.errors import InputError, OptionError
from embedpack.pack.folder import Pack
from embedpack_export.evaluation.reranking.candidates import Score
from embedpack_export.planning.settings import ReferenceKind
from embedpack_export.reference.opening import ReferenceSource, model_source_of


@dataclass(frozen=True)
class ScoreFunction:
    """Full-precision scores, and the name of the model that computes them."""

    kind: ReferenceKind
    score: Score


def score_reference(pack: Pack, task: str, source: ReferenceSource, threads: int | None) -> ScoreFunction:
    """Open the reference of a task.

    Raises:
        InputError: the checkpoint and adapters are not those that the pack was made of, or there is neither a
            checkpoint nor an fp32 variant.
        CheckpointError: the checkpoint or an adapter cannot be read.
        MissingExtraError: torch, transformers or peft is missing.
    """
    if source.checkpoint is not None:
        from embedpack_export.reference.torch.score_model import open_score_model

        model = model_source_of(pack, source.checkpoint, source.adapters)
        assert model.scores is not None
        return ScoreFunction("torch", open_score_model(model, model.scores, task).scores)
    if source.adapters:
        raise OptionError("--adapter goes with --reference; name the checkpoint that the adapters belong to")
    variants = pack.manifest.variants.items()
    fp32 = [name for name, variant in variants if variant.weights == "fp32" and variant.task in (task, None)]
    if not fp32:
        raise InputError(
            f"{pack.folder}: there is no fp32 variant to compare with; pass --reference, or export it with fp32"
        )
    return ScoreFunction("fp32 graph", Reranker(pack.folder, variant=fp32[0], threads=threads).score)
