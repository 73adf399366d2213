"""Heads of a pack, or the error of calls that need one which it does not have."""

from __future__ import annotations

from collections.abc import Iterable

from embedpack.errors import InputError, OptionError
from embedpack.pack.folder import Pack
from embedpack.pack.graph_io import MARK_VECTORS, SCORE, SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS
from embedpack.pack.input_recipes import Prompt
from embedpack.pack.manifest import Manifest, MultiVectors, SingleVectors
from embedpack.pack.score_recipes import ListScores
from embedpack.vectors.metric import Metric


def check_embedder(pack: Pack) -> None:
    """Raise InputError for a pack that gives scores only."""
    if pack.manifest.kind == "reranker":
        raise InputError(f"{pack.folder}: this pack gives scores, not vectors; open it with Reranker")


def main_output(manifest: Manifest) -> str:
    """Name of the output that every run of a text graph can compute."""
    if manifest.kind == "reranker":
        return MARK_VECTORS if isinstance(manifest.score, ListScores) else SCORE
    return TOKEN_EMBEDDINGS if manifest.single is None else SENTENCE_EMBEDDING


def single_vectors(pack: Pack) -> SingleVectors:
    """Head of single vectors; InputError if the pack has none."""
    check_embedder(pack)
    if pack.manifest.single is None:
        raise InputError(f"{pack.folder}: this pack has no single vectors; call encode_multi, or embed --multi")
    return pack.manifest.single


def check_late_chunking(pack: Pack, prompts: Iterable[Prompt]) -> None:
    """Raise InputError for a pack without late chunking, OptionError for a prompt that changes the tokens of a text."""
    single_vectors(pack)
    problem = late_chunking_problem(pack.manifest)
    if problem is not None:
        raise InputError(f"{pack.folder}: {problem}")
    if any(map(changes_tokens, prompts)):
        raise OptionError("late chunking is not possible under a prompt with a marker or a fill; pass prompt_name=''")


def late_chunking_problem(manifest: Manifest) -> str | None:
    """Reason why a pack has no late chunking, and the remedy; None: it has."""
    if manifest.late_chunking:
        return None
    if manifest.single is None:
        return "no late chunking: this pack has no single vectors"
    if manifest.single.pooling != "mean":
        return (
            f"no late chunking: the pooling of this model is {manifest.single.pooling}, and only a mean of tokens can "
            "be taken for each chunk; embed the chunks one by one"
        )
    return (
        "no late chunking: layers follow the pooling of this model, or an older embedpack exported it; export it "
        "again, or embed the chunks one by one"
    )


def changes_tokens(prompt: Prompt) -> bool:
    """True if a prompt adds tokens to a text beside its prefix."""
    return prompt.marker is not None or prompt.fill is not None


def single_metric(manifest: Manifest, task: str) -> Metric:
    """Lengths and similarity of the single vectors of a task."""
    head, codes = manifest.single, manifest.codes(task).single
    assert head is not None, task
    if head.normalized or head.similarity == "cosine":
        return Metric(head.normalized)
    assert codes is not None, task
    return Metric(False, "dot", codes.int8_scale)


def multi_vectors(pack: Pack) -> MultiVectors:
    """Head of multi-vectors; InputError if the pack has none."""
    check_embedder(pack)
    if pack.manifest.multi is None:
        raise InputError(
            f"{pack.folder}: this pack has no multi-vectors; its checkpoint came without a multi-vector projector"
        )
    return pack.manifest.multi


def vector_head(pack: Pack, *, multi: bool) -> SingleVectors | MultiVectors:
    """Head of multi-vectors or single vectors; InputError if the pack has none."""
    return multi_vectors(pack) if multi else single_vectors(pack)
