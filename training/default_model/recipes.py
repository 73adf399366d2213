"""Training recipe of a task: its sets and its losses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from torch import Tensor

from training.default_model.encoder import Encoder
from training.default_model.matching_recipe import MatchingRecipe
from training.default_model.search_recipe import SearchRecipe
from training.default_model.settings import Settings
from training.default_model.training_sets import PromptedSet


class Recipe(Protocol):
    """Training sets and losses of a task."""

    def losses(self, encoder: Encoder) -> Iterator[Tensor]:
        """One loss a step, without end."""

    def prompted(self, count: int) -> Iterator[PromptedSet]:
        """About `count` training pairs for the projector, and held-out pairs, by set."""

    def report(self, encoder: Encoder) -> Iterator[str]:
        """Lines of metrics on held-out pairs, for the choice of settings."""


def read_recipe(task: str, folder: Path, settings: Settings, teacher: Encoder | None = None) -> Recipe:
    """Read the task's sets below `folder`; training `text-matching` needs a teacher."""
    if task == "text-matching":
        return MatchingRecipe.read(folder, settings, teacher)
    return SearchRecipe.read(task, folder, settings)
