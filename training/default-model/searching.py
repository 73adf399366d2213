"""The recipe of the tasks that search, `retrieval` and `code`: pairs of a query and its passage."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from encoder import NO_PROMPTS, PROMPTS, Encoder, encode
from losses import contrastive, drift
from scoring import ndcg_at_10, scores
from settings import Settings
from texts import Pair, PromptedSet, endless, read_pairs, shuffled
from torch import Tensor

WEB_WORDS = 10  # a web query is short
WEB_FORMS = ("{}", "{}", "python {}", "{} python", "{} in python", "how to {} in python")


@dataclass(frozen=True)
class Source:
    """A training set, its share of the batches, and the share of its pairs that are rewritten as web queries."""

    folder: str
    share: float
    web: float = 0.0


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


def web_query(pair: Pair, order: random.Random) -> Pair:
    """The docstring's first sentence as people type it; half of the functions get the docstring back, as in real code.

    Only a Python function whose text starts with its signature can take a docstring; another stays as it is.
    """
    first = re.split(r"(?<=[.!?])\s", pair.query, maxsplit=1)[0]
    words = re.sub(r"[^\w\s]", " ", first).lower().split()[:WEB_WORDS]
    query = order.choice(WEB_FORMS).format(" ".join(words))
    head, newline, body = pair.passage.partition(":\n")
    if newline and order.random() < 0.5:
        return Pair(query, f'{head}:\n    """{pair.query}"""\n{body}')
    return Pair(query, pair.passage)


def with_prompts(pairs: Sequence[Pair]) -> list[Pair]:
    """The texts as the model gets them."""
    return [Pair(PROMPTS.query + pair.query, PROMPTS.passage + pair.passage) for pair in pairs]


@dataclass(frozen=True)
class Searching:
    """The sets of one task, apart in what is trained on and what is held out."""

    sources: tuple[Source, ...]
    settings: Settings
    train: list[list[Pair]] = field(repr=False)
    held_out: list[list[Pair]] = field(repr=False)

    @classmethod
    def read(cls, task: str, folder: Path, settings: Settings) -> Searching:
        """Read the task's sets below `folder`."""
        sources = SOURCES[task]
        sets = [shuffled(read_pairs(folder / source.folder), settings.seed) for source in sources]
        cut = settings.held_out
        return cls(sources, settings, [pairs[cut:] for pairs in sets], [pairs[:cut] for pairs in sets])

    def losses(self, encoder: Encoder) -> Iterator[Tensor]:
        """One loss a step, from a batch of a single set: passages of one kind are harder to tell apart."""
        order = random.Random(self.settings.seed)
        rewriting = random.Random(self.settings.seed)
        streams = [endless(pairs, self.settings.batch, order) for pairs in self.train]
        places = range(len(streams))
        while True:
            place = order.choices(places, weights=[source.share for source in self.sources])[0]
            share = self.sources[place].web
            batch = [
                web_query(pair, rewriting) if share and rewriting.random() < share else pair
                for pair in next(streams[place])
            ]
            yield self.loss(encoder, batch)

    def prompted(self, count: int) -> Iterator[PromptedSet]:
        """Pairs for the projector: `count` for training, drawn by the shares, and those held out."""
        order = random.Random(self.settings.seed)
        for source, pairs, unseen in zip(self.sources, self.train, self.held_out, strict=True):
            drawn = [
                web_query(pair, order) if source.web and order.random() < source.web else pair
                for pair in pairs[: round(count * source.share)]
            ]
            yield PromptedSet(source.folder, with_prompts(drawn), with_prompts(unseen))

    def loss(self, encoder: Encoder, batch: Sequence[Pair]) -> Tensor:
        """Find the right passage, and stay near the backbone, which sees the first pairs without prompts."""
        queries = [PROMPTS.query + pair.query for pair in batch]
        vectors = encoder(queries + [PROMPTS.passage + pair.passage for pair in batch])
        found = contrastive(vectors[: len(batch)], vectors[len(batch) :], self.settings.temperature)
        near = min(self.settings.anchors, len(batch))
        with encoder.without_adapter():
            plain = [pair.query for pair in batch[:near]] + [pair.passage for pair in batch[:near]]
            reference = encode(encoder, plain, NO_PROMPTS.query)
        kept = list(range(near)) + list(range(len(batch), len(batch) + near))
        return found + self.settings.closeness * drift(vectors[kept], reference)

    def report(self, encoder: Encoder) -> Iterator[str]:
        """nDCG@10 among pairs that training never sees: what to choose settings by."""
        for source, pairs in zip(self.sources, self.held_out, strict=True):
            queries = encode(encoder, [pair.query for pair in pairs], PROMPTS.query)
            passages = encode(encoder, [pair.passage for pair in pairs], PROMPTS.passage)
            gold = [{index} for index in range(len(pairs))]
            figures = (
                f"{ndcg_at_10(scores(queries, passages, size), gold).mean().item():.4f} at {size}" for size in (384, 64)
            )
            yield f"{source.folder}: nDCG@10 {', '.join(figures)}"
