"""Embedder: open a pack, turn texts and images into vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from embedpack.codes import GRAPH_OUTPUTS, TOKEN_OUTPUTS, Precision, check_precision, code_width, truncate
from embedpack.embeddings import Embeddings
from embedpack.encoder import EncodeOptions, OnLongText
from embedpack.errors import InputError, unknown
from embedpack.image_file import is_image
from embedpack.memory import check_memory
from embedpack.multi_embeddings import MultiEmbeddings
from embedpack.pack import AdapterMode, Pack, read_pack
from embedpack.threads import available_cores
from embedpack.variant import open_encoder

Result = TypeVar("Result")

# A text, an image (PIL.Image.Image, Path, bytes, uint8 array [height, width, 3]), or a sequence of them.
Inputs = Any
Tasks = str | Sequence[str] | None


class Embedder:
    """One variant of a pack, loaded and ready.

    Attributes:
        pack: the opened pack with its manifest.
        variant: name of the loaded variant, e.g. "retrieval-int8".
        task: its task; of a switchable variant the one that calls use if they name none, or None.
    """

    def __init__(
        self,
        pack: str | Path,
        *,
        task: str | None = None,
        weights: str | None = None,
        adapters: AdapterMode | None = None,
        variant: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Open a pack.

        Args:
            pack: its folder.
            task: one of the pack's tasks; may be left out where there is only one, and for switchable adapters.
            weights: "fp32", "int8" or "int4"; left out, int8 where the pack has it, else its first.
            adapters: "merged": one task; "switchable": all tasks, chosen call by call. Left out, merged where the pack
                has it.
            variant: the name of a variant, instead of task, weights and adapters.
            threads: threads for one call; left out, the physical cores that this process may use.

        Raises:
            PackError: the pack is broken.
            InputError: it has no such task, weights or variant.
        """
        opened = read_pack(pack)
        name = choose_variant(opened, VariantChoice(task, weights, adapters, variant))
        chosen = opened.manifest.variants[name]
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise InputError(f"threads is {threads!r}; it must be a whole number of at least 1")
        self.pack = opened
        self.variant = name
        self.task = task if chosen.task is None else chosen.task
        self._switchable = chosen.task is None
        self._encoder = open_encoder(opened, chosen, threads or available_cores())

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of the pack."""
        return tuple(self.pack.manifest.tasks)

    @property
    def prompts(self) -> dict[str, str]:
        """Prompts of the open task: name and prefix; empty where calls choose the task."""
        return {} if self.task is None else dict(self.pack.manifest.tasks[self.task].prompts)

    @property
    def dimensions(self) -> int:
        """Dimensions of a full vector."""
        return self.pack.manifest.dimensions

    @property
    def truncate_dims(self) -> tuple[int, ...]:
        """Dimensions that `truncate_dim` may take, the full one last."""
        return self.pack.manifest.truncate_dims

    def encode(  # noqa: PLR0913 - the one call that most users ever see: its options have names, not an object
        self,
        inputs: Inputs,
        *,
        task: Tasks = None,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        precision: str = "float32",
        on_long: OnLongText = "truncate",
        max_pixels: int | None = None,
    ) -> Embeddings:
        """Single vectors of texts and images, in their order; one input alone gives Embeddings of length 1.

        An input's vector does not depend on those beside it.

        Args:
            inputs: a text or an image, or a sequence of them. A str is always a text; an image is a PIL.Image.Image, a
                pathlib.Path, bytes, or a uint8 array [height, width, 3].
            task: of a switchable variant: one for all inputs, or one for each.
            prompt_name: one of `prompts`, e.g. "query"; left out, the task's default. Images have none.
            truncate_dim: one of `truncate_dims`; left out, the full dimension.
            precision: "float32", "float16", "int8" or "binary".
            on_long: "truncate" cuts a text after the model's limit of tokens and logs how many were cut; "error"
                refuses it.
            max_pixels: area to which larger images are brought; left out, the model's own limit.

        Raises:
            InputError: an input or an option cannot be used.
            CapacityError: an image does not fit the memory at this resolution.
        """
        chosen = check_precision(precision)
        dimensions = self._dimensions(truncate_dim, chosen)
        request = self._request(inputs, task, prompt_name, on_long, max_pixels)
        values = np.stack(
            request.in_order(lambda items, options: list(self._encoder.run(items, GRAPH_OUTPUTS[chosen], options)))
        )
        return Embeddings(truncate(values, chosen, dimensions), chosen, dimensions, request.space, max_pixels)

    def encode_multi(
        self,
        inputs: Inputs,
        *,
        task: Tasks = None,
        prompt_name: str | None = None,
        precision: str = "float32",
        on_long: OnLongText = "truncate",
        max_pixels: int | None = None,
    ) -> MultiEmbeddings:
        """Multi-vectors of texts and images: one vector for every token, those of the prompt included.

        Args: as of `encode`. There is no truncation.

        Raises:
            InputError: an input or an option cannot be used, or the pack has no multi-vectors.
            CapacityError: the result, or an image at this resolution, does not fit the memory.
        """
        dimensions = self.pack.manifest.multi_vector_dimensions
        if dimensions is None:
            raise InputError(
                f"{self.pack.folder}: this pack has no multi-vectors; its checkpoint came without a multi-vector "
                "projector"
            )
        chosen = check_precision(precision)
        request = self._request(inputs, task, prompt_name, on_long, max_pixels)
        self._check_result_size(request.items, dimensions, max_pixels)
        rows = request.in_order(lambda items, options: self._encoder.run_tokens(items, TOKEN_OUTPUTS[chosen], options))
        codes = np.concatenate(rows)
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return MultiEmbeddings(
            np.asarray(codes, np.float16) if chosen == "float16" else codes,
            offsets,
            chosen,
            dimensions,
            request.space,
            max_pixels,
        )

    def _request(
        self, inputs: Inputs, task: Tasks, prompt_name: str | None, on_long: OnLongText, max_pixels: int | None
    ) -> _Request:
        if on_long not in ("truncate", "error"):
            raise InputError(unknown("on_long", on_long, ("truncate", "error")))
        if max_pixels is not None and (not isinstance(max_pixels, int) or max_pixels < 1):
            raise InputError(f"max_pixels is {max_pixels!r}; it must be a whole number of at least 1")
        items = _as_list(inputs)
        tasks = self._tasks_of(items, task)
        options = {
            name: EncodeOptions(
                prompt=self._prompt(name, prompt_name),
                on_long=on_long,
                adapter=name if self._switchable else None,
                max_pixels=max_pixels,
            )
            for name in dict.fromkeys(tasks)
        }
        spaces = [self.pack.manifest.space(name) for name in sorted(options)]
        return _Request(items, tasks, options, "+".join(spaces))

    def _tasks_of(self, items: Sequence[Any], task: Tasks) -> list[str]:
        """The task of each item."""
        if task is None:
            if self.task is None:
                raise InputError(f"pass task=, one of: {', '.join(self.tasks)}")
            return [self.task] * len(items)
        tasks = [task] * len(items) if isinstance(task, str) else list(task)
        if len(tasks) != len(items):
            raise InputError(f"{len(tasks)} tasks for {len(items)} inputs; pass one for all, or one for each")
        for name in tasks:
            if name not in self.tasks:
                raise InputError(unknown("task", name, self.tasks))
            if not self._switchable and name != self.task:
                raise InputError(
                    f"this variant, {self.variant}, is merged for the task {self.task!r}; open another for {name!r}, "
                    "or the pack with adapters='switchable'"
                )
        return tasks

    def _prompt(self, task: str, name: str | None) -> str:
        known = self.pack.manifest.tasks[task]
        name = known.default_prompt_name if name is None else name
        if name is None:
            return ""
        if not isinstance(name, str) or name not in known.prompts:
            raise InputError(f"{unknown('prompt_name', name, known.prompts)} (task {task!r})")
        return known.prompts[name]

    def _check_result_size(self, items: Sequence[Any], dimensions: int, max_pixels: int | None) -> None:
        """Refuse images whose multi-vectors would not fit, before the first is opened."""
        image = self.pack.manifest.image
        count = sum(map(is_image, items))
        if image is None or not count:
            return
        tokens = (max_pixels or image.max_pixels) // (image.patch_size * image.merge_size) ** 2
        needed = count * tokens * dimensions * np.dtype(np.float32).itemsize
        check_memory(needed, f"the multi-vectors of {count} images", "embed them in several calls")

    def _dimensions(self, truncate_dim: int | None, precision: Precision) -> int:
        dimensions = self.dimensions if truncate_dim is None else truncate_dim
        if isinstance(dimensions, float) or dimensions not in self.truncate_dims:
            raise InputError(unknown("truncate_dim", dimensions, self.truncate_dims))
        code_width(precision, dimensions)
        return dimensions


@dataclass(frozen=True)
class _Request:
    """Items with the task of each, and how to read those of each task."""

    items: list[Any]
    tasks: list[str]
    options: Mapping[str, EncodeOptions]
    space: str

    def in_order(self, encode: Callable[[list[Any], EncodeOptions], list[Result]]) -> list[Result]:
        """Results of all items in their order, task by task."""
        found: dict[int, Result] = {}
        for name, options in self.options.items():
            rows = [row for row, task in enumerate(self.tasks) if task == name]
            found.update(zip(rows, encode([self.items[row] for row in rows], options), strict=True))
        return [found[row] for row in range(len(self.items))]


@dataclass(frozen=True)
class VariantChoice:
    """What the caller said about the variant; None: nothing."""

    task: str | None = None
    weights: str | None = None
    adapters: str | None = None
    variant: str | None = None


def choose_variant(pack: Pack, choice: VariantChoice) -> str:
    """Name of the variant that the caller means.

    Raises:
        InputError: there is none, or several.
    """
    variants = pack.manifest.variants
    if choice.variant is not None:
        if (choice.task, choice.weights, choice.adapters) != (None, None, None):
            raise InputError("pass either variant, or task, weights and adapters")
        if not isinstance(choice.variant, str) or choice.variant not in variants:
            raise InputError(unknown("variant", choice.variant, variants))
        return choice.variant
    modes = {item.adapters for item in variants.values()}
    mode = choice.adapters or ("merged" if "merged" in modes else "switchable")
    if mode not in modes:
        raise InputError(unknown("adapters", mode, sorted(modes)))
    task = _choose_task(pack, choice.task, mode)
    found = {
        item.weights: name for name, item in variants.items() if item.adapters == mode and item.task in (task, None)
    }
    weights = choice.weights or ("int8" if "int8" in found else next(iter(found)))
    for known, name in found.items():
        if weights == known:
            return name
    raise InputError(f"{unknown('weights', weights, found)} (task {task!r})")


def _choose_task(pack: Pack, task: str | None, mode: str) -> str | None:
    tasks = tuple(pack.manifest.tasks)
    if task is None and len(tasks) > 1 and mode == "merged":
        raise InputError(f"this pack has several tasks; pass task=, one of: {', '.join(tasks)}")
    if task is not None and task not in tasks:
        raise InputError(unknown("task", task, tasks))
    return tasks[0] if task is None and mode == "merged" else task


def _as_list(inputs: Inputs) -> list[Any]:
    if isinstance(inputs, str) or is_image(inputs):
        return [inputs]
    if not isinstance(inputs, Sequence) or isinstance(inputs, bytearray):
        raise InputError(
            "pass a text, an image (PIL.Image.Image, pathlib.Path, bytes, uint8 array [height, width, 3]) or a sequence "
            f"of them, not {type(inputs).__name__}"
        )
    items = list(inputs)
    if not items:
        raise InputError("nothing to embed: the list is empty")
    return items
