"""Options of a call, resolved against the pack and the variant that is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from embedpack.engine.options import EncodeCall, EncodeOptions, EncodeSettings
from embedpack.errors import OptionError, unknown
from embedpack.pack.folder import Pack
from embedpack.pack.heads import check_late_chunking, single_metric, vector_head
from embedpack.pack.input_recipes import QwenImage
from embedpack.pack.prompts import NO_PROMPT
from embedpack.vectors.codes import Precision, check_precision, code_width, is_low_bit
from embedpack.vectors.metric import UNIT

LAST_CALLS = 16


@dataclass(frozen=True)
class OpenVariant:
    """A variant of a pack by name, and the task of calls that name none; None: such calls are refused."""

    pack: Pack
    name: str
    task: str | None

    @property
    def switchable(self) -> bool:
        """True if calls choose the task."""
        return self.pack.manifest.variants[self.name].task is None

    def resolve(self, settings: EncodeSettings) -> EncodeCall:
        """Resolve the options of a call; those of the last calls are kept, as calls repeat their options.

        Raises:
            OptionError: an option has a value that the pack does not allow.
            InputError: the pack has no vectors of the kind that is asked for.
        """
        try:
            return self._last_calls(*settings)
        except TypeError:  # a list of tasks is no key
            return self._resolve(settings)

    @cached_property
    def _last_calls(self) -> Callable[..., EncodeCall]:
        # Typed, as 256.0 is equal to 256, but no valid number of dimensions.
        return lru_cache(LAST_CALLS, typed=True)(lambda *fields: self._resolve(EncodeSettings(*fields)))

    def _resolve(self, settings: EncodeSettings) -> EncodeCall:
        precision = check_precision(settings.precision)
        dimensions = self._dimensions(settings)
        code_width(precision, dimensions)
        options = EncodeOptions(
            on_long=settings.on_long,
            on_empty=settings.on_empty,
            max_pixels=settings.max_pixels,
            pool_factor=settings.pool_factor,
        )
        self._check(options, precision)
        tasks = self._tasks(settings)
        by_task = {name: self._task_options(name, settings.prompt_name, options) for name in tasks}
        if settings.late_chunking:
            check_late_chunking(self.pack, [each.prompt for each in by_task.values()])
        manifest = self.pack.manifest
        metrics = [UNIT] if settings.multi else [single_metric(manifest, task) for task in by_task]
        for metric in metrics:
            metric.check_precision(precision)
        space = "+".join(sorted({manifest.space(task) for task in by_task}))
        each = None if settings.task is None or isinstance(settings.task, str) else tasks
        # All spaces of a pack share the scale of int8 codes.
        return EncodeCall(precision, dimensions, options, by_task, each, space, next(iter(metrics), UNIT))

    def _dimensions(self, settings: EncodeSettings) -> int:
        head, dimensions = vector_head(self.pack, multi=settings.multi), settings.truncate_dim
        if dimensions is None:
            return head.dimensions
        if settings.multi and len(head.truncate_dims) == 1:
            raise OptionError(
                f"truncate_dim is {dimensions}; the multi-vectors of this model were not trained for truncation: leave "
                "it out"
            )
        if isinstance(dimensions, float) or dimensions not in head.truncate_dims:
            raise OptionError(unknown("truncate_dim", dimensions, head.truncate_dims))
        return dimensions

    def _check(self, options: EncodeOptions, precision: Precision) -> None:
        _check_max_pixels(options.max_pixels, self.pack)
        if options.on_empty == "zero" and is_low_bit(precision):
            raise OptionError(
                f"on_empty='zero' needs float32, float16 or int8: {precision} codes have no zero vector; "
                "pass on_empty='skip'"
            )

    def _tasks(self, settings: EncodeSettings) -> list[str]:
        task = self.task if settings.task is None else settings.task
        if task is None:
            raise OptionError(f"pass task=, one of: {', '.join(self.pack.manifest.tasks)}")
        return [task] if isinstance(task, str) else list(task)

    def _task_options(self, task: str, prompt_name: str | None, options: EncodeOptions) -> EncodeOptions:
        tasks = self.pack.manifest.tasks
        if task not in tasks:
            raise OptionError(unknown("task", task, tasks))
        if not self.switchable and task != self.task:
            raise OptionError(
                f"this variant, {self.name}, is merged for the task {self.task!r}; open another for {task!r}, "
                "or the pack with adapters='switchable'"
            )
        prompts = tasks[task].prompts
        if prompt_name not in (None, NO_PROMPT) and (not isinstance(prompt_name, str) or prompt_name not in prompts):
            remedy = "" if prompts else "; export the pack with --prompt NAME=TEXT, or put the prompt into the texts"
            raise OptionError(f"{unknown('prompt_name', prompt_name, prompts)} (task {task!r}){remedy}")
        adapter = self.pack.manifest.variants[self.name].adapter_of(task)
        prompt = tasks[task].prompt(prompt_name)
        return EncodeOptions(
            prompt, adapter, options.on_long, options.on_empty, options.max_pixels, options.pool_factor
        )


def _check_max_pixels(max_pixels: int | None, pack: Pack) -> None:
    image = pack.manifest.image
    if max_pixels is None:
        return
    if image is None:
        raise OptionError(f"max_pixels is of no use: {pack.folder} reads texts only; leave it out")
    if not isinstance(image, QwenImage):
        raise OptionError("max_pixels is of no use: this model reads all images in one size; leave it out")
    if max_pixels < image.min_pixels:
        raise OptionError(f"max_pixels is {max_pixels}; this model takes images of at least {image.min_pixels} pixels")
