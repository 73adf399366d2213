"""Rerankers: checkpoints and adapters with a head that scores pairs of a query and a document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from embedpack.errors import CheckpointError
from embedpack.pack.graph_io import TOKEN_TYPE_IDS
from embedpack.pack.manifest import Pooling
from embedpack.pack.score_recipes import ListScores, PairScores
from embedpack.storage.safetensors import StoredTensor
from embedpack_export.families.heads import MarkHead, ScoreHead
from embedpack_export.families.model import Family, Model, PairPrompt, ScoreModel
from embedpack_export.graph.context import StagedModel
from embedpack_export.planning.tasks import TaskPlan
from embedpack_export.planning.text_inputs import TextInputs
from embedpack_export.planning.token_scores import instruction_of, prompt_template, read_token_scores
from embedpack_export.sources.checkpoint import Checkpoint, read_json
from embedpack_export.sources.files import exists
from embedpack_export.sources.head_layers import Dense
from embedpack_export.sources.lora_config import CONFIG_FILE
from embedpack_export.sources.pair_template import PairTemplate, pair_template
from embedpack_export.sources.score_settings import score_activation
from embedpack_export.sources.sentence_transformers import SentenceTransformersConfig

CLASS, LANGUAGE_MODEL = "ForSequenceClassification", "ForCausalLM"
SEQ_CLS = "SEQ_CLS"
# Classes that give no token types by themselves, in transformers 5.
PLAIN_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")


@dataclass(frozen=True)
class ScorePlan:
    """Head of the scores of a pack, and its recipe in the manifest."""

    head: ScoreHead | MarkHead  # of pairs, of lists
    recipe: PairScores | ListScores

    @property
    def of_lists(self) -> bool:
        """True if documents are scored list by list."""
        return isinstance(self.recipe, ListScores)

    @property
    def token_types(self) -> bool:
        """True if the graph reads token types."""
        return isinstance(self.recipe, PairScores) and self.recipe.token_types

    def text_model(self, found: ScoreModel, plain: StagedModel) -> StagedModel:
        """Text graph: that with token types if the pairs have them, else the plain one."""
        return found.typed_text if self.token_types and found.typed_text is not None else plain


@dataclass(frozen=True)
class ScoreSource:
    """Files that decide whether a model gives scores."""

    checkpoint: Checkpoint
    family: Family
    model: Model  # the checkpoint as its family reads it
    config: SentenceTransformersConfig  # that of the checkpoint
    by_task: Mapping[str, SentenceTransformersConfig]  # those of the adapters by task

    @property
    def adapters(self) -> dict[str, Path]:
        """Folders of the adapters by task."""
        return {task: config.folder for task, config in self.by_task.items()}

    @property
    def of_class(self) -> bool:
        """True if the checkpoint is of a class for sequence classification, and no SentenceTransformer."""
        return self.config.pooling is None and self._has_class(CLASS)

    @property
    def of_unknown_use(self) -> bool:
        """True if the checkpoint is a language model of a family with rerankers, and no file states what it gives."""
        plain = not self.config.modules and not self.config.is_cross_encoder and not self.adapters
        return plain and self.model.pair_prompt is not None and self._has_class(LANGUAGE_MODEL)

    def _has_class(self, ending: str) -> bool:
        stated = self.checkpoint.config.get("architectures")
        return any(str(name).endswith(ending) for name in (stated if isinstance(stated, list) else []))


class _TypedTokenizer(msgspec.Struct, frozen=True):
    """Fields of tokenizer_config.json that decide about token types."""

    tokenizer_class: str | None = None
    model_input_names: list[str] | None = None


class _Trained(msgspec.Struct, frozen=True):
    """The field of adapter_config.json that names the task of the training."""

    task_type: str | None = None


def find_scores(source: ScoreSource, pooling: Pooling | None) -> ScoreModel | None:
    """Head that scores pairs, if the checkpoint or its adapters have one; None: the model gives vectors.

    A `pooling` of the caller asks for vectors.

    Raises:
        CheckpointError: only some of the adapters have scores, there are several labels, or it is open what a language
            model gives.
    """
    if pooling is None and source.of_unknown_use:
        raise CheckpointError(
            f"{source.config.folder}: no modules.json, so it is unknown what this language model gives; for vectors "
            "pass --pooling last, for the scores of Qwen3-Reranker get the files that it is published with today, "
            "which have modules.json with LogitScore"
        )
    if any(config.logits is not None for config in (source.config, *source.by_task.values())):
        return _of_language_model(source, pooling)
    if pooling is not None or source.family.read_scores is None:
        _refuse_cross_encoder(source, pooling)
        return None
    # A folder without the file is refused when its adapter is read.
    configs = {task: folder / CONFIG_FILE for task, folder in source.adapters.items()}
    trained = {task: read_json(path, _Trained).task_type if exists(path) else None for task, path in configs.items()}
    scoring = [task for task, task_type in trained.items() if task_type == SEQ_CLS]
    if scoring and len(scoring) < len(trained) and not source.of_class:
        raise CheckpointError(
            f"{source.adapters[scoring[0]]}: task_type is {SEQ_CLS}, those of other adapters are not; a pack gives "
            "either scores or vectors: export the adapters to packs of their own"
        )
    if not scoring and not source.of_class:
        _refuse_cross_encoder(source, pooling)
        return None
    found = source.family.read_scores(source.checkpoint)
    if not scoring:
        _check_labels(source, found)
    return found


def _of_language_model(source: ScoreSource, pooling: Pooling | None) -> ScoreModel:
    if pooling is not None:
        raise CheckpointError(f"--pooling is of no use: {source.config.folder} gives scores; leave it out")
    for folder in source.adapters.values():
        raise CheckpointError(
            f"{folder}: adapters of models with LogitScore are not supported; merge it with PEFT's merge_and_unload, "
            "and export the merged model"
        )
    assert source.config.logits is not None
    return read_token_scores(source.checkpoint, source.model, source.config.logits)


def _refuse_cross_encoder(source: ScoreSource, pooling: Pooling | None) -> None:
    if source.config.is_cross_encoder and pooling is None:
        raise CheckpointError(
            f"{source.config.folder}: a CrossEncoder, and no class for sequence classification of a family that is "
            "exported with scores; docs/models.md has those that are"
        )


def _check_labels(source: ScoreSource, found: ScoreModel) -> None:
    """Refuse a classifier of several labels."""
    name = f"{_last(found.head).module}.weight"
    for stored, tensor in source.checkpoint.tensors.items():
        if source.model.rules.normal(stored) == name and tensor.shape[:1] != (1,):
            raise CheckpointError(
                f"{tensor.path}: {stored} has {tensor.shape[0]} labels, a reranker has one; for the vectors of this "
                "model pass --pooling"
            )


def _last(head: ScoreHead) -> Dense:
    last = head.layers[-1]
    assert isinstance(last, Dense)
    return last


def take_score_head(
    checkpoint: Checkpoint, model: Model, found: ScoreModel, tasks: Mapping[str, TaskPlan]
) -> Checkpoint:
    """The checkpoint with the tensors of the head that are parts of others, or that the adapters alone have.

    Each task keeps its own as a replacement, so that several adapters may bring different heads.

    Raises:
        CheckpointError: neither the checkpoint nor an adapter has a tensor of the head.
    """
    present = {model.rules.normal(name) for name in checkpoint.tensors}
    added: dict[str, StoredTensor] = {**found.tensors}
    for name in (name for layer in found.head.layers for name in layer.shapes if name not in {*present, *added}):
        for task, plan in tasks.items():
            own = {} if plan.adapter is None else plan.adapter.replacements
            tensor = next((each for stored, each in own.items() if model.rules.normal(stored) == name), None)
            if tensor is None:
                raise CheckpointError(
                    f"{checkpoint.folder}: neither the checkpoint nor the adapter of {task!r} has {name}, a part of "
                    f"the head of scores; train with modules_to_save, or pass --pooling for vectors"
                )
            added.setdefault(name, tensor)
    return replace(checkpoint, tensors={**checkpoint.tensors, **added})


def plan_scores(source: ScoreSource, found: ScoreModel, texts: TextInputs) -> ScorePlan:
    """Recipe of the scores: the pairs of tokenizer.json, cut as transformers cuts them.

    Raises:
        CheckpointError: tokenizer.json has no pairs, or a file states an activation that is not supported.
    """
    if found.prompt is not None:
        return _prompted(source, found, found.prompt, texts)
    template = pair_template(json.loads(texts.tokenizer_json), texts.tokenizer)
    windows = found.overlap is not None
    return ScorePlan(
        head=found.head,
        recipe=PairScores(
            parts=template.parts,
            instruction=None,
            max_tokens=texts.max_tokens,
            # A query of at most half a pair, with the special tokens around it.
            max_query_tokens=max(1, texts.max_tokens // 2 - 2) if windows else None,
            max_document_tokens=None,
            cut="document" if windows else "longest",
            # Windows share at most a quarter of their length.
            overlap=None if found.overlap is None else min(found.overlap, texts.max_tokens // 4),
            token_types=_reads_types(template, found, texts.tokenizer),
            offset=0.0,
            activation=score_activation(source.checkpoint, source.config, source.by_task),
        ),
    )


def _prompted(source: ScoreSource, found: ScoreModel, prompt: PairPrompt, texts: TextInputs) -> ScorePlan:
    """Recipe of a language model: the prompt with both texts, the end of the document cut, as the model card does."""
    return ScorePlan(
        head=found.head,
        recipe=PairScores(
            parts=prompt_template(prompt, json.loads(texts.tokenizer_json), texts),
            instruction=instruction_of(prompt, source.config),
            max_tokens=texts.max_tokens,
            max_query_tokens=None,
            max_document_tokens=None,
            cut="document",
            overlap=None,
            token_types=False,
            offset=0.0,
            activation=score_activation(source.checkpoint, source.config, {}),
        ),
    )


def _reads_types(template: PairTemplate, found: ScoreModel, tokenizer: Path) -> bool:
    """True if the model has token types, and transformers' tokenizer gives it those of the template."""
    path = tokenizer.with_name("tokenizer_config.json")
    stated = read_json(path, _TypedTokenizer) if exists(path) else _TypedTokenizer()
    names = stated.model_input_names
    gives = stated.tokenizer_class not in PLAIN_TOKENIZERS if names is None else TOKEN_TYPE_IDS in names
    return template.token_types and found.typed_text is not None and gives
