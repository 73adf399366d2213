"""Summary of results on single sets: intervals, non-inferiority tests, the groups with the largest loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
from msgspec import UNSET

from embedpack.progress import Progress
from embedpack_export.arrays import Float64
from embedpack_export.evaluation.results import CombinedResult, SetResult, Setting, SettingResult, WorstGroup
from embedpack_export.metrics.bootstrap import interval, resampled_means, set_generator
from embedpack_export.metrics.non_inferiority import non_inferiority

# Digits of points and shares.
DIGITS = 4

# Results of one setting by one measure.
SettingKey = tuple[Setting, str]


def summarise(
    results: Sequence[SetResult], *, margin: float, seed: int, decides_exit_status: Callable[[Setting], bool]
) -> list[SettingResult]:
    """Summarise the results of each setting and measure over their sets; `margin` is in points."""
    groups: dict[SettingKey, list[SetResult]] = {}
    for result in results:
        groups.setdefault((result.by_query.setting, result.by_query.measure), []).append(result)
    resampled = _resampled(results, seed)
    worst_languages: dict[SettingKey, WorstGroup] = {}
    for measure in {key[1] for key in groups}:
        of_measure = {key: group for key, group in groups.items() if key[1] == measure}
        worst_languages.update(_worst_languages(of_measure, seed))
    return [
        _setting_result(
            group,
            [resampled[id(result)] for result in group],
            worst_languages[key],
            margin,
            decides_exit_status=decides_exit_status(key[0]),
        )
        for key, group in groups.items()
    ]


def summarise_tasks(
    results: Sequence[SetResult], weights: Mapping[str, str], *, margin: float, seed: int
) -> list[CombinedResult]:
    """Summarise the results of each weights format and kind of stored vectors over the sets of all tasks.

    `weights` has the weights format of each variant; `margin` is in points.
    """
    groups: dict[tuple[str, str], list[SetResult]] = {}
    for result in results:
        setting = result.by_query.setting
        groups.setdefault((weights[setting.variant], setting.stored), []).append(result)
    resampled = _resampled(results, seed)
    combined = []
    for (weights_format, stored), group in groups.items():
        difference = float(np.mean([result.difference for result in group]))
        bounds = interval(np.mean([resampled[id(result)] for result in group], axis=0))
        test = non_inferiority(_rounded(difference), bounds, [result.queries for result in group], margin)
        combined.append(CombinedResult(weights_format, stored, len(group), test))
    return combined


def _resampled(results: Sequence[SetResult], seed: int) -> Mapping[int, Float64]:
    """Return the resampled mean differences of each result, by its id; all settings of a set have the same draws."""
    means: dict[int, Float64] = {}
    names = list(dict.fromkeys(result.set for result in results))
    with Progress("intervals", len(names)) as progress:
        for name in names:
            group = [result for result in results if result.set == name]
            differences = np.stack([result.by_query.differences for result in group], axis=1)
            resampled = resampled_means(differences, set_generator(name, seed))
            means.update((id(result), resampled[:, column]) for column, result in enumerate(group))
            progress.advance(1)
    return means


def _setting_result(
    group: Sequence[SetResult],
    resampled: Sequence[Float64],
    worst_language: WorstGroup,
    margin: float,
    *,
    decides_exit_status: bool,
) -> SettingResult:
    reference = float(np.mean([result.reference for result in group]))
    score = float(np.mean([result.score for result in group]))
    full = float(np.mean([result.by_query.full_reference for result in group]))
    sets = [_rounded_result(result, means) for result, means in zip(group, resampled, strict=True)]
    worst = min(sets, key=lambda result: result.difference)
    bounds = interval(np.mean(resampled, axis=0))
    return SettingResult(
        setting=group[0].by_query.setting,
        measure=group[0].by_query.measure,
        decides_exit_status=decides_exit_status,
        bytes=round(float(np.mean([result.by_query.bytes for result in group]))),
        reference=_rounded(reference),
        score=_rounded(score),
        retention=_rounded(score / full) if full > 0 else None,
        test=non_inferiority(_rounded(score - reference), bounds, [result.queries for result in sets], margin),
        worst_set=WorstGroup(worst.set, worst.queries, worst.difference, worst.low, worst.high),
        worst_language=worst_language,
        sets=sets,
    )


def _rounded_result(result: SetResult, means: Float64) -> SetResult:
    """Return a result with its interval and without the scores of single queries."""
    low, high = interval(means)
    return msgspec.structs.replace(
        result,
        reference=_rounded(result.reference),
        score=_rounded(result.score),
        difference=_rounded(result.difference),
        low=_rounded(low),
        high=_rounded(high),
        recall_at_100=_optional(result.recall_at_100),
        top_10_overlap=_optional(result.top_10_overlap),
        rank_biased_overlap=_optional(result.rank_biased_overlap),
        per_query=UNSET,
    )


def _worst_languages(
    groups: Mapping[SettingKey, Sequence[SetResult]], seed: int
) -> Iterator[tuple[SettingKey, WorstGroup]]:
    """Yield the language with the largest loss of each setting; all were measured on the queries of the same sets."""
    first, *_ = groups.values()
    languages = np.array([language for result in first for language in result.by_query.languages])
    columns = np.stack(
        [np.concatenate([result.by_query.differences for result in group]) for group in groups.values()], axis=1
    )
    names = list(dict.fromkeys(languages.tolist()))
    lowest = np.stack([columns[languages == name].mean(0) for name in names]).argmin(0)
    for row, name in enumerate(names):
        chosen = np.flatnonzero(lowest == row)
        if not len(chosen):
            continue
        values = columns[languages == name][:, chosen]
        resampled = resampled_means(values, set_generator(f"language {name}", seed))
        for place, column in enumerate(chosen):
            low, high = interval(resampled[:, place])
            mean = _rounded(float(values[:, place].mean()))
            yield list(groups)[column], WorstGroup(name, len(values), mean, _rounded(low), _rounded(high))


def _optional(value: float | None) -> float | None:
    return None if value is None else _rounded(value)


def _rounded(value: float) -> float:
    return round(value, DIGITS)
