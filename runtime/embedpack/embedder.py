"""Embedder: opens a pack, and turns texts and images into vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from embedpack.engine.call_stats import CallStats
from embedpack.engine.encoder import Encoder
from embedpack.engine.loading import open_encoder
from embedpack.engine.options import EncodeCall, EncodeOptions, OnLongText, check_threads
from embedpack.engine.prepared import cache_folder
from embedpack.engine.variant_choice import choose_variant
from embedpack.errors import InputError, PackError, unknown
from embedpack.host.cores import available_cores
from embedpack.host.memory import check_memory, memory_errors
from embedpack.inputs.batching import WINDOW_ITEMS, windows
from embedpack.inputs.items import NO_INPUTS, Image, Input, Inputs, Item, as_iterable, as_list_or_iterator
from embedpack.pack.codebooks import Codebooks, open_codebooks
from embedpack.pack.folder import read_pack
from embedpack.pack.graph_io import SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS, output_for
from embedpack.pack.manifest import AdapterMode
from embedpack.pack.prompts import NO_PROMPT
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import (
    DTYPES,
    Codes,
    DirectionError,
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

Tasks: TypeAlias = str | Sequence[str] | None


class Embedder:
    """A loaded variant of a pack.

    Attributes:
        pack: the opened pack with its manifest.
        variant: name of the loaded variant, e.g. "retrieval-int8".
        task: its task; of a switchable variant the default of calls that name none, or None.
    """

    @memory_errors()
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
            pack: folder of the pack.
            task: one of the pack's tasks; may be left out if there is only one, and for switchable adapters.
            weights: "fp32", "int8" or "int4"; default: int8 if the pack has it, else its first.
            adapters: "merged": one task; "switchable": all tasks, chosen call by call. Default: merged if the pack
                has it.
            variant: name of a variant, in place of task, weights and adapters.
            threads: number of threads of a call; default: the physical cores that this process may use.
            prepared: use the prepacked graphs of `embedpack prepare`, if there are any; the vectors are the same.

        Raises:
            PackError: the pack is broken.
            InputError: it has no such task, weights or variant.
            CapacityError: the variant does not fit the memory.

        A pack that is replaced while it is open is never mixed with the new one: files that are opened late, such as
        the graph of images, are compared with the manifest that was read, and PackError is raised if they differ.
        """
        opened = read_pack(pack)
        name = choose_variant(opened, variant, task, weights, adapters)
        chosen = opened.manifest.variants[name]
        check_threads(threads)
        self.pack = opened
        self.variant = name
        self.task = chosen.task or task or (self.tasks[0] if len(self.tasks) == 1 else None)
        self._switchable = chosen.task is None
        cache = cache_folder() if prepared else None
        self._loaded: Encoder | None = open_encoder(opened, chosen, threads or available_cores(), cache)
        self._codebooks: dict[str, Codebooks] = {}

    def close(self) -> None:
        """Return the memory of the graphs to the system; later calls raise InputError."""
        self._loaded = None

    def __enter__(self) -> Embedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"an Embedder cannot be pickled or copied, as its graphs are loaded in this process; "
            f"open the pack in each process: Embedder({str(self.pack.folder)!r})"
        )

    @property
    def _encoder(self) -> Encoder:
        if self._loaded is None:
            raise InputError(f"{self.pack.folder}: this Embedder is closed; open the pack again")
        return self._loaded

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of the pack."""
        return tuple(self.pack.manifest.tasks)

    @property
    def prompts(self) -> dict[str, str]:
        """Prompts of the open task, prefix by name; empty if calls choose the task."""
        return {} if self.task is None else dict(self.pack.manifest.tasks[self.task].prompts)

    @property
    def dimensions(self) -> int:
        """Dimensions of a vector that is not truncated."""
        return self.pack.manifest.dimensions

    @property
    def truncate_dims(self) -> tuple[int, ...]:
        """Allowed values of `truncate_dim`, ascending; the last is `dimensions`."""
        return self.pack.manifest.truncate_dims

    @memory_errors()
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
        """Encode texts and images as single vectors, in their order; one input gives Embeddings of length 1.

        The vector of an input does not depend on the other inputs.

        Args:
            inputs: a text or an image, or a sequence of them. A str is always a text; an image is a PIL.Image.Image, a
                pathlib.Path, bytes, or a uint8 array [height, width, 3]. An iterator, e.g. `pdf_pages("report.pdf")`,
                is read in windows of many texts or a few images.
            task: of a switchable variant: one for all inputs, or one for each; one for all of an iterator.
            prompt_name: one of `prompts`, e.g. "query"; "": no prompt; default: that of the task. Images have no
                prompt.
            truncate_dim: one of `truncate_dims`; default: no truncation.
            precision: "float32", "float16", "int8", "4bit", "2bit", "ternary" or "binary".
            on_long: "truncate" cuts texts at the model's limit of tokens and logs how many were cut; "error" refuses
                them.
            max_pixels: area to which larger images are resized; default: the model's own limit.

        Raises:
            InputError: an input or an option cannot be used.
            CapacityError: an image does not fit the memory at this resolution.
        """
        options = EncodeOptions(on_long=on_long, max_pixels=max_pixels)
        call = self._single_call(task, prompt_name, truncate_dim, precision, options)
        items = self._items(inputs, call)
        parts = list(self._parts(_windows(items), call, _count(items)))
        if not parts:
            raise InputError(NO_INPUTS)
        return parts[0] if len(parts) == 1 else concatenate(parts)

    def encode_iter(  # noqa: PLR0913 - as `encode`
        self,
        inputs: Input | Iterable[Input],
        *,
        task: str | None = None,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        precision: str = "float32",
        on_long: OnLongText = "truncate",
        max_pixels: int | None = None,
        batch_size: int = WINDOW_ITEMS,
    ) -> Iterator[Embeddings]:
        """Encode more texts and images than fit the memory as single vectors, part by part in their order.

        Args: as of `encode`. `inputs` is any iterable of texts and images; `task` is one for all of them. `batch_size`
            is the largest number of items that are held at a time, and of a part. Large parts are faster: texts of
            similar length are computed together. Parts of images are short in any case.

        Raises:
            InputError, CapacityError: as `encode`; options are checked at once, items when they are taken.
        """
        if task is not None and not isinstance(task, str):
            raise InputError(f"task is {task!r}; pass one task for all items")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size is {batch_size!r}; it must be a whole number of at least 1")
        options = EncodeOptions(on_long=on_long, max_pixels=max_pixels)
        call = self._single_call(task, prompt_name, truncate_dim, precision, options)
        items = self._encoder.processor.items(as_iterable(inputs))
        return self._parts(windows(items, batch_size), call, None)

    @memory_errors()
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
        """Encode texts and images as multi-vectors: one vector for every token, those of the prompt included.

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
        options = EncodeOptions(on_long=on_long, max_pixels=max_pixels, pool_factor=pool_factor)
        call = self._call(task, prompt_name, check_precision(precision), dimensions, options)
        items = self._items(inputs, call)
        with CallStats(_count(items)) as stats:
            parts = [self._multi(window, call, stats) for window in _windows(items)]
        if not parts:
            raise InputError(NO_INPUTS)
        return parts[0] if len(parts) == 1 else concatenate_multi(parts)

    def _single_call(
        self, task: Tasks, prompt_name: str | None, truncate_dim: int | None, precision: str, options: EncodeOptions
    ) -> EncodeCall:
        """Resolve the options of a call for single vectors against the pack."""
        dimensions = self.dimensions if truncate_dim is None else truncate_dim
        chosen = check_precision(precision)
        if isinstance(dimensions, float) or dimensions not in self.truncate_dims:
            raise InputError(unknown("truncate_dim", dimensions, self.truncate_dims))
        return self._call(task, prompt_name, chosen, dimensions, options)

    def _call(
        self, task: Tasks, prompt_name: str | None, precision: Precision, dimensions: int, options: EncodeOptions
    ) -> EncodeCall:
        """Resolve the options of a call against the pack."""
        code_width(precision, dimensions)
        task = self.task if task is None else task
        if task is None:
            raise InputError(f"pass task=, one of: {', '.join(self.tasks)}")
        names = [task] if isinstance(task, str) else list(task)
        by_task = {}
        for name in names:
            self._check_task(name)
            adapter = name if self._switchable else None
            by_task[name] = replace(options, prompt=self._prompt(name, prompt_name), adapter=adapter)
        return EncodeCall(precision, dimensions, options, by_task, None if isinstance(task, str) else names)

    def _check_task(self, name: str) -> None:
        if name not in self.tasks:
            raise InputError(unknown("task", name, self.tasks))
        if not self._switchable and name != self.task:
            raise InputError(
                f"this variant, {self.variant}, is merged for the task {self.task!r}; open another for {name!r}, "
                "or the pack with adapters='switchable'"
            )

    def _prompt(self, task: str, name: str | None) -> str:
        """Prefix of a task's texts under a prompt name; None: the task's default."""
        chosen = self.pack.manifest.tasks[task]
        if name not in (None, NO_PROMPT) and (not isinstance(name, str) or name not in chosen.prompts):
            raise InputError(f"{unknown('prompt_name', name, chosen.prompts)} (task {task!r})")
        return chosen.prompt(name)

    def _items(self, inputs: Inputs, call: EncodeCall) -> list[Item] | Iterator[Item]:
        """Numbered and checked inputs; those of an iterator are checked as they are taken."""
        source = as_list_or_iterator(inputs)
        items = self._encoder.processor.items(source)
        if not isinstance(source, list):
            if call.tasks is not None:
                raise InputError("pass one task for all items of an iterator, or a list of the items")
            return items
        if call.tasks is not None and len(call.tasks) != len(source):
            raise InputError(f"{len(call.tasks)} tasks for {len(source)} inputs; pass one for all, or one for each")
        # All of them first: an unusable text at the end must not cost the work on those before it.
        return list(items)

    def _parts(self, groups: Iterable[list[Item]], call: EncodeCall, total: int | None) -> Iterator[Embeddings]:
        """Single vectors of groups of items; `total` is the number of all items, None: unknown."""
        with memory_errors(), CallStats(total) as stats:
            for items in groups:
                yield self._single(items, call, stats)

    def _single(self, items: list[Item], call: EncodeCall, stats: CallStats) -> Embeddings:
        codebook = self._codebook(call, tokens=False)
        output = output_for(SENTENCE_EMBEDDING, call.precision)
        results = [self._encoder.run(group, output, options, stats) for group, options in call.groups(items)]
        values = results[0] if len(results) == 1 else np.concatenate(results)[call.order]
        full = self._to_precision(values, call.precision, codebook, items[0].number)
        codes = truncate(full, call.precision, call.dimensions)
        return Embeddings(codes, call.precision, call.dimensions, self._space(call), call.options.max_pixels, codebook)

    def _multi(self, items: list[Item], call: EncodeCall, stats: CallStats) -> MultiEmbeddings:
        codebook = self._codebook(call, tokens=True)
        self._check_result_size(items, call)
        # Tokens are pooled as float32 vectors in every precision.
        pooled = call.options.pool_factor > 1
        output = output_for(TOKEN_EMBEDDINGS, "float32" if pooled else call.precision)
        vectors: list[npt.NDArray[Any]] = []
        for group, options in call.groups(items):
            vectors += self._encoder.run_tokens(group, output, options, stats)
        if len(call.by_task) > 1:
            vectors = [vectors[index] for index in call.order]
        values = np.concatenate(vectors)
        quantizer: float | Codebook | None = codebook
        if pooled and call.precision == "int8":
            # All tasks of a pack share the scale.
            quantizer = self.pack.manifest.tasks[next(iter(call.by_task))].token_int8_scale
        codes = self._to_precision(values, call.precision, quantizer).astype(DTYPES[call.precision], copy=False)
        offsets = offsets_of([len(rows) for rows in vectors])
        return MultiEmbeddings(
            codes, offsets, call.precision, call.dimensions, self._space(call), call.options.max_pixels, codebook
        )

    def _space(self, call: EncodeCall) -> str:
        return "+".join(self.pack.manifest.space(name) for name in sorted(call.by_task))

    def _codebook(self, call: EncodeCall, *, tokens: bool) -> Codebook | None:
        """The codebook that all tasks of a call share; None: the precision needs none."""
        if not is_low_bit(call.precision):
            return None
        by_id: dict[str, Codebook] = {}
        for task in call.by_task:
            if task not in self._codebooks:
                self._codebooks[task] = open_codebooks(self.pack, task)
            codebooks = self._codebooks[task]
            codebook = codebooks.token if tokens else codebooks.single
            assert codebook is not None, task
            by_id[codebook.id] = codebook
        if len(by_id) > 1:
            raise InputError(
                f"the tasks {', '.join(call.by_task)} have codebooks of their own, so one result cannot hold "
                f"{call.precision} codes of them; encode them in a call each, or as float32, float16 or int8"
            )
        return by_id.popitem()[1]

    def _to_precision(
        self, values: Codes, precision: Precision, quantizer: float | Codebook | None, first: int = 0
    ) -> Codes:
        """Convert graph output to a precision with a scale or a codebook; `first` is the number of its first row.

        PackError if a vector has no direction, as every text and image has one.
        """
        try:
            if quantizer is not None:
                return quantize(values, precision, quantizer, first)
            check_vectors(values, first)
        except DirectionError as cause:
            raise PackError(
                f"{self.pack.folder}: {self.variant} computed a vector that is zero or not finite; "
                f"run: embedpack verify {self.pack.folder}"
            ) from cause
        return values

    def _check_result_size(self, items: Sequence[Item], call: EncodeCall) -> None:
        """Refuse images whose multi-vectors would not fit the memory, before the first is opened."""
        image = self.pack.manifest.image
        count = sum(isinstance(item, Image) for item in items)
        if image is None or not count:
            return
        tokens = (call.options.max_pixels or image.max_pixels) // (image.patch_size * image.merge_size) ** 2
        needed = count * tokens * call.dimensions * np.dtype(np.float32).itemsize
        check_memory(needed, f"the multi-vectors of {count} images", "embed them in several calls")


def _count(items: list[Item] | Iterator[Item]) -> int | None:
    return len(items) if isinstance(items, list) else None


def _windows(items: list[Item] | Iterator[Item]) -> Iterable[list[Item]]:
    return [items] if isinstance(items, list) else windows(items)
