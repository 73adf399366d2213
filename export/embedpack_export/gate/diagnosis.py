"""Why vectors differ from the reference's: another adapter, other prompts, another pooling, or the weights themselves.

Each suspicion is a way to compute vectors that are not the right ones. Where a variant's vectors lie nearer to these
than to those of the reference, the suspicion is right: what rounding adds has no reason to point there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from embedpack.pack.manifest import Pooling, WeightsFormat
from embedpack.vectors.codes import Float32
from embedpack_export.metrics.cosines import row_cosines
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.reference.choice import Prompted, Reference, Setup

# Mean 1 - cosine from which on a variant is looked at more closely, whatever it loses; of all-MiniLM-L6-v2 it is
# 0, 0.0004 and 0.009.
SUSPICIOUS: dict[WeightsFormat, float] = {"fp32": 1e-5, "int8": 1e-3, "int4": 1e-2}
# Two thirds of the way: chance does not bring vectors there.
NEARER = 2 / 3
EPSILON = 1e-9
# Enough to tell two models apart.
MOST_TEXTS = 32


@dataclass(frozen=True)
class Suspicion:
    """What may have gone wrong, and how the vectors would then have come about."""

    message: str
    setup: Setup
    texts: Sequence[Prompted]


def find_cause(
    plan: ExportPlan, reference: Reference, task: str, texts: Sequence[Prompted], found: Float32
) -> str | None:
    """What explains the vectors that a pack gives for a task better than the task itself; None: nothing known does.

    Args:
        plan: how it should have been made.
        reference: gives the vectors of each suspicion, where it can.
        task: of the pack.
        texts: with the prompts that they should have had.
        found: unit vectors of the pack, [texts, dimensions].
    """
    rows = np.linspace(0, len(texts) - 1, min(len(texts), MOST_TEXTS)).astype(int).tolist()
    texts, found = [texts[row] for row in rows], found[rows]
    own = reference.single(Setup(task, plan.pooling), texts)
    best, cause = NEARER, None
    for suspicion in _suspicions(plan, task, texts):
        changed = np.array([text != other for text, other in zip(texts, suspicion.texts, strict=True)])
        # Where the prompts are the same, all texts tell; else only those that got another one.
        changed = changed if changed.any() else np.ones(len(texts), bool)
        chosen = [suspicion.texts[row] for row in np.flatnonzero(changed).tolist()]
        if not reference.knows(suspicion.setup, chosen):
            continue
        other = _distance(reference.single(suspicion.setup, chosen), found[changed])
        ratio = other / max(_distance(own[changed], found[changed]), EPSILON)
        if ratio < best:
            best, cause = ratio, suspicion.message
    return cause


def _suspicions(plan: ExportPlan, task: str, texts: Sequence[Prompted]) -> Iterator[Suspicion]:
    for other in plan.tasks:
        if other != task:
            yield Suspicion(
                f"its vectors are those of the task {other!r}: the adapters were swapped",
                Setup(other, plan.pooling),
                texts,
            )
    if plan.tasks[task].adapter is not None:
        yield Suspicion(
            "its vectors are those of the model without an adapter: the adapter was left out",
            Setup(None, plan.pooling),
            texts,
        )
    yield from _prompt_suspicions(plan, task, texts)
    for pooling in get_args(Pooling):
        if pooling != plan.pooling:
            yield Suspicion(
                f"its vectors are those of {pooling} pooling, not {plan.pooling}: the pooling was changed",
                Setup(task, pooling),
                texts,
            )


def _prompt_suspicions(plan: ExportPlan, task: str, texts: Sequence[Prompted]) -> Iterator[Suspicion]:
    right = Setup(task, plan.pooling)
    if any(prompt for prompt, _ in texts):
        yield Suspicion(
            "its vectors are those of the texts without their prompts: the prompts were dropped",
            right,
            [("", text) for _, text in texts],
        )
    for name, prefix in plan.tasks[task].prompts.items():
        if any(prompt != prefix for prompt, _ in texts):
            yield Suspicion(
                f"its vectors are those of texts under the prompt {name!r}, whatever prompt was asked for: the prompts "
                "were mixed up",
                right,
                [(prefix, text) for _, text in texts],
            )


def _distance(one: Float32, other: Float32) -> float:
    """Mean 1 - cosine."""
    return float(1 - row_cosines(one, other).mean())
