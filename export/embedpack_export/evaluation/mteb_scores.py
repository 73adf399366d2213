"""Scores of mteb's tasks, for the reference and for variants, each wrapped as an encoder of mteb.

mteb returns one score for a task, not one for each query. So there is a difference, but no interval and no test.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np

from embedpack import Embedder, Embeddings
from embedpack.errors import InputError, MissingExtraError
from embedpack.pack.folder import Pack
from embedpack.pack.heads import single_metric, single_vectors
from embedpack.scoring.cosine import similarity_factors
from embedpack.vectors.arrays import Float32
from embedpack_export.evaluation.results import MtebResult
from embedpack_export.evaluation.scoring.encoding import encode
from embedpack_export.evaluation.sets.assignment import task_of, variants_of
from embedpack_export.evaluation.sets.data import Kind
from embedpack_export.evaluation.sets.empty_text_filter import EmptyTextFilter
from embedpack_export.reference.protocol import Reference

# Encodes texts with the prompt of a name: float32 [texts, dimensions].
Encode = Callable[[Sequence[str], str], Float32]

logger = logging.getLogger("embedpack")


class MtebEncoder:
    """Encoder in the sense of mteb (its `EncoderProtocol`)."""

    def __init__(self, name: str, encode_texts: Encode) -> None:
        """Wrap a function that returns unit vectors, under a name that mteb prints."""
        self._name = name
        self._encode = encode_texts

    @property
    def mteb_model_meta(self) -> Any:
        """The name, without any other metadata."""
        return _mteb().models.ModelMeta.create_empty({"name": f"embedpack/{self._name}", "revision": "local"})

    def encode(
        self,
        inputs: Iterable[Mapping[str, Sequence[str]]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **options: Any,  # mteb passes batch size and progress bar to all encoders
    ) -> Float32:
        """Encode the texts of all batches: documents with the prompt of documents, other texts with that of queries.

        Raises:
            InputError: a batch holds no texts.
        """
        texts: list[str] = []
        for batch in inputs:
            if "text" not in batch:
                names = ", ".join(batch)
                raise InputError(f"{task_metadata.name} ({hf_subset}, {hf_split}): its inputs are {names}, not texts")
            texts += batch["text"]
        return self._encode(texts, "document" if getattr(prompt_type, "value", None) == "document" else "query")

    def similarity(self, embeddings1: Float32, embeddings2: Float32) -> Float32:
        """Cosines of all pairs, [n, m]."""
        return np.asarray(embeddings1) @ np.asarray(embeddings2).T

    def similarity_pairwise(self, embeddings1: Float32, embeddings2: Float32) -> Float32:
        """Cosines of rows, [n]."""
        return (np.asarray(embeddings1) * np.asarray(embeddings2)).sum(-1)


def mteb_scores(
    pack: Pack, reference: Reference, names: Sequence[str], variants: Sequence[str], threads: int | None
) -> list[MtebResult]:
    """Score full float32 vectors of variants (all, if none is named) on the named tasks of mteb.

    Raises:
        InputError: mteb has no such task, its data cannot be loaded, or the pack has no task for it.
        MissingExtraError: mteb is not installed.
    """
    return [result for name in names for result in scores_of(pack, reference, _task(name), variants, threads)]


def scores_of(
    pack: Pack, reference: Reference, mteb_task: Any, variants: Sequence[str], threads: int | None
) -> list[MtebResult]:
    """Score one task object of mteb; arguments as for `mteb_scores`."""
    name, kind = mteb_task.metadata.name, kind_of(mteb_task.metadata)
    task = task_of(kind, list(pack.manifest.tasks))
    if task is None:
        raise InputError(f"--mteb {name}: none of the pack's tasks is known to be for sets of the kind {kind}")
    logger.info("mteb: %s, reference", name)
    empty, dimensions = EmptyTextFilter.of(pack), single_vectors(pack).dimensions

    def exact_vectors(texts: Sequence[str], side: str) -> Float32:
        vectors = reference.single(task, texts, pack.manifest.tasks[task].prompt(side))
        space, metric = pack.manifest.space(task), single_metric(pack.manifest, task)
        return similarity_factors(Embeddings(vectors, "float32", dimensions, space, metric=metric))

    exact = _score(mteb_task, MtebEncoder("reference", zeros_for_empty(exact_vectors, empty, dimensions)))
    reference.close()
    results = []
    for variant in variants_of(pack.manifest, task, variants):
        logger.info("mteb: %s, %s", name, variant)
        encode_texts = zeros_for_empty(_encoder(pack, task, variant, threads), empty, dimensions)
        score = _score(mteb_task, MtebEncoder(variant, encode_texts))
        results.append(
            MtebResult(
                name=name,
                task=task,
                variant=variant,
                reference=round(exact, 4),
                score=round(score, 4),
                difference=round(score - exact, 4),
            )
        )
    return results


def zeros_for_empty(encode_texts: Encode, empty: EmptyTextFilter, dimensions: int) -> Encode:
    """Give vectors of zeros to empty texts, as mteb wants a vector of every text; their number is logged."""

    def encode_all(texts: Sequence[str], side: str) -> Float32:
        full = np.array(empty.has_tokens(texts), np.bool_)
        vectors = np.zeros((len(texts), dimensions), np.float32)
        if full.any():
            vectors[full] = encode_texts(list(compress(texts, full)), side)
        if not full.all():
            logger.warning("mteb: %d of %d texts are empty: their vectors are zeros", (~full).sum(), len(texts))
        return vectors

    return encode_all


def kind_of(metadata: Any) -> Kind:
    """Return the kind of evaluation sets that a task of mteb belongs to."""
    if metadata.type == "STS":
        return "sts"
    return "code" if "Programming" in (metadata.domains or ()) else "retrieval"


def _encoder(pack: Pack, task: str, variant: str, threads: int | None) -> Encode:
    model = Embedder(pack.folder, variant=variant, threads=threads)
    return lambda texts, prompt_name: similarity_factors(encode(model, task, texts, prompt_name))


def _score(mteb_task: Any, encoder: MtebEncoder) -> float:
    """Return the main score in points, the mean over splits and languages."""
    try:
        results = _mteb().evaluate(encoder, mteb_task, cache=None, show_progress_bar=False)
    except OSError as cause:
        raise InputError(f"--mteb {mteb_task.metadata.name}: its data cannot be loaded: {cause}") from cause
    (result,) = results.task_results
    return 100 * float(result.get_score())


def _task(name: str) -> Any:
    try:
        return _mteb().get_task(name)
    except KeyError as cause:
        raise InputError(f"--mteb {name}: mteb has no such task ({cause.args[0]})") from cause


def _mteb() -> Any:
    try:
        import mteb
        import mteb.models
    except ModuleNotFoundError as missing:
        raise MissingExtraError("mteb", str(missing.name)) from missing
    return mteb
