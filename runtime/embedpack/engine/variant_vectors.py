"""Items to vectors in the precision of a call: graph outputs, truncation, codebooks, empty texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedpack.engine.call_options import OpenVariant
from embedpack.engine.call_stats import CallStats
from embedpack.engine.chunk_means import chunk_means
from embedpack.engine.encoder import Encoder
from embedpack.engine.options import EncodeCall, TaskItems
from embedpack.errors import InputError, PackError
from embedpack.host.memory import check_memory
from embedpack.inputs.documents import Document
from embedpack.inputs.items import Image, Item
from embedpack.pack.codebooks import Codebooks, open_codebooks
from embedpack.pack.graph_io import SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS, output_for
from embedpack.pack.input_recipes import QwenImage
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import (
    DTYPES,
    Codes,
    DirectionError,
    Precision,
    check_unit,
    check_vectors,
    code_width,
    is_low_bit,
    quantize,
    truncate,
    unit,
)
from embedpack.vectors.embeddings import Embeddings
from embedpack.vectors.ids import Ids
from embedpack.vectors.metric import UNIT, Metric
from embedpack.vectors.multi_embeddings import MultiEmbeddings, offsets_of


class VariantVectors:
    """Vectors of a loaded variant; `encoder` has its graphs."""

    def __init__(self, variant: OpenVariant, encoder: Encoder) -> None:
        self.encoder = encoder
        self._variant = variant
        self._manifest = variant.pack.manifest
        self._codebooks: dict[str, Codebooks] = {}

    def single(self, items: list[Item], call: EncodeCall, stats: CallStats) -> Embeddings:
        """Single vectors of items in their order; a text without tokens has a row of zeros, or is left out."""
        codebook, metric = self._codebook(call, tokens=False), call.metric
        output = output_for(SENTENCE_EMBEDDING, call.precision)
        groups = self._with_tokens(items, call, stats)
        results = []
        for group in groups:
            values = self.encoder.run(group.items, output, group.options, stats)
            exact = self._to_precision(values, call.precision, codebook, group.items[0].number, metric)
            results.append(truncate(exact, call.precision, call.dimensions, normalized=metric.normalized))
        if len(results) == 1 and len(results[0]) == len(items):
            codes = results[0]  # without a copy
        else:
            codes = np.zeros((len(items), code_width(call.precision, call.dimensions)), DTYPES[call.precision])
            for group, result in zip(groups, results, strict=True):
                codes[group.rows] = result
        kept = _kept(items, groups, call)
        codes = codes if len(kept) == len(items) else codes[kept]
        ids, pixels = _ids(items, kept, call), call.options.max_pixels
        return Embeddings(codes, call.precision, call.dimensions, call.space, pixels, codebook, ids, metric)

    def multi(self, items: list[Item], call: EncodeCall, stats: CallStats) -> MultiEmbeddings:
        """Multi-vectors of items in their order; a text without tokens has one row of zeros, or is left out."""
        codebook = self._codebook(call, tokens=True)
        self._check_result_size(items, call)
        # Tokens are pooled as float32 vectors in every precision.
        pooled = call.options.pool_factor > 1
        output = output_for(TOKEN_EMBEDDINGS, "float32" if pooled else call.precision)
        quantizer: float | Codebook | None = codebook
        if pooled and call.precision == "int8":
            # All spaces of a pack share the scale.
            codes_of_space = self._manifest.codes(next(iter(call.by_task))).multi
            assert codes_of_space is not None
            quantizer = codes_of_space.int8_scale
        empty = np.zeros((1, code_width(call.precision, call.dimensions)), DTYPES[call.precision])
        codes: list[Codes] = [empty] * len(items)
        groups = self._with_tokens(items, call, stats)
        for group in groups:
            for row, codes_of_item in zip(
                group.rows, self._token_codes(group, output, call, quantizer, stats), strict=True
            ):
                codes[row] = codes_of_item
        kept = _kept(items, groups, call)
        joined = np.concatenate([codes[row] for row in kept]) if kept else empty[:0]
        offsets = offsets_of([len(codes[row]) for row in kept])
        ids, pixels = _ids(items, kept, call), call.options.max_pixels
        return MultiEmbeddings(joined, offsets, call.precision, call.dimensions, call.space, pixels, codebook, ids)

    def chunks(self, documents: Sequence[Document], call: EncodeCall, stats: CallStats) -> Embeddings:
        """Single vectors of the chunks of documents, in their order; the call has one task."""
        ((task, options),) = call.by_task.items()
        metric, head = call.metric, self._manifest.single
        assert head is not None
        means = chunk_means(self.encoder, documents, head.dimensions, options, stats)
        codebook = self._codebook(call, tokens=False)
        codes_of_space = self._manifest.codes(task).single
        assert codes_of_space is not None
        quantizer = codes_of_space.int8_scale if call.precision == "int8" else codebook
        vectors = unit(means) if metric.normalized else means
        exact = self._to_precision(vectors, call.precision, quantizer, metric=metric)
        codes = truncate(exact, call.precision, call.dimensions, normalized=metric.normalized)
        return Embeddings(codes, call.precision, call.dimensions, call.space, codebook=codebook, metric=metric)

    def _with_tokens(self, items: list[Item], call: EncodeCall, stats: CallStats) -> list[TaskItems]:
        """Items with tokens by task; the others are counted. If they are errors, the encoder raises them."""
        groups = list(call.groups(items))
        if call.options.on_empty == "error":
            return groups
        kept = []
        for group in groups:
            full = np.array(self.encoder.processor.has_tokens(group.items, group.options.prompt), np.bool_)
            stats.empty += int((~full).sum())
            if full.any():
                present = [item for item, has_tokens in zip(group.items, full, strict=True) if has_tokens]
                kept.append(TaskItems(present, group.options, group.rows[full]))
        return kept

    def _token_codes(
        self, group: TaskItems, output: str, call: EncodeCall, quantizer: float | Codebook | None, stats: CallStats
    ) -> list[Codes]:
        """Codes of the tokens of each item of a group, [tokens, width]."""
        vectors = self.encoder.run_tokens(group.items, output, group.options, stats)
        whole = self._to_precision(np.concatenate(vectors), call.precision, quantizer)
        joined = truncate(whole, call.precision, call.dimensions)
        ends = np.cumsum([len(rows) for rows in vectors])[:-1]
        return np.split(joined, ends)

    def _codebook(self, call: EncodeCall, *, tokens: bool) -> Codebook | None:
        """The codebook that all tasks of a call share; None: the precision needs none."""
        if not is_low_bit(call.precision):
            return None
        by_id: dict[str, Codebook] = {}
        for task in call.by_task:
            if task not in self._codebooks:
                self._codebooks[task] = open_codebooks(self._variant.pack, task)
            codebooks = self._codebooks[task]
            codebook = codebooks.multi if tokens else codebooks.single
            assert codebook is not None, task
            by_id[codebook.id] = codebook
        if len(by_id) > 1:
            raise InputError(
                f"the tasks {', '.join(call.by_task)} have codebooks of their own, so one result cannot hold "
                f"{call.precision} codes of them; encode them in a call each, or as float32, float16 or int8"
            )
        return by_id.popitem()[1]

    def _to_precision(
        self,
        values: Codes,
        precision: Precision,
        quantizer: float | Codebook | None,
        first: int = 0,
        metric: Metric = UNIT,
    ) -> Codes:
        """Convert graph output to a precision with a scale or a codebook; `first` is the number of its first row.

        PackError if a vector has no direction, as every text and image has one, or is float32 and has not the length 1
        that the metric promises.
        """
        try:
            if values.dtype == np.float32 and metric.normalized:
                check_unit(values, first)
            elif quantizer is None:
                check_vectors(values, first)
            if quantizer is not None:
                return quantize(metric.of_codes(values, precision), precision, quantizer, first)
        except DirectionError as cause:
            folder = self._variant.pack.folder
            raise PackError(
                f"{folder}: {self._variant.name} computed a vector that is zero, not finite or not of length 1; "
                f"run: embedpack verify {folder}"
            ) from cause
        return values

    def _check_result_size(self, items: Sequence[Item], call: EncodeCall) -> None:
        """Refuse images whose multi-vectors would not fit the memory, before the first is opened."""
        image = self._manifest.image
        count = sum(isinstance(item, Image) for item in items)
        if not isinstance(image, QwenImage) or not count:
            return
        tokens = (call.options.max_pixels or image.max_pixels) // (image.patch_size * image.merge_size) ** 2
        needed = count * tokens * call.dimensions * np.dtype(np.float32).itemsize
        check_memory(needed, f"the multi-vectors of {count} images", "embed them in several calls")


def _kept(items: Sequence[Item], groups: Sequence[TaskItems], call: EncodeCall) -> Sequence[int]:
    """Positions of the items that have a vector: all, unless empty texts are skipped."""
    if call.options.on_empty != "skip":
        return range(len(items))
    return sorted(int(row) for group in groups for row in group.rows)


def _ids(items: Sequence[Item], kept: Sequence[int], call: EncodeCall) -> Ids:
    """Positions of the kept items in the call, as ids, if empty texts are skipped; else None."""
    return tuple(str(items[row].number) for row in kept) if call.options.on_empty == "skip" else None
