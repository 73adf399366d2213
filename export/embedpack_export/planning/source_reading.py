"""Reading of a model source: its files, its tasks, and the heads that they decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from embedpack.errors import CheckpointError
from embedpack.pack.manifest import Modality, Pooling
from embedpack_export.families import find_family
from embedpack_export.families.heads import Heads, SingleHead
from embedpack_export.families.model import Family, Model, ScoreModel
from embedpack_export.planning.family_scores import check_options, plan_family_scores
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.planning.multi_vector_choice import find_multi_vectors
from embedpack_export.planning.multi_vectors import MultiVectorSource, check_pooling
from embedpack_export.planning.score_head import ScorePlan, ScoreSource, find_scores, plan_scores, take_score_head
from embedpack_export.planning.settings import BASE_TASK
from embedpack_export.planning.single_head import read_single_head
from embedpack_export.planning.tasks import ALL_TASKS, CheckpointAndModel, TaskNames, TaskPlan, plan_tasks
from embedpack_export.planning.text_inputs import TextInputs, TextOptions, check_prompts, resolve_text_inputs
from embedpack_export.planning.token_head import ModelWithTasks, take_token_head
from embedpack_export.sources.adapter_checkpoint import find_base
from embedpack_export.sources.checkpoint import Checkpoint, read_checkpoint
from embedpack_export.sources.colbert_metadata import is_colbert, with_colbert_metadata
from embedpack_export.sources.modules_json import transformer_folder
from embedpack_export.sources.sentence_transformers import SentenceTransformersConfig, read_sentence_transformers

OF_FILES = TextOptions()


@dataclass(frozen=True)
class _Files:
    """Files of a checkpoint and its adapters, before a head is chosen."""

    folder: Path
    checkpoint: Checkpoint
    family: Family
    model: Model
    config: SentenceTransformersConfig  # that of the checkpoint
    by_task: Mapping[str, SentenceTransformersConfig]  # those of the adapters
    adapters: Mapping[str, Path]

    @property
    def configs(self) -> list[SentenceTransformersConfig]:
        """Files of sentence-transformers, those of the checkpoint first."""
        return [self.config, *self.by_task.values()]

    @property
    def scoring(self) -> ScoreSource:
        """The files that decide whether the model gives scores."""
        return ScoreSource(self.checkpoint, self.family, self.model, self.config, self.by_task)

    @property
    def module_files(self) -> dict[str, Path]:
        """Files of sentence-transformers of the checkpoint and of its adapters, by name."""
        folders = (("", self.config), *((f"adapters/{task}/", found) for task, found in self.by_task.items()))
        return {f"{place}{name}": path for place, found in folders for name, path in found.files.items()}


@dataclass(frozen=True)
class _Planned:
    """Files with their tasks and the conversion of texts; the checkpoint is without the adapters that it had."""

    files: _Files
    checkpoint: Checkpoint
    model: Model
    tasks: Mapping[str, TaskPlan]
    inputs: TextInputs


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
    checkpoint = read_checkpoint(transformer_folder(split.base))
    family = find_family(checkpoint)
    config = read_sentence_transformers(split.base, pooling, family.own_modules)
    if is_colbert(checkpoint) and config.multi is None:
        config = with_colbert_metadata(config, checkpoint)
    files = _Files(
        folder=split.base,
        checkpoint=checkpoint,
        family=family,
        model=_read_model(checkpoint, family, modality).with_base_task(tasks.base),
        config=config,
        by_task={task: read_sentence_transformers(adapter, pooling) for task, adapter in split.adapters.items()},
        adapters=split.adapters,
    )
    if files.model.heads.score is not None:
        if pooling is not None:
            raise CheckpointError(f"--pooling is of no use: {split.base} gives scores; leave it out")
        check_options(family.name, config, split.adapters)
        planned = _plan(files, files.model, tasks, texts)
        scores_of_family = plan_family_scores(planned.checkpoint, planned.model, planned.inputs)
        return _source_of_scores(planned, planned.checkpoint, scores_of_family)
    scores = find_scores(files.scoring, pooling)
    if scores is None:
        return _source_of_vectors(_plan(files, files.model, tasks, texts), texts, pooling)
    return _source_of_pairs(_plan(files, replace(files.model, heads=Heads(score=scores.head)), tasks, texts), scores)


def _plan(files: _Files, model: Model, tasks: TaskNames, texts: TextOptions) -> _Planned:
    checkpoint = files.checkpoint
    plans = plan_tasks(CheckpointAndModel(checkpoint, model), files.adapters, tasks, files.config, files.by_task)
    if model.adapters is not None:
        checkpoint = model.adapters.take(checkpoint)
    inputs = resolve_text_inputs(checkpoint, model, files.config, files.by_task, texts)
    return _Planned(files, checkpoint, model, plans, inputs)


def _source_of_pairs(planned: _Planned, found: ScoreModel) -> ModelSource:
    """Source of a model that scores pairs."""
    model, scores = planned.model, plan_scores(planned.files.scoring, found, planned.inputs)
    checkpoint = take_score_head(planned.checkpoint, model, found, planned.tasks)
    text = scores.text_model(found, model.text)
    return _source_of_scores(replace(planned, model=replace(model, text=text)), checkpoint, scores)


def _source_of_scores(planned: _Planned, checkpoint: Checkpoint, scores: ScorePlan) -> ModelSource:
    """Source of a model that gives scores; its texts have no prompts."""
    files = planned.files
    tasks = {task: replace(plan, prompts={}, default_prompt_name=None) for task, plan in planned.tasks.items()}
    return ModelSource(
        folder=files.folder,
        checkpoint=checkpoint,
        family=files.family.name,
        model=planned.model,
        tasks=tasks,
        single=None,
        maxsim=None,
        scores=scores,
        truncate_dims=(),
        texts=planned.inputs,
        module_files=files.module_files,
    )


def _source_of_vectors(planned: _Planned, texts: TextOptions, pooling: Pooling | None) -> ModelSource:
    """Source of a model that gives single vectors, multi-vectors or both."""
    files, model = planned.files, planned.model
    configs, tasks = files.configs, planned.tasks
    settings = find_multi_vectors(files.config, files.by_task)
    multi = None
    if settings is not None:
        configs = [each for each in configs if each.multi is not None]
        multi = MultiVectorSource(settings, model.hidden, _common_truncations(configs, model))
        tasks = {task: multi.with_prompts(plan, planned.inputs, texts.max_tokens) for task, plan in tasks.items()}
    tasks = texts.prompts.applied(tasks)
    _check_prompts(planned.inputs, model, tasks, configs)
    complete = _complete(ModelWithTasks(planned.checkpoint, model, tasks), configs, multi, pooling)
    return ModelSource(
        folder=files.folder,
        checkpoint=complete.source.checkpoint,
        family=files.family.name,
        model=complete.source.model,
        tasks=complete.source.tasks,
        single=complete.single,
        maxsim=None if multi is None else multi.score(tasks),
        scores=None,
        truncate_dims=_common_truncations(configs, model) if multi is None else (),
        texts=planned.inputs,
        module_files=files.module_files,
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
