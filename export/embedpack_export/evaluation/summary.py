"""From answers on single sets to verdicts over all sets of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from embedpack.progress import Progress
from embedpack_export.evaluation.results import PooledFigures, SetFigures, Setting, SettingFigures, Worst
from embedpack_export.evaluation.scoring.set_scorers import Answer
from embedpack_export.metrics.bootstrap import interval, resampled_means, set_generator
from embedpack_export.metrics.non_inferiority import non_inferiority
from embedpack_export.metrics.rankings import Float64

# Digits of points and shares in the figures.
DIGITS = 4


def summarise(
    answers: Sequence[Answer], *, margin: float, seed: int, counts: Callable[[Setting], bool]
) -> list[SettingFigures]:
    """One entry for each setting and measure, in their order.

    Args:
        answers: of any number of settings on any number of sets.
        margin: largest loss in points.
        seed: of the draws.
        counts: whether the exit status depends on a setting.
    """
    groups: dict[tuple[Setting, str], list[Answer]] = {}
    for answer in answers:
        groups.setdefault((answer.setting, answer.measure), []).append(answer)
    resampled = _resampled(answers, seed)
    worst = {
        key: found
        for measure in dict.fromkeys(answer.measure for answer in answers)
        for key, found in _worst_languages({key: group for key, group in groups.items() if key[1] == measure}, seed)
    }
    return [
        _setting(group, [resampled[id(answer)] for answer in group], worst[key], margin, counts=counts(key[0]))
        for key, group in groups.items()
    ]


def summarise_tasks(
    answers: Sequence[Answer], weights: Mapping[str, str], *, margin: float, seed: int
) -> list[PooledFigures]:
    """One entry for each kind of weights and of vectors, over the sets of all tasks.

    Args:
        answers: of several tasks.
        weights: of each variant.
        margin: largest loss in points.
        seed: of the draws.
    """
    groups: dict[tuple[str, str], list[Answer]] = {}
    for answer in answers:
        groups.setdefault((weights[answer.setting.variant], answer.setting.stored), []).append(answer)
    resampled = _resampled(answers, seed)
    found = []
    for (kind, stored), group in groups.items():
        difference = float(np.mean([answer.found - answer.reference for answer in group]))
        bounds = interval(np.mean([resampled[id(answer)] for answer in group], axis=0))
        verdict = non_inferiority(_rounded(difference), bounds, [len(answer.differences) for answer in group], margin)
        found.append(PooledFigures(kind, stored, len(group), verdict))
    return found


def _resampled(answers: Sequence[Answer], seed: int) -> Mapping[int, Float64]:
    """Resampled mean differences of each answer: all settings of a set on the same draws."""
    found: dict[int, Float64] = {}
    names = list(dict.fromkeys(answer.set for answer in answers))
    with Progress("intervals", len(names)) as progress:
        for name in names:
            group = [answer for answer in answers if answer.set == name]
            columns = np.stack([answer.differences for answer in group], axis=1)
            means = resampled_means(columns, set_generator(name, seed))
            found.update((id(answer), means[:, column]) for column, answer in enumerate(group))
            progress.advance(1)
    return found


def _setting(
    group: Sequence[Answer], resampled: Sequence[Float64], language: Worst, margin: float, *, counts: bool
) -> SettingFigures:
    sets = [_set(answer, means) for answer, means in zip(group, resampled, strict=True)]
    reference, found, full = (
        float(np.mean([getattr(answer, name) for answer in group])) for name in ("reference", "found", "full")
    )
    bounds = interval(np.mean(resampled, axis=0))
    return SettingFigures(
        setting=group[0].setting,
        measure=group[0].measure,
        counts=counts,
        bytes=round(float(np.mean([answer.bytes for answer in group]))),
        reference=_rounded(reference),
        found=_rounded(found),
        retention=_rounded(found / full) if full > 0 else None,
        verdict=non_inferiority(_rounded(found - reference), bounds, [item.queries for item in sets], margin),
        worst_set=_lowest(Worst(item.set, item.queries, item.difference, item.low, item.high) for item in sets),
        worst_language=language,
        sets=sets,
    )


def _set(answer: Answer, means: Float64) -> SetFigures:
    low, high = interval(means)
    return SetFigures(
        set=answer.set,
        queries=len(answer.differences),
        reference=_rounded(answer.reference),
        found=_rounded(answer.found),
        difference=_rounded(answer.found - answer.reference),
        low=_rounded(low),
        high=_rounded(high),
        recall_at_100=_optional(answer.recall_at_100),
        top_10_overlap=_optional(answer.top_10_overlap),
        rank_biased_overlap=_optional(answer.rank_biased_overlap),
        cosine=answer.cosine,
    )


def _worst_languages(
    groups: Mapping[tuple[Setting, str], Sequence[Answer]], seed: int
) -> Iterator[tuple[tuple[Setting, str], Worst]]:
    """The language that loses most in each setting, over the queries of all sets, whichever set they are in.

    Args:
        groups: of settings that were measured on the same sets.
        seed: of the draws.
    """
    first, *_ = groups.values()
    languages = np.array([language for answer in first for language in answer.languages])
    columns = np.stack([np.concatenate([answer.differences for answer in group]) for group in groups.values()], axis=1)
    known = list(dict.fromkeys(languages.tolist()))
    means = np.stack([columns[languages == language].mean(0) for language in known])
    lowest = means.argmin(0)
    for row, language in enumerate(known):
        chosen = np.flatnonzero(lowest == row)
        if not len(chosen):
            continue
        values = columns[languages == language][:, chosen]
        resampled = resampled_means(values, set_generator(f"language {language}", seed))
        for place, column in enumerate(chosen):
            low, high = interval(resampled[:, place])
            mean = _rounded(float(values[:, place].mean()))
            yield list(groups)[column], Worst(language, len(values), mean, _rounded(low), _rounded(high))


def _lowest(items: Iterable[Worst]) -> Worst:
    return min(items, key=lambda item: item.difference)


def _optional(value: float | None) -> float | None:
    return None if value is None else _rounded(value)


def _rounded(value: float) -> float:
    return round(value, DIGITS)
