"""Embedder: opens a pack, and turns texts and images into vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from embedpack.engine.call_options import OpenVariant
from embedpack.engine.call_stats import CallStats
from embedpack.engine.chunk_means import document_groups
from embedpack.engine.devices import choose_device
from embedpack.engine.encoder import Encoder
from embedpack.engine.loaded_pack import LoadedPack
from embedpack.engine.loading import open_encoder
from embedpack.engine.options import EncodeCall, EncodeSettings, OnEmpty, OnLong, check_threads
from embedpack.engine.prepared import cache_folder
from embedpack.engine.variant_choice import choose_variant
from embedpack.engine.variant_vectors import VariantVectors
from embedpack.errors import InputError, OptionError
from embedpack.host.cores import available_cores
from embedpack.host.memory import memory_errors
from embedpack.inputs.batching import WINDOW_ITEMS, windows
from embedpack.inputs.documents import Document, read_documents
from embedpack.inputs.items import NO_INPUTS, Input, Inputs, Item, as_iterable, as_list_or_iterator, is_blank
from embedpack.inputs.splitting import Splitting
from embedpack.pack.folder import read_pack
from embedpack.pack.heads import check_embedder, single_vectors
from embedpack.pack.strict import AdapterMode
from embedpack.vectors.embeddings import Embeddings, concatenate
from embedpack.vectors.multi_embeddings import MultiEmbeddings, concatenate_multi

Tasks: TypeAlias = str | Sequence[str] | None
T = TypeVar("T")


class Embedder(LoadedPack[VariantVectors]):
    """A loaded variant of a pack.

    Attributes:
        pack: the opened pack with its manifest.
        variant: name of the loaded variant, e.g. "retrieval-int8".
        task: task of a merged variant; default task of a switchable one, or None.
        device: "cpu" or "cuda".
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
        device: str = "cpu",
    ) -> None:
        """Open a pack.

        Args:
            pack: folder of the pack.
            task: one of the pack's tasks; may be left out if there is only one, or a default task, and for switchable
                adapters.
            weights: "fp32", "fp16", "int8" or "int4"; default: on a CPU int8 if the pack has it, else its first that is
                not for GPUs; on a GPU fp16, else int4 for GPUs.
            adapters: "merged": one task; "switchable": all tasks, chosen call by call. Default: merged if the pack
                has it.
            variant: name of a variant, in place of task, weights and adapters.
            threads: number of threads of a call; default: the physical cores that this process may use.
            prepared: use the prepacked graphs of `embedpack prepare`, if there are any; the vectors are the same.
            device: "cpu"; "cuda": the first GPU that is visible; "auto": that, if there is one and the pack has a
                variant for it, else the CPU; the choice is logged.

        Raises:
            PackError: the pack is broken.
            InputError: it has no such task, weights or variant, gives scores only, or the device cannot be used.
            CapacityError: the variant does not fit the memory.

        A pack that is replaced while it is open is never mixed with the new one: files that are opened late, such as
        the graph of images, are compared with the manifest that was read, and PackError is raised if they differ.
        """
        opened = read_pack(pack)
        check_embedder(opened)
        self.device = choose_device(opened, device, weights, variant)
        name = choose_variant(opened, variant, task, weights, adapters, self.device)
        chosen = opened.manifest.variants[name]
        check_threads(threads)
        self.pack = opened
        self.variant = name
        self.task = chosen.task or task or opened.manifest.unnamed_task
        self._open = OpenVariant(opened, name, self.task)
        cache = cache_folder() if prepared else None
        encoder = open_encoder(opened, chosen, threads or available_cores(), cache, self.device)
        self._loaded = VariantVectors(self._open, encoder)

    @property
    def _encoder(self) -> Encoder:
        return self._graphs.encoder

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of the pack."""
        return tuple(self.pack.manifest.tasks)

    @property
    def prompts(self) -> dict[str, str]:
        """Prompts of the open task, prefix by name; empty if calls choose the task."""
        prompts = {} if self.task is None else self.pack.manifest.tasks[self.task].prompts
        return {name: prompt.prefix for name, prompt in prompts.items()}

    @property
    def dimensions(self) -> int:
        """Dimensions of a single vector that is not truncated; InputError if the pack has no single vectors."""
        return single_vectors(self.pack).dimensions

    @property
    def truncate_dims(self) -> tuple[int, ...]:
        """Allowed values of `truncate_dim`, ascending; the last is `dimensions`. InputError as `dimensions`."""
        return single_vectors(self.pack).truncate_dims

    @memory_errors()
    def encode(  # noqa: PLR0913 - the one call that most users ever see: its options have names, not an object
        self,
        inputs: Inputs,
        *,
        task: Tasks = None,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        precision: str = "float32",
        on_long: OnLong = "truncate",
        on_empty: OnEmpty = "error",
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
            on_long: "truncate" cuts texts at the limit of the model or the prompt and logs which; "error" refuses
                them.
            on_empty: of texts that are blank or have no token: "error" refuses them; "skip" leaves them out, and the
                `ids` of the result are the positions of the others; "zero" gives each a vector of zeros, in float32,
                float16 and int8. Their number is logged.
            max_pixels: area to which larger images are resized; default: the model's own limit.

        Raises:
            InputError: an input or an option cannot be used.
            CapacityError: an image does not fit the memory at this resolution.
        """
        settings = EncodeSettings(
            task=task,
            prompt_name=prompt_name,
            truncate_dim=truncate_dim,
            precision=precision,
            on_long=on_long,
            on_empty=on_empty,
            max_pixels=max_pixels,
        )
        return concatenate(self._encode(inputs, settings, self._graphs.single))

    def encode_iter(  # noqa: PLR0913 - as `encode`
        self,
        inputs: Input | Iterable[Input],
        *,
        task: str | None = None,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        precision: str = "float32",
        on_long: OnLong = "truncate",
        on_empty: OnEmpty = "error",
        max_pixels: int | None = None,
        batch_size: int = WINDOW_ITEMS,
    ) -> Iterator[Embeddings]:
        """Encode more texts and images than fit the memory as single vectors, part by part in their order.

        Arguments as in `encode`, except: `inputs` is any iterable of texts and images; `task` is one for all of them.
        `batch_size` is the largest number of items that are held at a time, and of a part. Large parts are faster:
        texts of similar length are computed together. Parts of images are short in any case.

        Raises:
            InputError, CapacityError: as `encode`; options are checked at once, items when they are taken.
        """
        if not isinstance(batch_size, int) or batch_size < 1:
            raise OptionError(f"batch_size is {batch_size!r}; it must be a whole number of at least 1")
        settings = EncodeSettings(
            task=_one_task(task),
            prompt_name=prompt_name,
            truncate_dim=truncate_dim,
            precision=precision,
            on_long=on_long,
            on_empty=on_empty,
            max_pixels=max_pixels,
        )
        call = self._open.resolve(settings)
        items = self._graphs.encoder.processor.items(as_iterable(inputs), blank=on_empty != "error")
        return self._parts(windows(items, batch_size), call)

    @memory_errors()
    def encode_multi(  # noqa: PLR0913 - as `encode`
        self,
        inputs: Inputs,
        *,
        task: Tasks = None,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        precision: str = "float32",
        pool_factor: int = 1,
        on_long: OnLong = "truncate",
        on_empty: OnEmpty = "error",
        max_pixels: int | None = None,
    ) -> MultiEmbeddings:
        """Encode texts and images as multi-vectors: one vector for every token, those of the prompt included.

        Arguments as in `encode`; `truncate_dim` only if the model was trained for it. `pool_factor`: token pooling of
        documents; 2 keeps about half as many vectors, 4 a quarter; special tokens keep their own, and short texts lose
        fewer.

        Raises:
            InputError: an input or an option cannot be used, or the pack has no multi-vectors.
            CapacityError: the result, or an image at this resolution, does not fit the memory.
        """
        settings = EncodeSettings(
            task=task,
            prompt_name=prompt_name,
            truncate_dim=truncate_dim,
            precision=precision,
            on_long=on_long,
            on_empty=on_empty,
            max_pixels=max_pixels,
            multi=True,
            pool_factor=pool_factor,
        )
        return concatenate_multi(self._encode(inputs, settings, self._graphs.multi))

    @memory_errors()
    def encode_chunks(
        self,
        chunks: Sequence[str] | Sequence[Sequence[str]],
        *,
        task: str | None = None,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        precision: str = "float32",
    ) -> Embeddings:
        """Encode the chunks of documents as single vectors, each in the context of its document (late chunking).

        The chunks of a document are joined by spaces and encoded as one text; the vector of a chunk is the mean of its
        tokens (Günther et al. 2024, arXiv 2409.04701). Documents longer than the model's limit are encoded in windows
        that overlap, see `embedpack.inputs.chunk_windows`. The chunk of a document that has no other has the vector of
        `encode`.

        Args:
            chunks: the chunks of one document, or of several: a list for each.
            task: of a switchable variant, one for all documents.
            prompt_name: as in `encode`; the prompt stands once before each document.
            truncate_dim: as in `encode`.
            precision: as in `encode`.

        Returns:
            the vectors of all chunks in their order.

        Raises:
            InputError: a chunk or an option cannot be used, or the pack has no late chunking.
            CapacityError: a document does not fit the memory.
        """
        settings = EncodeSettings(
            task=_one_task(task),
            prompt_name=prompt_name,
            truncate_dim=truncate_dim,
            precision=precision,
            late_chunking=True,
        )
        call, documents = self._open.resolve(settings), read_documents(chunks)
        with self.stats(sum(map(len, documents))) as stats:
            return concatenate([self._graphs.chunks(group, call, stats) for group in document_groups(documents)])

    def split(self, texts: Sequence[str], splitting: Splitting) -> list[Document]:
        """Documents of whole texts for `encode_chunks_part`; blank texts are left out.

        Raises:
            ItemError: a text cannot be tokenized; CapacityError: it does not fit the memory.
        """
        tokenizer = self._encoder.processor.tokenizer
        return [splitting.document(number, text, tokenizer) for number, text in enumerate(texts) if not is_blank(text)]

    def encode_chunks_part(self, documents: list[Document], settings: EncodeSettings, stats: CallStats) -> Embeddings:
        """Encode the chunks of documents as `encode_chunks`; the rest as `encode_part`."""
        call = self._open.resolve(settings._replace(late_chunking=True))
        return concatenate([self._graphs.chunks(group, call, stats) for group in document_groups(documents)])

    def encode_part(self, inputs: list[Input], settings: EncodeSettings, stats: CallStats) -> Embeddings:
        """Encode inputs as `encode`; counts are added to `stats`.

        Nothing is logged, and no progress begins or ends, so that several calls can share them.
        """
        call = self._open.resolve(settings._replace(multi=False))
        return self._graphs.single(list(self._items(inputs, call)), call, stats)

    def encode_multi_part(self, inputs: list[Input], settings: EncodeSettings, stats: CallStats) -> MultiEmbeddings:
        """Encode inputs as `encode_multi`; the rest as `encode_part`."""
        call = self._open.resolve(settings._replace(multi=True))
        return self._graphs.multi(list(self._items(inputs, call)), call, stats)

    def check(self, settings: EncodeSettings) -> None:
        """Raise OptionError for options that the pack does not allow, before any input is read."""
        self._open.resolve(settings)

    def stats(self, total: int | None, work: int | None = None) -> CallStats:
        """Counts and progress of one or several calls; arguments as of `CallStats`."""
        return CallStats(self.pack.manifest.text.max_tokens, total, work)

    def _encode(
        self, inputs: Inputs, settings: EncodeSettings, encode: Callable[[list[Item], EncodeCall, CallStats], T]
    ) -> list[T]:
        """Encode inputs in windows, all of a list in one."""
        call = self._open.resolve(settings)
        items = self._items(inputs, call)
        with self._stats_of(items) as stats:
            groups = [items] if isinstance(items, list) else windows(items)
            parts = [encode(group, call, stats) for group in groups]
        if not parts:
            raise InputError(NO_INPUTS)
        stats.log()
        return parts

    def _items(self, inputs: Inputs, call: EncodeCall) -> list[Item] | Iterator[Item]:
        """Numbered and checked inputs; those of an iterator are checked as they are taken."""
        source = as_list_or_iterator(inputs)
        items = self._graphs.encoder.processor.items(source, blank=call.options.on_empty != "error")
        if not isinstance(source, list):
            if call.tasks is not None:
                raise InputError("pass one task for all items of an iterator, or a list of the items")
            return items
        if call.tasks is not None and len(call.tasks) != len(source):
            raise InputError(f"{len(call.tasks)} tasks for {len(source)} inputs; pass one for all, or one for each")
        # All of them first: an unusable text at the end must not cost the work on those before it.
        return list(items)

    def _parts(self, groups: Iterable[list[Item]], call: EncodeCall) -> Iterator[Embeddings]:
        """Single vectors of groups of items, whose number is not known."""
        with memory_errors(), self.stats(None) as stats:
            for items in groups:
                yield self._graphs.single(items, call, stats)
        stats.log()

    def _stats_of(self, items: list[Item] | Iterator[Item]) -> CallStats:
        if not isinstance(items, list):
            return self.stats(None)
        stats = self.stats(len(items))
        return self.stats(len(items), sum(map(stats.work_of, items)))


def _one_task(task: object) -> str | None:
    if task is not None and not isinstance(task, str):
        raise OptionError(f"task is {task!r}; pass one task for all items")
    return task
