"""The recipe of `text-matching`: graded pairs, texts whose similarities stay, and other languages.

People graded Japanese pairs only. What the backbone knows of English is kept by imitating its similarities within
groups of neighbouring texts, and other languages learn from a package's short and long description.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from encoder import NO_PROMPTS, PROMPTS, Encoder, encode
from losses import contrastive, imitation, ranking
from scoring import paired, scores, spearman
from settings import Settings
from texts import Graded, Pair, PromptedSet, endless, read_graded, read_pairs, shuffled
from torch import Tensor

GRADED = "jsts-train"
ENGLISH = ("debian-desc-en", "python-docstring-code", "nl2bash-train")
LANGUAGES = tuple(f"debian-desc-{name}" for name in ("de", "fr", "ru", "es", "pl", "pt_BR", "uk", "ja", "ko"))
ENGLISH_TEXTS = 1000  # of each set; the rest adds nothing to similarities within groups
GROUP = 4  # neighbours: among random texts nothing is alike, and there would be nothing to imitate
LANGUAGE_BATCH = 12
LANGUAGE_WEIGHT = 0.5
ALIKE = 4.0  # people's grade of pairs that say nearly the same


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
class Anchors:
    """Texts with the backbone's vectors, and of each its nearest neighbours, itself first: int64 [texts, GROUP]."""

    texts: list[str]
    vectors: Tensor
    neighbours: Tensor

    @classmethod
    def of(cls, texts: list[str], encoder: Encoder) -> Anchors:
        """Ask the backbone, which sees no prompts."""
        with encoder.without_adapter():
            vectors = encode(encoder, texts, NO_PROMPTS.query)
        return cls(texts, vectors, scores(vectors, vectors, vectors.shape[1]).topk(GROUP, dim=1).indices)

    def around(self, centres: Sequence[int]) -> list[int]:
        """The places of the groups around some texts; a text that is in two groups comes once."""
        return torch.unique(self.neighbours[list(centres)]).tolist()


@dataclass(frozen=True)
class Matching:
    """The sets, apart in what is trained on and what is held out."""

    settings: Settings
    train: list[Graded] = field(repr=False)
    held_out: list[Graded] = field(repr=False)
    english: list[str] = field(repr=False)
    held_out_english: list[str] = field(repr=False)
    languages: list[list[Pair]] = field(repr=False)

    @classmethod
    def read(cls, folder: Path, settings: Settings) -> Matching:
        """Read the sets below `folder`."""
        graded = shuffled(read_graded(folder / GRADED / "pairs.tsv.gz"), settings.seed)
        english: list[str] = []
        unseen: list[str] = []
        for name in ENGLISH:
            queries = [pair.query for pair in shuffled(read_pairs(folder / name), settings.seed)]
            unseen += queries[: settings.held_out // len(ENGLISH)]
            english += queries[settings.held_out :][:ENGLISH_TEXTS]
        languages = [read_pairs(folder / name) for name in LANGUAGES]
        cut = settings.held_out
        return cls(settings, graded[cut:], graded[:cut], english, unseen, languages)

    def losses(self, encoder: Encoder) -> Iterator[Tensor]:
        """One loss a step: a batch of graded pairs, one of groups and one of a language."""
        order = random.Random(self.settings.seed)
        graded = endless(self.train, self.settings.batch, order)
        anchors = Anchors.of(self.english, encoder)
        centres = endless(range(len(self.english)), self.settings.anchors // GROUP, order)
        languages = [endless(pairs, LANGUAGE_BATCH, order) for pairs in self.languages]
        while True:
            pairs = next(graded)
            places = anchors.around(next(centres))
            foreign = next(order.choice(languages))
            sides = [order.choices(SIDES, weights=SIDE_SHARES)[0] for _ in range(len(pairs) + 1)]
            texts = [side[0] + pair.left for side, pair in zip(sides, pairs, strict=False)]
            texts += [side[1] + pair.right for side, pair in zip(sides, pairs, strict=False)]
            texts += [sides[-1][0] + self.english[place] for place in places]
            texts += [PROMPTS.query + pair.query for pair in foreign]
            texts += [order.choice(PROMPTS_OF_PASSAGES) + pair.passage for pair in foreign]
            sizes = [len(pairs), len(pairs), len(places), len(foreign), len(foreign)]
            parts = torch.split(encoder(texts), sizes)
            yield self.loss(parts, torch.tensor([pair.grade for pair in pairs]), anchors.vectors[places])

    def loss(self, parts: Sequence[Tensor], grades: Tensor, reference: Tensor) -> Tensor:
        """Order the pairs as people do, keep the backbone's similarities, tell texts of one language apart."""
        left, right, near, short, long = parts
        ordered = ranking(left, right, grades, self.settings.temperature)
        kept = self.settings.closeness * imitation(near, reference)
        return ordered + kept + LANGUAGE_WEIGHT * contrastive(short, long, self.settings.temperature)

    def prompted(self, count: int) -> Iterator[PromptedSet]:
        """Pairs for the projector, both sides with the query's prompt: half graded as alike, half descriptions.

        Descriptions have been seen by the adapter, so none are held out.
        """
        alike = [Pair(pair.left, pair.right) for pair in self.train if pair.grade >= ALIKE]
        unseen = [Pair(pair.left, pair.right) for pair in self.held_out if pair.grade >= ALIKE]
        yield PromptedSet(GRADED, with_prompts(once(alike)[: count // 2]), with_prompts(once(unseen)))
        share = count // 2 // len(self.languages)
        for name, pairs in zip(LANGUAGES, self.languages, strict=True):
            yield PromptedSet(name, with_prompts(pairs[:share]), [])

    def report(self, encoder: Encoder) -> Iterator[str]:
        """Spearman with people's grades, and with the backbone's similarities of neighbours, on what is held out."""
        grades = torch.tensor([pair.grade for pair in self.held_out])
        for label, prompts in (("query", SIDES[0]), ("passage", SIDES[1])):
            left = encode(encoder, [pair.left for pair in self.held_out], prompts[0])
            right = encode(encoder, [pair.right for pair in self.held_out], prompts[1])
            found = {size: spearman(paired(left, right, size), grades) for size in (384, 64)}
            figures = (f"{figure:.4f} at {size}" for size, figure in found.items())
            yield f"{GRADED}, prompt {label}: Spearman {', '.join(figures)}"
        unseen = Anchors.of(self.held_out_english, encoder)
        first = unseen.neighbours[:, :1].expand(-1, GROUP - 1).flatten()
        other = unseen.neighbours[:, 1:].flatten()
        goal = paired(unseen.vectors[first], unseen.vectors[other], unseen.vectors.shape[1])
        vectors = encode(encoder, unseen.texts, PROMPTS.query)
        figures = (
            f"{spearman(paired(vectors[first], vectors[other], size), goal):.4f} at {size}" for size in (384, 64)
        )
        yield f"English neighbours against the backbone: Spearman {', '.join(figures)}"


# The task is symmetric and used with the query's prompt; the other ways must work too.
SIDES = (
    (PROMPTS.query, PROMPTS.query),
    (PROMPTS.passage, PROMPTS.passage),
    (PROMPTS.query, PROMPTS.passage),
)
SIDE_SHARES = (0.6, 0.2, 0.2)
PROMPTS_OF_PASSAGES = (PROMPTS.query, PROMPTS.passage)
