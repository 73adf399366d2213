"""Options of an evaluation: the pack, the evaluation sets, the reference, the margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from embedpack.errors import OptionError
from embedpack_export.reference.opening import ReferenceSource


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Options that `bench accuracy` and `bench sweep` have in common."""

    pack: Path
    data: Path  # folder of the evaluation sets
    reference: ReferenceSource
    sets: Sequence[str] = ()  # names of sets; empty: all
    tasks: Sequence[str] = ()  # tasks to measure every set with; empty: each set with the task of its kind
    variants: Sequence[str] = ()  # names of variants; empty: all
    multi: bool = True  # measure multi-vectors, too, if the pack has them
    margin: float  # loss in points that is allowed, above 0
    on_empty: Literal["skip", "error"] = "skip"  # leave empty texts out of the sets, or refuse them
    limit: int | None = None  # number of queries or pairs of each set; None: all
    seed: int
    threads: int | None = None  # number of threads of the pack's graphs; None: all cores

    def __post_init__(self) -> None:
        if not self.margin > 0:
            raise OptionError(
                f"--max-loss is {self.margin}; a margin is above 0, as no sample can exclude a loss of exactly 0"
            )
