"""The work of `embedpack embed`: parts of inputs to vectors with their ids, errors with their places, a summary."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from embedpack.cli.embed_shards import Shards
from embedpack.cli.embed_summary import EmbedSummary, summary_of
from embedpack.cli.embed_windows import Window, windows
from embedpack.corpus.journal import Shard
from embedpack.embedder import Embedder
from embedpack.engine.call_stats import CallStats
from embedpack.engine.options import EncodeSettings
from embedpack.errors import EmbedpackError, InputError, ItemError, OptionError, PackError
from embedpack.inputs.files import InputPart
from embedpack.inputs.items import Image, Text
from embedpack.inputs.splitting import Splitting, chunk_ids
from embedpack.pack.heads import vector_head
from embedpack.progress import SILENT_SECONDS, duration
from embedpack.vectors.embeddings import Embeddings, concatenate
from embedpack.vectors.multi_embeddings import MultiEmbeddings, concatenate_multi
from embedpack.vectors.writing import is_stream, write_stream, write_vectors

logger = logging.getLogger("embedpack")

# Of a corpus that is wrong throughout, the rest is only counted.
SHOWN_ERRORS = 20


class Skipped:
    """Errors of inputs: raised if the first one stops the run, else logged and counted."""

    def __init__(self, *, stop: bool) -> None:
        self.count = 0
        self.stop = stop

    def add(self, error: EmbedpackError) -> None:
        """Handle the error of an input."""
        if self.stop:
            raise error
        self.count += 1
        if self.count <= SHOWN_ERRORS:
            logger.warning("skipped: %s", error)


@dataclass(frozen=True, eq=False)
class _Encoded:
    """Vectors with their ids."""

    ids: Sequence[str]
    vectors: Embeddings | MultiEmbeddings


class EmbedRun:
    """A run over all parts with one model."""

    def __init__(
        self,
        model: Embedder,
        settings: EncodeSettings,
        parts: Sequence[InputPart],
        skipped: Skipped,
        splitting: Splitting | None = None,
    ) -> None:
        """Put a run together; with `splitting`, texts are documents, and their chunks get the vectors."""
        self._splitting = splitting
        self._model = model
        self._settings = settings
        self._parts = parts
        self._skipped = skipped
        self._count = 0

    def write(self, output: Path | None) -> EmbedSummary:
        """Encode all inputs, write the vectors, and log what was done; returns the same facts.

        Raises:
            EmbedpackError: an input or an option cannot be used, or the output cannot be written.
        """
        with self._stats() as stats:
            if is_stream(output):
                write_stream(output, ((each.ids, each.vectors) for each in self._encoded(stats)))
            else:
                assert output is not None
                self._write_whole(output, list(self._encoded(stats)))
        # A short filter in a pipe is silent.
        shown = output is not None or stats.seconds > SILENT_SECONDS
        return self._summary(stats, logging.INFO if shown else logging.DEBUG)

    def write_shards(self, shards: Shards) -> EmbedSummary:
        """Encode the inputs of all shards that are not done, and write each shard; else as `write`."""
        size, done = shards.size, shards.done()
        with self._stats(lambda position: position // size not in done) as stats:
            for number, group in groupby(
                windows(self._parts, self._skipped.add, size), lambda window: window.position // size
            ):
                if number not in done:
                    encoded = [each for window in group for each in self._encode(window, stats)]
                    vectors = sum(len(each.ids) for each in encoded)
                    if vectors:
                        self._write_whole(shards.path(number), encoded)
                    shards.journal.add(Shard(number, vectors))
        self._count = sum(shard.vectors for shard in shards.journal.done.values())
        self._check_count()
        return self._summary(stats, logging.INFO)

    def _write_whole(self, output: Path, encoded: Sequence[_Encoded]) -> None:
        """Write a format that needs all vectors at once."""
        single = [each.vectors for each in encoded if isinstance(each.vectors, Embeddings)]
        multi = [each.vectors for each in encoded if isinstance(each.vectors, MultiEmbeddings)]
        ids = [name for each in encoded for name in each.ids]
        write_vectors(output, ids, concatenate(single) if single else concatenate_multi(multi))

    def _encoded(self, stats: CallStats) -> Iterator[_Encoded]:
        for window in windows(self._parts, self._skipped.add):
            for encoded in self._encode(window, stats):
                self._count += len(encoded.ids)
                yield encoded
        self._check_count()

    def _check_count(self) -> None:
        if not self._count:
            raise InputError("no vectors: every input is empty or was skipped")

    def _encode(self, window: Window, stats: CallStats) -> list[_Encoded]:
        """Encode a window; without the inputs that cannot be used, if these are skipped."""
        if not window.inputs:
            return []
        stats.ids = window.part.ids[window.first : window.first + len(window.inputs)]
        try:
            return [self._vectors(window, stats.ids, stats)]
        except (OptionError, PackError):
            raise
        except EmbedpackError as cause:
            if not isinstance(cause, ItemError) and len(window.inputs) > 1 and not self._skipped.stop:
                middle = len(window.inputs) // 2
                return self._encode_both(window.between(0, middle), window.between(middle), stats)
            self._skipped.add(window.located(cause))
            wrong = cause.number if isinstance(cause, ItemError) else 0
            return self._encode_both(window.between(0, wrong), window.between(wrong + 1), stats)

    def _vectors(self, window: Window, ids: Sequence[str], stats: CallStats) -> _Encoded:
        if self._splitting is not None:
            return self._chunks(window, ids, self._splitting, stats)
        encode = self._model.encode_multi_part if self._settings.multi else self._model.encode_part
        vectors: Embeddings | MultiEmbeddings = encode(window.inputs, self._settings, stats)
        return _Encoded(ids if vectors.ids is None else [ids[int(position)] for position in vectors.ids], vectors)

    def _chunks(self, window: Window, ids: Sequence[str], splitting: Splitting, stats: CallStats) -> _Encoded:
        """Vectors of the chunks of texts, under the ids of `chunk_ids`."""
        texts = [each for each in window.inputs if isinstance(each, str)]
        documents = self._model.split(texts, splitting)
        vectors = self._model.encode_chunks_part(documents, self._settings, stats)
        stats.empty += len(texts) - len(documents)
        return _Encoded([name for each in documents for name in chunk_ids(ids[each.number], each)], vectors)

    def _encode_both(self, first: Window, second: Window, stats: CallStats) -> list[_Encoded]:
        return [*self._encode(first, stats), *self._encode(second, stats)]

    def _stats(self, wanted: Callable[[int], bool] | None = None) -> CallStats:
        """Counts of the run, with the work of all inputs, or of those at `wanted` positions, if it is known."""
        lists = [part.items for part in self._parts if isinstance(part.items, list)]
        if len(lists) < len(self._parts) or self._splitting is not None:
            return self._model.stats(None)
        items = [Text(0, item) if isinstance(item, str) else Image(0, item) for part in lists for item in part]
        if wanted is not None:
            items = [item for position, item in enumerate(items) if wanted(position)]
        stats = self._model.stats(None)
        return self._model.stats(len(items), sum(map(stats.work_of, items)))

    def _summary(self, stats: CallStats, level: int) -> EmbedSummary:
        self._log_summary(stats, level)
        return summary_of(self._model, self._settings, stats, vectors=self._count, skipped=self._skipped.count)

    def _log_summary(self, stats: CallStats, level: int) -> None:
        if stats.truncated and self._settings.on_long == "truncate":
            logger.warning("%s", stats.truncation("--on-long error"))
        if stats.empty:
            what = "vectors are zeros" if self._settings.on_empty == "zero" else "were skipped"
            logger.warning("%d empty texts: %s", stats.empty, what)
        if self._skipped.count:
            logger.warning("%d inputs could not be used and were skipped", self._skipped.count)
        head = vector_head(self._model.pack, multi=self._settings.multi)
        dimensions = self._settings.truncate_dim or head.dimensions
        kind = "multi-vectors" if self._settings.multi else "vectors"
        facts = [f"{self._count} {kind}", f"{dimensions} x {self._settings.precision}"]
        if stats.texts and self._model.prompts:
            facts.append(f"prompt {self._settings.prompt_name or 'none'}")
        logger.log(level, "%s, %s", ", ".join(facts), duration(stats.seconds))
