"""Embedder: open a pack, turn texts and images into vectors."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from embedpack.engine.encoder import NOTHING, CallStats, EncodeOptions, OnLongText
from embedpack.engine.loading import open_encoder
from embedpack.engine.prepared import cache_folder
from embedpack.engine.variant_choice import VariantQuery, choose_variant
from embedpack.errors import InputError, unknown
from embedpack.host.cores import available_cores
from embedpack.host.memory import check_memory
from embedpack.inputs.batching import WINDOW, windows
from embedpack.inputs.images import is_image
from embedpack.pack.codebooks import Codebooks, open_codebooks
from embedpack.pack.folder import read_pack
from embedpack.pack.graph_io import SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS, output_for
from embedpack.pack.manifest import AdapterMode
from embedpack.progress import Progress
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import (
    DTYPES,
    Codes,
    Precision,
    check_precision,
    check_vectors,
    code_width,
    is_low_bit,
    quantize,
    truncate,
)
from embedpack.vectors.embeddings import Embeddings, concatenate
from embedpack.vectors.multi_embeddings import MultiEmbeddings, concatenate_multi, offsets_of

Result = TypeVar("Result")
Part = TypeVar("Part")

# A text, an image (PIL.Image.Image, Path, bytes, uint8 array [height, width, 3]), or a sequence or iterator of them.
Inputs = Any
Tasks = str | Sequence[str] | None


class Embedder:
    """One variant of a pack, loaded and ready.

    Attributes:
        pack: the opened pack with its manifest.
        variant: name of the loaded variant, e.g. "retrieval-int8".
        task: its task; of a switchable variant the one that calls use if they name none, or None.
    """

    def __init__(  # noqa: PLR0913 - options have names, not an object, as those of `encode`
        self,
        pack: str | Path,
        *,
        task: str | None = None,
        weights: str | None = None,
        adapters: AdapterMode | None = None,
        variant: str | None = None,
        threads: int | None = None,
        prepared: bool = True,
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
            prepared: use what `embedpack prepare` made for this host, if it did; the vectors are the same.

        Raises:
            PackError: the pack is broken.
            InputError: it has no such task, weights or variant.
            CapacityError: the variant does not fit the memory.
        """
        opened = read_pack(pack)
        name = choose_variant(opened, VariantQuery(task, weights, adapters, variant))
        chosen = opened.manifest.variants[name]
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise InputError(f"threads is {threads!r}; it must be a whole number of at least 1")
        self.pack = opened
        self.variant = name
        self.task = chosen.task or task or _only(opened.manifest.tasks)
        self._switchable = chosen.task is None
        self._encoder = open_encoder(opened, chosen, threads or available_cores(), cache_folder() if prepared else None)
        self._codebooks: dict[str, Codebooks] = {}

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
                pathlib.Path, bytes, or a uint8 array [height, width, 3]. An iterator, e.g. `pdf_pages("report.pdf")`,
                is taken in windows, of texts long ones, of images short ones.
            task: of a switchable variant: one for all inputs, or one for each; one for all of an iterator.
            prompt_name: one of `prompts`, e.g. "query"; left out, the task's default. Images have none.
            truncate_dim: one of `truncate_dims`; left out, the full dimension.
            precision: "float32", "float16", "int8", "4bit", "2bit", "ternary" or "binary".
            on_long: "truncate" cuts a text after the model's limit of tokens and logs how many were cut; "error"
                refuses it.
            max_pixels: area to which larger images are brought; left out, the model's own limit.

        Raises:
            InputError: an input or an option cannot be used.
            CapacityError: an image does not fit the memory at this resolution.
        """
        encoded = self._single(precision, truncate_dim, max_pixels)
        asked = _Asked(task, prompt_name, on_long, max_pixels)
        return _joined(self._in_parts(inputs, asked, encoded), concatenate)

    def encode_iter(  # noqa: PLR0913 - as `encode`
        self,
        inputs: Iterable[Any],
        *,
        task: str | None = None,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        precision: str = "float32",
        on_long: OnLongText = "truncate",
        max_pixels: int | None = None,
        batch_size: int = WINDOW,
    ) -> Iterator[Embeddings]:
        """Single vectors of more texts and images than fit the memory, part by part in their order.

        Args: as of `encode`. `inputs` is anything that gives items one by one; `task` is one for all of them.
            `batch_size` is the most items that are held at a time, and that a part has. Many are faster: texts of like
            length are computed together. Parts of images are short, whatever it says.

        Raises:
            InputError, CapacityError: as `encode`; options are checked at once, items when they are taken.
        """
        if task is not None and not isinstance(task, str):
            raise InputError(f"task is {task!r}; pass one task for all items")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size is {batch_size!r}; it must be a whole number of at least 1")
        encoded = self._single(precision, truncate_dim, max_pixels)
        asked = _Asked(task, prompt_name, on_long, max_pixels)
        asked.check()
        for name in self._tasks_of([None], task):
            self._prompt(name, prompt_name)
        return self._encoded(windows(_as_iterable(inputs), batch_size), None, asked, encoded)

    def _single(
        self, precision: str, truncate_dim: int | None, max_pixels: int | None
    ) -> Callable[[_Request], Embeddings]:
        """What encodes requests as single vectors."""
        chosen = check_precision(precision)
        dimensions = self._dimensions(truncate_dim, chosen)

        def encoded(request: _Request) -> Embeddings:
            codebook = self._codebook(request, chosen, tokens=False)
            output = output_for(SENTENCE_EMBEDDING, chosen)
            values = np.stack(request.in_order(lambda items, options: list(self._encoder.run(items, output, options))))
            codes = truncate(_coded(values, chosen, codebook, request.numbers.start), chosen, dimensions)
            return Embeddings(codes, chosen, dimensions, request.space, max_pixels, codebook)

        return encoded

    def encode_multi(  # noqa: PLR0913 - as `encode`
        self,
        inputs: Inputs,
        *,
        task: Tasks = None,
        prompt_name: str | None = None,
        precision: str = "float32",
        pool_factor: int = 1,
        on_long: OnLongText = "truncate",
        max_pixels: int | None = None,
    ) -> MultiEmbeddings:
        """Multi-vectors of texts and images: one vector for every token, those of the prompt included.

        Args: as of `encode`. There is no truncation. `pool_factor`: of documents, 2 keeps about half as many vectors,
        4 a quarter; special tokens keep their own, and short texts lose fewer.

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
        code_width(chosen, dimensions)

        def encoded(request: _Request) -> MultiEmbeddings:
            codebook = self._codebook(request, chosen, tokens=True)
            self._check_result_size(request.items, dimensions, max_pixels)
            # Rows are pooled as float32, whatever becomes of them.
            output = output_for(TOKEN_EMBEDDINGS, "float32" if pool_factor > 1 else chosen)
            rows = request.in_order(lambda items, options: self._encoder.run_tokens(items, output, options))
            values = np.concatenate(rows)
            if output != output_for(TOKEN_EMBEDDINGS, chosen):
                values = quantize(values, chosen, self._token_step(request))
            codes = _coded(values, chosen, codebook).astype(DTYPES[chosen], copy=False)
            offsets = offsets_of([len(row) for row in rows])
            return MultiEmbeddings(codes, offsets, chosen, dimensions, request.space, max_pixels, codebook)

        asked = _Asked(task, prompt_name, on_long, max_pixels, pool_factor)
        return _joined(self._in_parts(inputs, asked, encoded), concatenate_multi)

    def _token_step(self, request: _Request) -> float | None:
        """The step of int8 codes of tokens, which all tasks of one variant share."""
        return self.pack.manifest.tasks[next(iter(request.options))].token_int8_scale

    def _codebook(self, request: _Request, precision: Precision, *, tokens: bool) -> Codebook | None:
        """The one codebook of all tasks of a request; None: the precision needs none."""
        if not is_low_bit(precision):
            return None
        found: dict[str, Codebook] = {}
        for task in request.options:
            if task not in self._codebooks:
                self._codebooks[task] = open_codebooks(self.pack, task)
            opened = self._codebooks[task]
            codebook = opened.token if tokens else opened.single
            assert codebook is not None, task
            found[codebook.id] = codebook
        if len(found) > 1:
            raise InputError(
                f"the tasks {', '.join(request.options)} have codebooks of their own, so one result cannot hold "
                f"{precision} codes of them; encode them in a call each, or as float32, float16 or int8"
            )
        return found.popitem()[1]

    def _in_parts(self, inputs: Inputs, asked: _Asked, encode: Callable[[_Request], Part]) -> list[Part]:
        """Encode the inputs: all at once, or those of an iterator in windows, so that few of them are held."""
        asked.check()
        listed = None if _is_iterator(inputs) else _as_list(inputs)
        if listed is None and not isinstance(asked.task, str | None):
            raise InputError("pass one task for all items of an iterator, or a list of the items")
        groups = windows(inputs) if listed is None else [listed]
        parts = list(self._encoded(groups, None if listed is None else len(listed), asked, encode))
        if not parts:
            raise InputError(NOTHING)
        return parts

    def _encoded(
        self, groups: Iterable[list[Any]], total: int | None, asked: _Asked, encode: Callable[[_Request], Part]
    ) -> Iterator[Part]:
        """Encode groups of items that follow each other; `total` is of all items, None: not known."""
        with Progress("embedding", total) as progress:
            stats, first = CallStats(progress), 0
            for items in groups:
                yield encode(self._request(items, first, asked, stats))
                first += len(items)
        stats.log_truncated()

    def _request(self, items: list[Any], first: int, asked: _Asked, stats: CallStats) -> _Request:
        """Items, the first of which has this number, with all that is needed to encode them."""
        tasks = self._tasks_of(items, asked.task)
        options = {
            name: EncodeOptions(
                prompt=self._prompt(name, asked.prompt_name),
                on_long=asked.on_long,
                adapter=name if self._switchable else None,
                max_pixels=asked.max_pixels,
                pool_factor=asked.pool_factor,
                stats=stats,
            )
            for name in dict.fromkeys(tasks)
        }
        numbers = range(first, first + len(items))
        if len(options) > 1:
            # All of them first, not task by task.
            self._encoder.processor.check(items, numbers)
        spaces = [self.pack.manifest.space(name) for name in sorted(options)]
        return _Request(items, tasks, numbers, options, "+".join(spaces))

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
class _Asked:
    """Options of a call that say how its inputs are read."""

    task: Tasks
    prompt_name: str | None
    on_long: OnLongText
    max_pixels: int | None
    pool_factor: int = 1

    def check(self) -> None:
        """Refuse values that no pack takes."""
        if self.on_long not in ("truncate", "error"):
            raise InputError(unknown("on_long", self.on_long, ("truncate", "error")))
        if self.max_pixels is not None and (not isinstance(self.max_pixels, int) or self.max_pixels < 1):
            raise InputError(f"max_pixels is {self.max_pixels!r}; it must be a whole number of at least 1")
        if not isinstance(self.pool_factor, int) or self.pool_factor < 1:
            raise InputError(f"pool_factor is {self.pool_factor!r}; it must be a whole number of at least 1")


@dataclass(frozen=True)
class _Request:
    """Items with the task and the number of each, and how to read those of each task."""

    items: list[Any]
    tasks: list[str]
    numbers: range
    options: Mapping[str, EncodeOptions]
    space: str

    def in_order(self, encode: Callable[[list[Any], EncodeOptions], list[Result]]) -> list[Result]:
        """Results of all items in their order, task by task."""
        found: dict[int, Result] = {}
        for name, options in self.options.items():
            rows = [row for row, task in enumerate(self.tasks) if task == name]
            options = replace(options, numbers=[self.numbers[row] for row in rows])
            found.update(zip(rows, encode([self.items[row] for row in rows], options), strict=True))
        return [found[row] for row in range(len(self.items))]


def _coded(values: Codes, precision: Precision, codebook: Codebook | None, first: int = 0) -> Codes:
    """What a graph gave for some vectors, the first of which has this number, in the precision that was asked for."""
    if precision == "int8":
        return values
    check_vectors(values, first)
    return values if codebook is None else quantize(values, precision, codebook)


def _only(names: Mapping[str, object]) -> str | None:
    return next(iter(names)) if len(names) == 1 else None


def _as_list(inputs: Inputs) -> list[Any]:
    if isinstance(inputs, str) or is_image(inputs):
        return [inputs]
    if not isinstance(inputs, Sequence) or isinstance(inputs, bytearray):
        raise InputError(
            "pass a text, an image (PIL.Image.Image, pathlib.Path, bytes, uint8 array [height, width, 3]), or a "
            f"sequence or an iterator of them, not {type(inputs).__name__}"
        )
    items = list(inputs)
    if not items:
        raise InputError(NOTHING)
    return items


def _is_iterator(inputs: Inputs) -> bool:
    # An open file iterates over its lines, which nobody means who passes an image.
    return isinstance(inputs, Iterator) and not isinstance(inputs, io.IOBase)


def _as_iterable(inputs: object) -> Iterable[Any]:
    if isinstance(inputs, str) or is_image(inputs):
        return [inputs]
    if not isinstance(inputs, Iterable) or isinstance(inputs, (Mapping, bytearray, io.IOBase)):
        raise InputError(f"pass something that gives texts and images one by one, not {type(inputs).__name__}")
    return inputs


def _joined(parts: list[Part], join: Callable[[list[Part]], Part]) -> Part:
    return parts[0] if len(parts) == 1 else join(parts)
