"""Training sets of pairs for rerankers and ColBERT, and the held-out part of each."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.default_model.search_recipe import web_queries
from training.default_model.settings import SEED
from training.default_model.training_sets import Pair, read_pairs, shuffled

HELD_OUT = 400  # pairs of each set that nothing is trained on; the adapters of the default model hold out the same ones
MIN_WORDS, MAX_WORDS = 5, 25  # words of a sentence that becomes a query
MAX_QUESTION_WORDS = 14
WORD_LOSS = 0.15
QUESTION_FORMS = (
    "What {}?", "What is {}?", "Which {}?", "How does {}?", "How many {}?", "Who {}?", "When {}?", "Where {}?", "{}",
)  # fmt: skip
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Source:
    """A training set and the number of groups made from it."""

    name: str
    folder: str
    groups: int
    web: float = 0.0  # share of the pairs whose query is rewritten as a web query
    sentences: bool = False  # queries are sentences taken out of the documents
    questions: bool = False  # queries are made of words of the documents
    joined: int = 1  # documents that are joined to a long one
    skip: int = 0  # training pairs that other sources of the same folder take


SOURCES = (
    Source("debian-desc-en", "debian-desc-en", 1600),
    Source("debian-sentences", "debian-desc-en", 700, sentences=True),
    Source("python-docstring-code", "python-docstring-code", 600, web=0.5),
    Source("nl2bash-train", "nl2bash-train", 1600),
    Source("java-cs-train", "java-cs-train", 100),
)


@dataclass(frozen=True)
class SplitPairs:
    """Pairs of one source, for training and held out."""

    train: list[Pair]
    held_out: list[Pair]


def read_source(source: Source, folder: Path, seed: int = SEED) -> SplitPairs:
    """Read the pairs of a source in an order that depends on the seed alone.

    A source of sentences starts from the end of the training pairs, so that it shares few documents with the source
    of the same folder.
    """
    pairs = shuffled(read_pairs(folder / source.folder), seed)
    held_out, train = pairs[:HELD_OUT], pairs[HELD_OUT + source.skip :]
    rng = random.Random(seed)
    if source.sentences:
        held_out, train = sentence_pairs(held_out, rng), sentence_pairs(train[::-1], rng)
    if source.questions:
        held_out, train = question_pairs(held_out, rng), question_pairs(train[: 2 * source.groups], rng)
    if source.joined > 1:
        cut = source.groups * source.joined
        held_out, train = (joined_pairs(part, source.joined, rng) for part in (held_out, train[:cut]))
    return SplitPairs(web_queries(train[: source.groups], source.web, rng), held_out)


def sentence_pairs(pairs: Sequence[Pair], rng: random.Random) -> list[Pair]:
    """Pairs of a sentence and the rest of its document (inverse cloze task, Lee et al. 2019, arXiv 1906.00300)."""
    return [pair for passage in pairs if (pair := sentence_pair(passage.passage, rng)) is not None]


def sentence_pair(document: str, rng: random.Random) -> Pair | None:
    """Take a random sentence of 5 to 25 words out of a document; None if it has no such sentence or no other text."""
    sentences = SENTENCE_END.split(document)
    fitting = [index for index, text in enumerate(sentences) if MIN_WORDS <= len(text.split()) <= MAX_WORDS]
    if not fitting or len(sentences) < 2:
        return None
    index = rng.choice(fitting)
    return Pair(sentences[index].rstrip(".!?"), " ".join(sentences[:index] + sentences[index + 1 :]))


def question_pairs(pairs: Sequence[Pair], rng: random.Random) -> list[Pair]:
    """Pairs of a question made of neighbouring words of a sentence, some left out, and the whole document."""
    found = []
    for pair in pairs:
        fitting = [words for text in SENTENCE_END.split(pair.passage) if len(words := text.split()) >= MIN_WORDS]
        if fitting:
            words = rng.choice(fitting)
            length = rng.randint(MIN_WORDS - 1, min(MAX_QUESTION_WORDS, len(words)))
            start = rng.randint(0, len(words) - length)
            kept = [word for word in words[start : start + length] if rng.random() >= WORD_LOSS]
            found.append(Pair(rng.choice(QUESTION_FORMS).format(" ".join(kept).rstrip(".,;:!?")), pair.passage))
    return found


def joined_pairs(pairs: Sequence[Pair], count: int, rng: random.Random) -> list[Pair]:
    """Pairs of a query and a long document: its own and those of the next pairs, in a random order."""
    found = []
    for start in range(0, len(pairs) - count + 1, count):
        several = pairs[start : start + count]
        found.append(Pair(several[0].query, "\n".join(pair.passage for pair in rng.sample(several, count))))
    return found
