"""Reranker: opens a pack, and scores documents for a query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from embedpack.embedder import Embedder
from embedpack.engine.call_stats import CallStats
from embedpack.engine.devices import choose_device
from embedpack.engine.graph_scores import GraphScorer, open_reader
from embedpack.engine.loaded_pack import LoadedPack
from embedpack.engine.loading import open_encoder
from embedpack.engine.options import EncodeSettings, OnLong, ScoreSettings, check_threads
from embedpack.engine.prepared import cache_folder
from embedpack.engine.variant_choice import choose_variant
from embedpack.errors import InputError, ItemError, OptionError
from embedpack.host.cores import available_cores
from embedpack.host.memory import memory_errors
from embedpack.inputs.pair_texts import Document, check_documents, check_query
from embedpack.pack.folder import read_pack
from embedpack.pack.prompts import document_prompt, query_prompt
from embedpack.pack.score_recipes import ListScores, MaxSimScores, PairScores
from embedpack.pack.strict import AdapterMode
from embedpack.scoring.late_interaction import maxsim
from embedpack.vectors.arrays import Float32

# Documents whose multi-vectors are in memory at a time.
MAXSIM_DOCUMENTS = 256


@dataclass(frozen=True)
class Ranked:
    """A document of a ranking: its position in the call, from 0, and its score."""

    index: int
    score: float


class Scorer(Protocol):
    """Scores of checked texts by a loaded variant."""

    def score(self, query: str, documents: list[Document], settings: ScoreSettings, stats: CallStats) -> Float32:
        """Scores, float32 [documents]; counts are added to `stats`."""


class MaxSimScorer:
    """Scores by MaxSim of the multi-vectors of an embedder."""

    def __init__(self, model: Embedder, scores: MaxSimScores | None) -> None:
        """`scores` None: the prompts are those of a search. InputError if the pack has no multi-vectors."""
        if model.pack.manifest.multi is None:
            raise InputError(
                f"{model.pack.folder}: this pack has neither scores nor multi-vectors, so it cannot score documents; "
                "open it with Embedder and call similarity, or export a reranker"
            )
        task = model.task if scores is None or model.task is not None else scores.task
        if task is None:
            raise OptionError(f"pass task=, one of: {', '.join(model.tasks)}")
        prompts = model.pack.manifest.tasks[task]
        of_query, of_document = (
            (query_prompt(prompts), document_prompt(prompts))
            if scores is None
            else (scores.query_prompt, scores.document_prompt)
        )
        self._model = model
        self._query = EncodeSettings(task=task, prompt_name=of_query, multi=True)
        self._task, self._document_prompt = task, of_document
        self._per_query_token = scores is not None and scores.per_query_token

    def score(self, query: str, documents: list[Document], settings: ScoreSettings, stats: CallStats) -> Float32:
        """Scores of checked texts, float32 [documents]; counts are added to `stats`. Errors as of `encode_multi`."""
        if settings.instruction is not None:
            raise OptionError("instruction is of no use: this model takes none; leave it out")
        vectors = self._model.encode_multi_part([query], self._query, self._model.stats(1))
        divisor = len(vectors.codes) if self._per_query_token else 1
        of_documents = EncodeSettings(task=self._task, prompt_name=self._document_prompt, on_long=settings.on_long)
        scores = np.empty(len(documents), np.float32)
        for start in range(0, len(documents), MAXSIM_DOCUMENTS):
            rows = slice(start, start + MAXSIM_DOCUMENTS)
            stats.ids = [str(number) for number in range(len(documents))[rows]]
            try:
                found = self._model.encode_multi_part([*documents[rows]], of_documents, stats)
            except ItemError as cause:
                raise ItemError("document", start + cause.number, cause.problem) from cause
            scores[rows] = maxsim(vectors, found)[0] / np.float32(divisor)
        return scores


class Reranker(LoadedPack[Scorer]):
    """A loaded variant of a pack that scores documents for a query.

    Packs of pairs compute each document together with the query, and packs with multi-vectors score by MaxSim: the
    score of a document does not depend on the other documents. Packs of lists (jina-reranker-v3) compute a query with
    all of its documents: a score depends on the whole list and its order, and on nothing else.

    Attributes:
        pack: the opened pack with its manifest.
        variant: name of the loaded variant, e.g. "default-int8".
        device: "cpu" or "cuda".
    """

    @memory_errors()
    def __init__(  # noqa: PLR0913 - options have names, not an object, as those of `Embedder`
        self,
        pack: str | Path,
        *,
        task: str | None = None,
        weights: str | None = None,
        adapters: AdapterMode | None = None,
        variant: str | None = None,
        threads: int | None = None,
        prepared: bool = True,
        device: str = "cpu",
    ) -> None:
        """Open a pack; arguments and errors as of `Embedder`.

        Raises:
            InputError: the pack gives neither scores nor multi-vectors.
        """
        opened = read_pack(pack)
        scores = opened.manifest.score
        if isinstance(scores, PairScores | ListScores):
            self.device = choose_device(opened, device, weights, variant)
            self.pack, self.variant = opened, choose_variant(opened, variant, task, weights, adapters, self.device)
            chosen = opened.manifest.variants[self.variant]
            check_threads(threads)
            name = chosen.task or task or opened.manifest.unnamed_task
            if name is None:
                raise OptionError(f"pass task=, one of: {', '.join(opened.manifest.tasks)}")
            cache = cache_folder() if prepared else None
            encoder = open_encoder(opened, chosen, threads or available_cores(), cache, self.device)
            reader = open_reader(opened.folder, scores, encoder.processor)
            self._loaded = GraphScorer(reader, encoder, chosen.adapter_of(name))
            return
        model = Embedder(
            pack,
            task=task,
            weights=weights,
            adapters=adapters,
            variant=variant,
            threads=threads,
            prepared=prepared,
            device=device,
        )
        self.pack, self.variant, self.device = model.pack, model.variant, model.device
        self._loaded = MaxSimScorer(model, scores)

    @memory_errors()
    def score(
        self, query: str, documents: Iterable[Document], *, instruction: str | None = None, on_long: OnLong = "truncate"
    ) -> Float32:
        """Score documents for a query: float32 [documents], in their order; higher is better.

        Args:
            query: a text.
            documents: texts, or images as of `Embedder.encode` where the pack scores them; special tokens that texts
                spell are read as plain characters.
            instruction: of models that take one: what the query asks for; default: that of the model.
            on_long: "truncate" cuts texts at the limits of the model and logs how many; "error" refuses them. Models
                that read long documents in windows cut none.

        Raises:
            InputError: a text or an option cannot be used.
            CapacityError: a document does not fit the memory.
        """
        settings = ScoreSettings(on_long=on_long, instruction=instruction)
        checked = self._checked(documents)
        with self.stats(len(checked)) as stats:
            scores = self.score_part(query, checked, settings, stats)
        stats.log()
        return scores

    def rank(
        self,
        query: str,
        documents: Iterable[Document],
        top_n: int | None = None,
        *,
        instruction: str | None = None,
        on_long: OnLong = "truncate",
    ) -> list[Ranked]:
        """Rank documents for a query: the best `top_n`, or all, best first, those of equal scores by their index.

        Other arguments and errors as of `score`.
        """
        check_top_n(top_n)
        return ranked(self.score(query, documents, instruction=instruction, on_long=on_long), top_n)

    def score_part(
        self, query: str, documents: Sequence[Document], settings: ScoreSettings, stats: CallStats
    ) -> Float32:
        """Score documents as `score`; counts are added to `stats`.

        Nothing is logged, and no progress begins or ends, so that several calls can share them.
        """
        return self._graphs.score(check_query(query), self._checked(documents), settings, stats)

    def _checked(self, documents: object) -> list[Document]:
        manifest = self.pack.manifest
        return check_documents(documents, images=manifest.image is not None and manifest.kind == "reranker")

    def stats(self, total: int | None) -> CallStats:
        """Counts and progress of one or several calls over `total` documents; None: unknown."""
        return CallStats(self.pack.manifest.text.max_tokens, total, label="scoring")


def check_top_n(top_n: object) -> None:
    """Raise OptionError unless `top_n` is None or a whole number of at least 1."""
    if top_n is not None and (isinstance(top_n, bool) or not isinstance(top_n, int) or top_n < 1):
        raise OptionError(f"top_n is {top_n!r}; it must be a whole number of at least 1")


def ranked(scores: Float32, top_n: int | None = None) -> list[Ranked]:
    """The best `top_n` of scores [n], or all, best first, equal ones by their index."""
    order = np.argsort(-scores, kind="stable")[:top_n]
    return [Ranked(int(row), float(scores[row])) for row in order]
