"""Recipe of the search tasks, `retrieval` and `code`: pairs of a query and its passage."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from training.default_model.encoder import NO_PROMPTS, PROMPTS, Encoder, encode
from training.default_model.losses import contrastive, similarity_change
from training.default_model.scoring import ndcg_at_10, scores
from training.default_model.settings import Settings
from training.default_model.training_sets import Pair, PromptedSet, endless, read_pairs, shuffled, with_prompts

MAX_WEB_WORDS = 10
WEB_FORMS = ("{}", "{}", "python {}", "{} python", "{} in python", "how to {} in python")
REPORTED_DIMENSIONS = (384, 64)


@dataclass(frozen=True)
class Source:
    """A training set of a task."""

    folder: str
    share: float  # of the batches
    web: float = 0.0  # share of the pairs whose query is rewritten as a web query


SOURCES = {
    "retrieval": (
        Source("debian-desc-en", 0.5),
        Source("python-docstring-code", 0.3),
        Source("nl2bash-train", 0.2),
    ),
    "code": (
        Source("python-docstring-code", 0.6, web=0.6),
        Source("nl2bash-train", 0.3),
        Source("java-cs-train", 0.1),
    ),
}


def web_query(pair: Pair, rng: random.Random) -> Pair:
    """Rewrite the docstring's first sentence as a web query; half of the functions get the docstring back.

    Only a Python function whose text starts with its signature can take a docstring; others stay as they are.
    """
    first = re.split(r"(?<=[.!?])\s", pair.query, maxsplit=1)[0]
    words = re.sub(r"[^\w\s]", " ", first).lower().split()[:MAX_WEB_WORDS]
    query = rng.choice(WEB_FORMS).format(" ".join(words))
    head, newline, body = pair.passage.partition(":\n")
    if newline and rng.random() < 0.5:
        return Pair(query, f'{head}:\n    """{pair.query}"""\n{body}')
    return Pair(query, pair.passage)


def web_queries(pairs: Sequence[Pair], share: float, rng: random.Random) -> list[Pair]:
    """Rewrite a share of the pairs."""
    return [web_query(pair, rng) if share and rng.random() < share else pair for pair in pairs]


@dataclass(frozen=True)
class SearchRecipe:
    """Sets of one search task, each split into training and held-out pairs."""

    sources: tuple[Source, ...]
    settings: Settings
    train: list[list[Pair]] = field(repr=False)
    held_out: list[list[Pair]] = field(repr=False)

    @classmethod
    def read(cls, task: str, folder: Path, settings: Settings) -> SearchRecipe:
        """Read the task's sets below `folder`."""
        sources = SOURCES[task]
        sets = [shuffled(read_pairs(folder / source.folder), settings.seed) for source in sources]
        cut = settings.held_out
        return cls(sources, settings, [pairs[cut:] for pairs in sets], [pairs[:cut] for pairs in sets])

    def losses(self, encoder: Encoder) -> Iterator[Tensor]:
        """One loss a step; a batch is of a single set, whose passages are hard negatives for each other."""
        rng = random.Random(self.settings.seed)
        rewriting = random.Random(self.settings.seed)
        streams = [endless(pairs, self.settings.batch, rng) for pairs in self.train]
        indices = range(len(streams))
        while True:
            index = rng.choices(indices, weights=[source.share for source in self.sources])[0]
            share = self.sources[index].web
            yield self.loss(encoder, web_queries(next(streams[index]), share, rewriting))

    def prompted(self, count: int) -> Iterator[PromptedSet]:
        """Pairs for the projector: `count` for training, divided by the shares, and the held-out ones."""
        rng = random.Random(self.settings.seed)
        for source, pairs, held_out in zip(self.sources, self.train, self.held_out, strict=True):
            drawn = web_queries(pairs[: round(count * source.share)], source.web, rng)
            yield PromptedSet(source.folder, with_prompts(drawn, PROMPTS), with_prompts(held_out, PROMPTS))

    def loss(self, encoder: Encoder, batch: Sequence[Pair]) -> Tensor:
        """InfoNCE, plus the change of similarities from the backbone, which encodes without prompts."""
        queries = [PROMPTS.query + pair.query for pair in batch]
        vectors = encoder(queries + [PROMPTS.passage + pair.passage for pair in batch])
        ranking_loss = contrastive(vectors[: len(batch)], vectors[len(batch) :], self.settings.temperature)
        count = min(self.settings.similarity_pairs, len(batch))
        with encoder.without_adapter():
            texts = [pair.query for pair in batch[:count]] + [pair.passage for pair in batch[:count]]
            reference = encode(encoder, texts, NO_PROMPTS.query)
        compared = list(range(count)) + list(range(len(batch), len(batch) + count))
        return ranking_loss + self.settings.similarity_weight * similarity_change(vectors[compared], reference)

    def report(self, encoder: Encoder) -> Iterator[str]:
        """nDCG@10 on held-out pairs, one line a set."""
        for source, pairs in zip(self.sources, self.held_out, strict=True):
            queries = encode(encoder, [pair.query for pair in pairs], PROMPTS.query)
            passages = encode(encoder, [pair.passage for pair in pairs], PROMPTS.passage)
            relevant = [{index} for index in range(len(pairs))]
            values = (
                f"{ndcg_at_10(scores(queries, passages, size), relevant).mean().item():.4f} at {size}"
                for size in REPORTED_DIMENSIONS
            )
            yield f"{source.folder}: nDCG@10 {', '.join(values)}"
