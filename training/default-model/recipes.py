"""Which recipe a task is trained by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from encoder import Encoder
from matching import Matching
from searching import Searching
from settings import Settings
from texts import PromptedSet
from torch import Tensor


class Recipe(Protocol):
    """The sets of a task and what is learned from them."""

    def losses(self, encoder: Encoder) -> Iterator[Tensor]:
        """One loss a step, without end."""

    def prompted(self, count: int) -> Iterator[PromptedSet]:
        """About `count` training pairs for the projector, and those held out, by set."""

    def report(self, encoder: Encoder) -> Iterator[str]:
        """Lines of figures on what is held out: what to choose settings by."""


def read_recipe(task: str, folder: Path, settings: Settings, teacher: Encoder | None = None) -> Recipe:
    """Read the task's sets below `folder`; `text-matching` learns from a teacher, and without one cannot be trained."""
    if task == "text-matching":
        return Matching.read(folder, settings, teacher)
    return Searching.read(task, folder, settings)
