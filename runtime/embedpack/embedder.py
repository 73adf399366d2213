"""Embedder: open a pack, turn texts into vectors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from embedpack.codes import GRAPH_OUTPUTS, Precision, check_precision, code_width, truncate
from embedpack.embeddings import Embeddings
from embedpack.encoder import EncodeOptions, OnLongText
from embedpack.errors import InputError, unknown
from embedpack.pack import Pack, read_pack
from embedpack.threads import available_cores
from embedpack.variant import open_encoder

logger = logging.getLogger("embedpack")


class Embedder:
    """One variant of a pack, loaded and ready.

    Attributes:
        pack: the opened pack with its manifest.
        variant: name of the loaded variant, e.g. "retrieval-int8".
        task: its task.
    """

    def __init__(
        self,
        pack: str | Path,
        *,
        task: str | None = None,
        weights: str | None = None,
        variant: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Open a pack.

        Args:
            pack: its folder.
            task: one of the pack's tasks; may be left out where there is only one.
            weights: "fp32", "int8" or "int4"; left out, int8 where the pack has it, else its first.
            variant: the name of a variant, instead of task and weights.
            threads: threads for one call; left out, the physical cores that this process may use.

        Raises:
            PackError: the pack is broken.
            InputError: it has no such task, weights or variant.
        """
        opened = read_pack(pack)
        name = _choose(opened, task, weights, variant)
        chosen = opened.manifest.variants[name]
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise InputError(f"threads is {threads!r}; it must be a whole number of at least 1")
        self.pack = opened
        self.variant = name
        self.task = chosen.task
        self._task = opened.manifest.tasks[chosen.task]
        self._encoder = open_encoder(opened, chosen, threads or available_cores())

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of the pack."""
        return tuple(self.pack.manifest.tasks)

    @property
    def prompts(self) -> dict[str, str]:
        """Prompts of the open task: name and prefix."""
        return dict(self._task.prompts)

    @property
    def dimensions(self) -> int:
        """Dimensions of a full vector."""
        return self.pack.manifest.dimensions

    @property
    def truncate_dims(self) -> tuple[int, ...]:
        """Dimensions that `truncate_dim` may take, the full one last."""
        return self.pack.manifest.truncate_dims

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        precision: str = "float32",
        on_long: OnLongText = "truncate",
    ) -> Embeddings:
        """Vectors of texts, in their order; one text alone gives Embeddings of length 1.

        A text's vector does not depend on the texts beside it.

        Args:
            texts: a text or a sequence of texts.
            prompt_name: one of `prompts`, e.g. "query"; left out, the task's default.
            truncate_dim: one of `truncate_dims`; left out, the full dimension.
            precision: "float32", "float16", "int8" or "binary".
            on_long: "truncate" cuts a text after the model's limit of tokens and logs how many were cut; "error"
                refuses it.

        Raises:
            InputError: a text or an option cannot be used; nothing was computed.
        """
        chosen = check_precision(precision)
        dimensions = self._dimensions(truncate_dim, chosen)
        if on_long not in ("truncate", "error"):
            raise InputError(unknown("on_long", on_long, ("truncate", "error")))
        items = [texts] if isinstance(texts, str) else _as_list(texts)
        output = GRAPH_OUTPUTS[chosen]
        options = EncodeOptions(self._prompt(prompt_name), on_long)
        values = self._encoder.run(items, output, options)
        return Embeddings(truncate(values, chosen, dimensions), chosen, dimensions, self.pack.manifest.space(self.task))

    def _prompt(self, name: str | None) -> str:
        name = self._task.default_prompt_name if name is None else name
        if name is None:
            return ""
        if not isinstance(name, str) or name not in self._task.prompts:
            raise InputError(f"{unknown('prompt_name', name, self._task.prompts)} (task {self.task!r})")
        return self._task.prompts[name]

    def _dimensions(self, truncate_dim: int | None, precision: Precision) -> int:
        dimensions = self.dimensions if truncate_dim is None else truncate_dim
        if isinstance(dimensions, float) or dimensions not in self.truncate_dims:
            raise InputError(unknown("truncate_dim", dimensions, self.truncate_dims))
        code_width(precision, dimensions)
        return dimensions


def _choose(pack: Pack, task: str | None, weights: str | None, variant: str | None) -> str:
    """Name of the variant that the caller means."""
    variants = pack.manifest.variants
    if variant is not None:
        if task is not None or weights is not None:
            raise InputError("pass either variant, or task and weights")
        if not isinstance(variant, str) or variant not in variants:
            raise InputError(unknown("variant", variant, variants))
        return variant
    tasks = tuple(pack.manifest.tasks)
    if task is None and len(tasks) > 1:
        raise InputError(f"this pack has several tasks; pass task=, one of: {', '.join(tasks)}")
    task = tasks[0] if task is None else task
    if task not in tasks:
        raise InputError(unknown("task", task, tasks))
    found = {item.weights: name for name, item in variants.items() if item.task == task}
    if weights is None:
        weights = "int8" if "int8" in found else next(iter(found))
    for known, name in found.items():
        if weights == known:
            return name
    raise InputError(f"{unknown('weights', weights, found)} (task {task!r})")


def _as_list(texts: Sequence[str]) -> list[str]:
    if not isinstance(texts, Sequence) or isinstance(texts, bytes | bytearray):
        raise InputError(f"texts must be a str or a sequence of str, not {type(texts).__name__}")
    return list(texts)
