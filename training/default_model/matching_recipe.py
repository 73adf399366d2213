"""Recipe of `text-matching`: cosines of text pairs follow the similarities that a teacher model and people gave them.

Only Japanese captions have grades of people, so most of the training follows a multilingual teacher. The backbone's
vocabulary is English, which limits how far other languages can improve.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from training.default_model.encoder import NO_PROMPTS, PROMPTS, Encoder, Prompts, encode
from training.default_model.losses import correlation_loss
from training.default_model.scoring import paired, scores, spearman
from training.default_model.settings import Settings
from training.default_model.training_sets import (
    Graded,
    Pair,
    PromptedSet,
    endless,
    read_graded,
    read_pairs,
    shuffled,
    with_prompts,
)

GRADED = "jsts-train"
ENGLISH = ("debian-desc-en", "python-docstring-code", "nl2bash-train")
LANGUAGES = tuple(f"debian-desc-{name}" for name in ("de", "fr", "ru", "es", "pl", "pt_BR", "uk", "ja", "ko"))
QUESTIONS = ("jaquad-train-ja",)
TEACHER_PROMPT = "query: "
TAUGHT_TEXTS = 1500  # of each set, for training
HELD_OUT_TEXTS = 200  # of each set
GRADED_SHARE = 0.2  # of the batches
ENGLISH_WEIGHT = 3  # of a set in English among the batches of teacher-graded texts
MIN_ALIKE_GRADE = 4.0  # grade of pairs that mean nearly the same
REPORTED_DIMENSIONS = (384, 64)
# The task is symmetric and used with the query's prompt; other combinations of prompts must work too.
SYMMETRIC = Prompts(query=PROMPTS.query, passage=PROMPTS.query)
SIDES = (
    SYMMETRIC,
    Prompts(query=PROMPTS.passage, passage=PROMPTS.passage),
    PROMPTS,
)
SIDE_SHARES = (0.6, 0.2, 0.2)


class GradedBatch(NamedTuple):
    """Pairs of texts with the grades of their similarity, on any scale."""

    left: list[str]
    right: list[str]
    grades: Tensor


@dataclass(frozen=True)
class TeacherGrades:
    """Texts of one set with the cosines of the teacher's vectors, float32 [n, n].

    `nearest`, int64 [n, n], has the indices of all texts for each text, the nearest, which is itself, first.
    """

    texts: list[str]
    cosines: Tensor
    nearest: Tensor

    @classmethod
    def by(cls, teacher: Encoder, texts: list[str]) -> TeacherGrades:
        """Encode the texts with the teacher and compare all with all."""
        vectors = encode(teacher, texts, TEACHER_PROMPT)
        cosines = scores(vectors, vectors, vectors.shape[1])
        return cls(texts, cosines, cosines.argsort(dim=1, descending=True))

    def pairs(self, count: int, rng: random.Random) -> GradedBatch:
        """Texts with a partner whose rank is log-uniform: among uniform random pairs hardly any are alike."""
        last = len(self.texts) - 1
        left = rng.sample(range(len(self.texts)), count)
        right = [int(self.nearest[index, int(last ** rng.random())]) for index in left]
        return GradedBatch([self.texts[i] for i in left], [self.texts[i] for i in right], self.cosines[left, right])


def without_repeats(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs whose texts occur in no earlier pair: a repeated text would be a false negative."""
    texts: set[str] = set()
    distinct = []
    for pair in pairs:
        if texts.isdisjoint(pair):
            distinct.append(pair)
        texts.update(pair)
    return distinct


@dataclass(frozen=True)
class MatchingRecipe:
    """Sets of the task, split into training and held-out texts.

    `train` and `held_out` are graded by people, `taught` and `taught_held_out` by the teacher, by set, empty without
    one; `descriptions` are pairs of short and long description, by set, for the projector.
    """

    settings: Settings
    train: list[Graded] = field(repr=False)
    held_out: list[Graded] = field(repr=False)
    taught: dict[str, TeacherGrades] = field(repr=False)
    taught_held_out: dict[str, TeacherGrades] = field(repr=False)
    descriptions: dict[str, list[Pair]] = field(repr=False)

    @classmethod
    def read(cls, folder: Path, settings: Settings, teacher: Encoder | None) -> MatchingRecipe:
        """Read the sets below `folder`, and grade their texts with the teacher."""
        graded = shuffled(read_graded(folder / GRADED / "pairs.tsv.gz"), settings.seed)
        cut = settings.held_out
        sets = {name: shuffled(read_pairs(folder / name), settings.seed) for name in (*ENGLISH, *LANGUAGES, *QUESTIONS)}
        texts = {name: [pair.query for pair in pairs] for name, pairs in sets.items()}
        texts[GRADED] = list(dict.fromkeys(pair.left for pair in graded[cut:]))
        train, held_out = {}, {}
        if teacher is not None:
            train = {
                name: TeacherGrades.by(teacher, of_set[HELD_OUT_TEXTS:][:TAUGHT_TEXTS])
                for name, of_set in texts.items()
            }
            held_out = {name: TeacherGrades.by(teacher, of_set[:HELD_OUT_TEXTS]) for name, of_set in texts.items()}
        descriptions = {name: sets[name][HELD_OUT_TEXTS:] for name in LANGUAGES}
        return cls(settings, graded[cut:], graded[:cut], train, held_out, descriptions)

    def losses(self, encoder: Encoder) -> Iterator[Tensor]:
        """One loss a step, from pairs of one set with grades of people or of the teacher."""
        rng = random.Random(self.settings.seed)
        graded = endless(self.train, self.settings.batch, rng)
        taught = list(self.taught.values())
        weights = [ENGLISH_WEIGHT if name in ENGLISH else 1 for name in self.taught]
        while True:
            if rng.random() < GRADED_SHARE:
                batch = graded_by_people(next(graded))
            else:
                batch = rng.choices(taught, weights)[0].pairs(self.settings.batch, rng)
            side = rng.choices(SIDES, SIDE_SHARES)[0]
            texts = [side.query + text for text in batch.left] + [side.passage + text for text in batch.right]
            left, right = torch.chunk(encoder(texts), 2)
            yield correlation_loss(left, right, batch.grades)

    def prompted(self, count: int) -> Iterator[PromptedSet]:
        """Pairs for the projector: half graded as alike by people, half descriptions.

        The adapter was trained on all descriptions, so none are held out.
        """
        alike = [Pair(pair.left, pair.right) for pair in self.train if pair.grade >= MIN_ALIKE_GRADE]
        held_out = [Pair(pair.left, pair.right) for pair in self.held_out if pair.grade >= MIN_ALIKE_GRADE]
        train, held_out = without_repeats(alike)[: count // 2], without_repeats(held_out)
        yield PromptedSet(GRADED, with_prompts(train, SYMMETRIC), with_prompts(held_out, SYMMETRIC))
        share = count // 2 // len(self.descriptions)
        for name, pairs in self.descriptions.items():
            yield PromptedSet(name, with_prompts(pairs[:share], SYMMETRIC), [])

    def report(self, encoder: Encoder) -> Iterator[str]:
        """Spearman's correlation with grades of people, and with the teacher's grades of held-out texts."""
        people = graded_by_people(self.held_out)
        for label, prompt in (("none", NO_PROMPTS.query), ("query", PROMPTS.query), ("passage", PROMPTS.passage)):
            yield f"{GRADED}, prompt {label}: {agreement(encoder, people, prompt)}"
        for name, grades in self.taught_held_out.items():
            batch = grades.pairs(len(grades.texts), random.Random(self.settings.seed))
            yield f"{name}, grades of the teacher: {agreement(encoder, batch, PROMPTS.query)}"


def graded_by_people(pairs: Sequence[Graded]) -> GradedBatch:
    """Pairs with the grades that people gave them."""
    grades = torch.tensor([pair.grade for pair in pairs])
    return GradedBatch([pair.left for pair in pairs], [pair.right for pair in pairs], grades)


def agreement(encoder: Encoder, batch: GradedBatch, prompt: str) -> str:
    """Spearman's correlation of the cosines with the grades, as text."""
    left, right = encode(encoder, batch.left, prompt), encode(encoder, batch.right, prompt)
    values = (f"{spearman(paired(left, right, size), batch.grades):.4f} at {size}" for size in REPORTED_DIMENSIONS)
    return f"Spearman {', '.join(values)}"
