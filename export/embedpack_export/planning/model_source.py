"""Model source: the files of a checkpoint and its adapters, with all that decides the full-precision vectors."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import msgspec

from embedpack.errors import CheckpointError
from embedpack.inputs.processor import Processor
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.digests import describe_file
from embedpack.pack.manifest import Modality, Pooling
from embedpack.pack.score_recipes import MaxSimScores
from embedpack_export.families import find_family
from embedpack_export.families.heads import Heads, SingleHead, TokenHead
from embedpack_export.families.model import NO_RULES, Family, Model
from embedpack_export.planning.multi_vector_choice import find_multi_vectors
from embedpack_export.planning.multi_vectors import MultiVectorSource, check_pooling
from embedpack_export.planning.score_head import ScorePlan, ScoreSource, find_scores, plan_scores, take_score_head
from embedpack_export.planning.settings import BASE_TASK
from embedpack_export.planning.single_head import read_single_head
from embedpack_export.planning.tasks import ALL_TASKS, CheckpointAndModel, TaskNames, TaskPlan, plan_tasks
from embedpack_export.planning.text_inputs import TextInputs, TextOptions, check_prompts, resolve_text_inputs
from embedpack_export.planning.token_head import ModelWithTasks, take_token_head
from embedpack_export.sources.adapter_checkpoint import find_base
from embedpack_export.sources.checkpoint import SINGLE, Checkpoint, read_checkpoint
from embedpack_export.sources.colbert_metadata import is_colbert, with_colbert_metadata
from embedpack_export.sources.files import MAX_JSON_BYTES, check_file, exists
from embedpack_export.sources.modules_json import transformer_folder
from embedpack_export.sources.sentence_transformers import SentenceTransformersConfig, read_sentence_transformers

# Resizing and normalization of images decide their vectors as much as the weights do.
PROCESSOR_CONFIGS = ("preprocessor_config.json", "processor_config.json")
OF_FILES = TextOptions()


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint with its adapters; `read_model_source` opens it."""

    folder: Path  # folder of the model: that of the checkpoint, or the one that 0_Transformer lies in
    checkpoint: Checkpoint  # the checkpoint, with the projector for multi-vectors if only the adapters have one
    family: str  # name of its family
    model: Model  # the checkpoint as its family reads it
    tasks: Mapping[str, TaskPlan]
    single: SingleHead | None  # head of single vectors, if there is one
    maxsim: MaxSimScores | None  # scores of a model that gives multi-vectors alone
    scores: ScorePlan | None  # head of scores, and its recipe; None: the model gives vectors
    truncate_dims: tuple[int, ...]  # truncations; of a source those that every task was trained for
    texts: TextInputs  # conversion of texts to token ids
    module_files: Mapping[str, Path]  # files of sentence-transformers that were read, by name

    @property
    def tokens(self) -> TokenHead | None:
        """Head of multi-vectors, if there is one."""
        return self.model.heads.tokens

    @property
    def pooling(self) -> Pooling | None:
        """Pooling of single vectors, or of scores; None: there are neither."""
        if self.scores is not None:
            return self.scores.head.pooling
        return None if self.single is None else self.single.pooling

    @property
    def late_chunking(self) -> bool:
        """True if single vectors are the means of hidden states, so that there is one for each part of a text."""
        return self.single is not None and self.single.pooling == "mean" and not self.single.layers

    @property
    def dimensions(self) -> int:
        """Dimensions of a single vector, if there are any."""
        assert self.single is not None
        return self.single.layers[-1].outputs if self.single.layers else self.model.hidden

    @property
    def max_tokens(self) -> int:
        """Maximum length of an input, special tokens included."""
        return self.texts.max_tokens

    @property
    def tokenizer_json(self) -> bytes:
        """Content of the pack's tokenizer.json."""
        return self.texts.tokenizer_json

    @property
    def parameters(self) -> int:
        """Number of values in the checkpoint."""
        return sum(math.prod(tensor.shape) for tensor in self.checkpoint.tensors.values())

    @property
    def tasks_by_space(self) -> dict[str, list[str]]:
        """Names of the tasks of each space, in the order of the tasks."""
        spaces: dict[str, list[str]] = {}
        for name, task in self.tasks.items():
            spaces.setdefault(task.space, []).append(name)
        return spaces

    def is_text_tensor(self, name: str) -> bool:
        """True if a tensor belongs to the text graph, or to no part of the model: that graph then refuses it."""
        return not any(pattern.search(name) for pattern in self.model.other_tensors)

    @cached_property
    def processor(self) -> Processor:
        """Processor of the inputs, the same as a reader of the pack has."""
        image = None if self.model.vision is None else self.model.vision.image
        tokenizer = TextTokenizer(self.tokenizer_json, self.max_tokens, self.model.text_rules)
        types = self.scores is not None and self.scores.pairs.token_types
        return Processor(tokenizer, self.texts.pad_token_id, image, types)

    @cached_property
    def files(self) -> dict[str, str]:
        """sha256 of each file of the checkpoint and its adapters that was read, by name."""
        described = {name: describe_file(path).sha256 for name, path in self.module_files.items()}
        return dict(sorted((described | self._files_of_vectors).items()))

    @cached_property
    def fingerprint(self) -> str:
        """Digest of everything that decides the vectors before quantization."""
        prompts = {task: msgspec.to_builtins(dict(plan.prompts)) for task, plan in self.tasks.items()}
        content: list[object] = [
            self._files_of_vectors, prompts, self.texts.digest, f"{self.pooling}/{self.max_tokens}"
        ]  # fmt: skip
        if self.scores is not None:
            content.append(repr(self.scores))
        elif self.single is None:
            content.append(repr(self.tokens))
        elif self.single != SingleHead(self.single.pooling):
            content.append(repr(self.single))
        if self.model.text_rules != NO_RULES:
            content.append(repr(self.model.text_rules))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _files_of_vectors(self) -> dict[str, str]:
        """sha256 of each file whose every byte counts, by name; `fingerprint` has the values of the others."""
        folder = self.checkpoint.folder
        paths = {name: folder / name for name in ("config.json", *self.checkpoint.weight_files)}
        paths["tokenizer.json"] = self.texts.tokenizer
        for name in PROCESSOR_CONFIGS:
            if exists(folder / name):
                paths[name] = check_file(folder / name, folder, MAX_JSON_BYTES)
        adapters = {task: plan.adapter for task, plan in self.tasks.items() if plan.adapter is not None}
        for task, adapter in adapters.items():
            paths |= {f"adapters/{task}/{name}": path for name, path in adapter.files.items()}
        paths |= {name: path for name, path in self.module_files.items() if path.name == SINGLE}
        return {name: describe_file(path).sha256 for name, path in sorted(paths.items())}


def read_model_source(
    folder: Path,
    *,
    adapters: Mapping[str, Path],
    tasks: TaskNames = ALL_TASKS,
    modality: Modality | None = None,
    pooling: Pooling | None = None,
    texts: TextOptions = OF_FILES,
) -> ModelSource:
    """Open a checkpoint with its adapters; see `ExportSettings` for the arguments.

    Raises:
        CheckpointError: the checkpoint or an adapter is damaged, contradictory or leaves a decision open.
    """
    split = find_base(folder, adapters, next(iter(tasks.wanted), BASE_TASK))
    folder, adapters = split.base, split.adapters
    checkpoint = read_checkpoint(transformer_folder(folder))
    family = find_family(checkpoint)
    model = _read_model(checkpoint, family, modality).with_base_task(tasks.base)
    config = read_sentence_transformers(folder, pooling, family.own_modules)
    by_task = {task: read_sentence_transformers(adapter, pooling) for task, adapter in adapters.items()}
    if is_colbert(checkpoint) and config.multi is None:
        config = with_colbert_metadata(config, checkpoint)
    scoring = ScoreSource(checkpoint, family, model.rules, config, adapters)
    scores = find_scores(scoring, pooling)
    if scores is not None:
        model = replace(model, heads=Heads(score=scores.head))
    plans = plan_tasks(CheckpointAndModel(checkpoint, model), adapters, tasks, config, by_task)
    if model.adapters is not None:
        checkpoint = model.adapters.take(checkpoint)
    inputs = resolve_text_inputs(checkpoint, model, config, by_task, texts)
    module_files = _module_files(config, by_task)
    if scores is not None:
        plans = {task: replace(plan, prompts={}, default_prompt_name=None) for task, plan in plans.items()}
        planned = plan_scores(scoring, scores, inputs, by_task)
        return ModelSource(
            folder=folder,
            checkpoint=take_score_head(checkpoint, model, scores.head, plans),
            family=family.name,
            model=replace(model, text=planned.text_model(scores, model.text)),
            tasks=plans,
            single=None,
            maxsim=None,
            scores=planned,
            truncate_dims=(),
            texts=inputs,
            module_files=module_files,
        )
    configs = [config, *by_task.values()]
    settings = find_multi_vectors(config, by_task)
    multi = None
    if settings is not None:
        configs = [each for each in configs if each.multi is not None]
        multi = MultiVectorSource(settings, model.hidden, _common_truncations(configs, model))
        plans = {task: multi.with_prompts(plan, inputs, texts.max_tokens) for task, plan in plans.items()}
    plans = texts.prompts.applied(plans)
    _check_prompts(inputs, model, plans, configs)
    complete = _complete(ModelWithTasks(checkpoint, model, plans), configs, multi, pooling)
    return ModelSource(
        folder=folder,
        checkpoint=complete.source.checkpoint,
        family=family.name,
        model=complete.source.model,
        tasks=complete.source.tasks,
        single=complete.single,
        maxsim=None if multi is None else multi.score(plans),
        scores=None,
        truncate_dims=_common_truncations(configs, model) if multi is None else (),
        texts=inputs,
        module_files=module_files,
    )


@dataclass(frozen=True)
class _Complete:
    """A source whose checkpoint has the tensors of all heads, and its head of single vectors."""

    source: ModelWithTasks
    single: SingleHead | None


def _complete(
    source: ModelWithTasks,
    configs: Sequence[SentenceTransformersConfig],
    multi: MultiVectorSource | None,
    pooling: Pooling | None,
) -> _Complete:
    """Add the heads of the files, whose tensors are in files of their own, to a source."""
    if multi is not None:
        check_pooling(pooling)
        heads = replace(source.model.heads, tokens=multi.head(source.checkpoint))
        model = replace(source.model, heads=heads)
        return _Complete(replace(source, checkpoint=multi.complete(source.checkpoint), model=model), None)
    source = take_token_head(source)
    single = read_single_head(source.model, configs, pooling)
    tensors = {**source.checkpoint.tensors, **single.tensors}
    return _Complete(replace(source, checkpoint=replace(source.checkpoint, tensors=tensors)), single.head)


def _module_files(
    config: SentenceTransformersConfig, by_task: Mapping[str, SentenceTransformersConfig]
) -> dict[str, Path]:
    """Files of sentence-transformers of the checkpoint and of its adapters, by name."""
    folders = (("", config), *((f"adapters/{task}/", found) for task, found in by_task.items()))
    return {f"{place}{name}": path for place, found in folders for name, path in found.files.items()}


def _check_prompts(
    inputs: TextInputs, model: Model, plans: Mapping[str, TaskPlan], configs: Sequence[SentenceTransformersConfig]
) -> None:
    prompts = {name: prompt for plan in plans.values() for name, prompt in plan.prompts.items() if prompt}
    check_prompts(inputs, model, prompts)
    for config in configs:
        if prompts and not config.include_prompt:
            raise CheckpointError(
                f"{config.folder}: include_prompt is false in the Pooling module, and there are prompts "
                f"({', '.join(prompts)}); pooling without the prompt is not supported. Export a model that pools it"
            )


def _read_model(checkpoint: Checkpoint, family: Family, modality: Modality | None) -> Model:
    model = family.read(checkpoint)
    if family.read_vision is None:
        if modality == "text+image":
            raise CheckpointError("--modality text+image: this model reads texts only")
        return model
    if modality == "text":
        return replace(model, text=model.text_alone or model.text)
    return replace(model, vision=family.read_vision(checkpoint))


def _common_truncations(configs: Sequence[SentenceTransformersConfig], model: Model) -> tuple[int, ...]:
    """Truncations that all files name that name any, or those of the family."""
    dims = [set(config.truncate_dims) for config in configs if config.truncate_dims]
    return tuple(sorted(set.intersection(*dims))) if dims else model.truncate_dims
