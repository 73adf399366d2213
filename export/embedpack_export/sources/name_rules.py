"""Names of tensors and modules: those of checkpoints and adapters, and those that the graph of a family uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

from embedpack.errors import CheckpointError

# What follows the name of a module in that of a tensor; a module's own name has none of it.
LEAVES = ("", ".weight", ".bias")


class Rows(Protocol):
    """A tensor, or the update of one."""

    def blocks(self, count: int) -> Sequence[Self]:
        """Equal blocks of rows; raises CheckpointError if there are none."""
        ...


T = TypeVar("T", bound=Rows)


@dataclass(frozen=True)
class NameRules:
    """Names of a family's tensors in checkpoints and adapters."""

    prefixes: tuple[str, ...]  # prefixes of wrapper classes, which are removed ("bert." of a BertForMaskedLM)
    renames: Mapping[str, str]  # older parts of names and their present form
    unused: re.Pattern[str]  # pattern of tensors that no embedding needs (pretraining heads, buffers)
    # Endings of modules that hold several modules of the graph in equal blocks of rows, and the endings of these.
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unchanged: re.Pattern[str] | None = None  # pattern of names that the rules are not about; None: there are none

    def normal(self, name: str) -> str:
        """Name of a tensor or module in transformers' class of the family."""
        if self.unchanged is not None and self.unchanged.search(name):
            return name
        for prefix in self.prefixes:
            name = name.removeprefix(prefix)
        for old, new in self.renames.items():
            name = name.replace(old, new)
        return name

    def of_graph(self, items: Iterable[tuple[str, T]], where: str) -> dict[str, T]:
        """Tensors or updates by the names that the graph uses; `where` is the folder that they come from.

        Raises:
            CheckpointError: two of them have the same name, or a fused one has no equal blocks of rows.
        """
        result: dict[str, T] = {}
        for name, value in items:
            for own, block in self._blocks(self.normal(name), value):
                if own in result:
                    raise CheckpointError(f"{where}: two tensors are named {own!r}; one of them is {name!r}")
                result[own] = block
        return result

    def _blocks(self, name: str, value: T) -> Iterator[tuple[str, T]]:
        for ending, parts in self.fused.items():
            for leaf in LEAVES:
                if name.endswith(f"{ending}{leaf}"):
                    stem = name.removesuffix(f"{ending}{leaf}")
                    blocks = value.blocks(len(parts))
                    yield from ((f"{stem}{part}{leaf}", block) for part, block in zip(parts, blocks, strict=True))
                    return
        yield name, value
