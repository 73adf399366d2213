"""Heads of a pack, or the error of calls that need one which it does not have."""

from __future__ import annotations

from embedpack.errors import InputError
from embedpack.pack.folder import Pack
from embedpack.pack.manifest import Manifest, MultiVectors, SingleVectors
from embedpack.vectors.metric import Metric


def check_embedder(pack: Pack) -> None:
    """Raise InputError for a pack that gives scores only."""
    if pack.manifest.kind == "reranker":
        raise InputError(f"{pack.folder}: this pack gives scores, not vectors; open it with Reranker")


def single_vectors(pack: Pack) -> SingleVectors:
    """Head of single vectors; InputError if the pack has none."""
    check_embedder(pack)
    if pack.manifest.single is None:
        raise InputError(f"{pack.folder}: this pack has no single vectors; call encode_multi, or embed --multi")
    return pack.manifest.single


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
