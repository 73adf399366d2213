"""The recipe of `text-matching`: pairs of texts are to be as alike as a teacher, and people, find them.

People graded Japanese captions only, so most is learned from a multilingual teacher. The backbone reads English; what
it learns of other languages goes as far as its vocabulary does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from encoder import NO_PROMPTS, PROMPTS, Encoder, Prompts, encode
from losses import unlikeness
from scoring import paired, scores, spearman
from settings import Settings
from texts import Graded, Pair, PromptedSet, endless, read_graded, read_pairs, shuffled
from torch import Tensor

GRADED = "jsts-train"
ENGLISH = ("debian-desc-en", "python-docstring-code", "nl2bash-train")
LANGUAGES = tuple(f"debian-desc-{name}" for name in ("de", "fr", "ru", "es", "pl", "pt_BR", "uk", "ja", "ko"))
QUESTIONS = ("jaquad-train-ja",)
TEACHER_PROMPT = "query: "
TEXTS = 1500  # of each set that the teacher compares
UNSEEN_TEXTS = 200
GRADED_SHARE = 0.2  # of the batches
ENGLISH_WEIGHT = 3  # of a set in English among the batches of texts
ALIKE = 4.0  # people's grade of pairs that say nearly the same
REPORTED = (384, 64)


class Asked(NamedTuple):
    """Pairs of texts, and how alike someone found them, on any scale."""

    left: list[str]
    right: list[str]
    grades: Tensor


@dataclass(frozen=True)
class Taught:
    """Texts of one set, the teacher's cosines of them all, and of each text all texts, the nearest (itself) first."""

    texts: list[str]
    alike: Tensor
    nearest: Tensor

    @classmethod
    def by(cls, teacher: Encoder, texts: list[str]) -> Taught:
        """Ask the teacher."""
        vectors = encode(teacher, texts, TEACHER_PROMPT)
        alike = scores(vectors, vectors, vectors.shape[1])
        return cls(texts, alike, alike.argsort(dim=1, descending=True))

    def pairs(self, count: int, order: random.Random) -> Asked:
        """Texts with a partner, drawn evenly by the logarithm of its rank: among random texts hardly any are alike."""
        last = len(self.texts) - 1
        left = order.sample(range(len(self.texts)), count)
        right = [int(self.nearest[place, int(last ** order.random())]) for place in left]
        return Asked([self.texts[p] for p in left], [self.texts[p] for p in right], self.alike[left, right])


def once(pairs: Sequence[Pair]) -> list[Pair]:
    """Every text once: a repeated one would be its own wrong answer."""
    seen: set[str] = set()
    kept = []
    for pair in pairs:
        if seen.isdisjoint(pair):
            kept.append(pair)
        seen.update(pair)
    return kept


def with_prompts(pairs: Sequence[Pair]) -> list[Pair]:
    """The texts as the model gets them."""
    return [Pair(PROMPTS.query + pair.query, PROMPTS.query + pair.passage) for pair in pairs]


@dataclass(frozen=True)
class Matching:
    """The sets, apart in what is trained on and what is held out; without a teacher `taught` and `unseen` are empty."""

    settings: Settings
    train: list[Graded] = field(repr=False)
    held_out: list[Graded] = field(repr=False)
    taught: dict[str, Taught] = field(repr=False)
    unseen: dict[str, Taught] = field(repr=False)
    described: dict[str, list[Pair]] = field(repr=False)

    @classmethod
    def read(cls, folder: Path, settings: Settings, teacher: Encoder | None) -> Matching:
        """Read the sets below `folder`, and let the teacher compare their texts."""
        graded = shuffled(read_graded(folder / GRADED / "pairs.tsv.gz"), settings.seed)
        cut = settings.held_out
        sets = {name: shuffled(read_pairs(folder / name), settings.seed) for name in (*ENGLISH, *LANGUAGES, *QUESTIONS)}
        texts = {name: [pair.query for pair in pairs] for name, pairs in sets.items()}
        texts[GRADED] = list(dict.fromkeys(pair.left for pair in graded[cut:]))
        taught, unseen = {}, {}
        if teacher is not None:
            taught = {name: Taught.by(teacher, one[UNSEEN_TEXTS:][:TEXTS]) for name, one in texts.items()}
            unseen = {name: Taught.by(teacher, one[:UNSEEN_TEXTS]) for name, one in texts.items()}
        described = {name: sets[name][UNSEEN_TEXTS:] for name in LANGUAGES}
        return cls(settings, graded[cut:], graded[:cut], taught, unseen, described)

    def losses(self, encoder: Encoder) -> Iterator[Tensor]:
        """One loss a step: pairs of one set that people or the teacher graded."""
        order = random.Random(self.settings.seed)
        graded = endless(self.train, self.settings.batch, order)
        taught = list(self.taught.values())
        weights = [ENGLISH_WEIGHT if name in ENGLISH else 1 for name in self.taught]
        while True:
            if order.random() < GRADED_SHARE:
                asked = asked_of_people(next(graded))
            else:
                asked = order.choices(taught, weights)[0].pairs(self.settings.batch, order)
            side = order.choices(SIDES, SIDE_SHARES)[0]
            texts = [side.query + text for text in asked.left] + [side.passage + text for text in asked.right]
            left, right = torch.chunk(encoder(texts), 2)
            yield unlikeness(left, right, asked.grades)

    def prompted(self, count: int) -> Iterator[PromptedSet]:
        """Pairs for the projector, both sides with the query's prompt: half graded as alike, half descriptions.

        Descriptions have been seen by the adapter, so none are held out.
        """
        alike = [Pair(pair.left, pair.right) for pair in self.train if pair.grade >= ALIKE]
        unseen = [Pair(pair.left, pair.right) for pair in self.held_out if pair.grade >= ALIKE]
        yield PromptedSet(GRADED, with_prompts(once(alike)[: count // 2]), with_prompts(once(unseen)))
        share = count // 2 // len(self.described)
        for name, pairs in self.described.items():
            yield PromptedSet(name, with_prompts(pairs[:share]), [])

    def report(self, encoder: Encoder) -> Iterator[str]:
        """Spearman with people's grades, and with the teacher's of unseen texts."""
        people = asked_of_people(self.held_out)
        for label, prompt in (("none", NO_PROMPTS.query), ("query", PROMPTS.query), ("passage", PROMPTS.passage)):
            yield f"{GRADED}, prompt {label}: {agreement(encoder, people, prompt)}"
        for name, taught in self.unseen.items():
            asked = taught.pairs(len(taught.texts), random.Random(self.settings.seed))
            yield f"{name} against the teacher: {agreement(encoder, asked, PROMPTS.query)}"


def asked_of_people(pairs: Sequence[Graded]) -> Asked:
    """Their grades."""
    grades = torch.tensor([pair.grade for pair in pairs])
    return Asked([pair.left for pair in pairs], [pair.right for pair in pairs], grades)


def agreement(encoder: Encoder, asked: Asked, prompt: str) -> str:
    """Spearman's correlation of the cosines with the grades."""
    left, right = encode(encoder, asked.left, prompt), encode(encoder, asked.right, prompt)
    figures = (f"{spearman(paired(left, right, size), asked.grades):.4f} at {size}" for size in REPORTED)
    return f"Spearman {', '.join(figures)}"


# The task is symmetric and used with the query's prompt; the other ways must work too.
SIDES = (
    Prompts(query=PROMPTS.query, passage=PROMPTS.query),
    Prompts(query=PROMPTS.passage, passage=PROMPTS.passage),
    PROMPTS,
)
SIDE_SHARES = (0.6, 0.2, 0.2)
