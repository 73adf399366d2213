"""Strict loading of a checkpoint and an adapter into a class that scores pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from embedpack.errors import CheckpointError
from embedpack_export.families.heads import ScoreHead
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.reference.torch.loading import quiet
from embedpack_export.reference.torch.pretrained import TOKENIZER, open_model
from embedpack_export.reference.torch.unmerged_adapter import UnmergedAdapter
from embedpack_export.sources.logit_score import LogitScore
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.sentence_transformers import read_sentence_transformers

# Families whose checkpoints have other names than transformers' class.
RENAMED = ("jina_reranker_v2",)


@dataclass(frozen=True)
class _Scored:
    """Logits of scores [batch]."""

    logits: torch.Tensor


def load_pair_model(source: ModelSource, task: str) -> torch.nn.Module:
    """Load the model in float32 with the unmerged adapter of a task, in eval mode.

    Raises:
        CheckpointError: a tensor of the model or a key of the adapter is missing, or has no place in the model.
    """
    folder, fields = source.checkpoint.folder, dict(source.model.config_of_class or {})
    if source.family in RENAMED:
        return _load_renamed(source, task)
    if source.scores is not None and isinstance(source.scores.head, ScoreHead) and source.scores.head.of_tokens:
        return _load_language_model(source)
    with quiet():
        config = AutoConfig.for_model(str(fields.pop("model_type")), **fields) if fields else None
        config = config or AutoConfig.from_pretrained(folder, **TOKENIZER)
        config.num_labels = 1
        model, loaded = open_model(AutoModelForSequenceClassification, folder, config)
        place = _places(model, source.model.rules)
        adapter = source.tasks[task].adapter
        brought = set() if adapter is None else set(map(place, adapter.replacements))
        wrong = sorted(name for name in loaded["missing_keys"] if name not in brought)
        wrong += sorted(str(item) for item in loaded["mismatched_keys"])
        if wrong:
            raise CheckpointError(f"{folder}: transformers finds no fitting weights for {', '.join(wrong[:5])}")
        if adapter is not None:
            rules = source.model.rules
            model = UnmergedAdapter(adapter.folder, task, place, rules.unused.search, with_heads=True).add_to(model)
    return model.eval()


class _TokenLogits(torch.nn.Module):
    """A language model whose output is the difference of the logits of two tokens behind the last one."""

    def __init__(self, model: torch.nn.Module, logits: LogitScore) -> None:
        super().__init__()
        self.model = model
        self._true, self._false = logits.true_token_id, logits.false_token_id

    def forward(self, **feeds: torch.Tensor) -> _Scored:
        last = self.model(**feeds).logits[:, -1]
        return _Scored(last[:, self._true] - last[:, self._false])


def _load_language_model(source: ModelSource) -> torch.nn.Module:
    """Load the model and the tokens of LogitScore; CheckpointError if a tensor is missing."""
    folder, logits = source.checkpoint.folder, read_sentence_transformers(source.folder).logits
    assert logits is not None
    with quiet():
        model, loaded = open_model(AutoModelForCausalLM, folder)
    wrong = sorted(map(str, (*loaded["missing_keys"], *loaded["mismatched_keys"])))
    if wrong:
        raise CheckpointError(f"{folder}: transformers finds no fitting weights for {', '.join(wrong[:5])}")
    return _TokenLogits(model, logits).eval()


def _load_renamed(source: ModelSource, task: str) -> torch.nn.Module:
    """Load transformers' class with the tensors under the names that the graph has, which are the class's own.

    Raises:
        CheckpointError: the two differ in a tensor, or the task has an adapter.
    """
    adapter, rules, folder = source.tasks[task].adapter, source.model.rules, source.checkpoint.folder
    if adapter is not None:
        raise CheckpointError(f"{adapter.folder}: there is no torch reference for adapters of this family")
    fields = dict(source.model.config_of_class or {})
    config = AutoConfig.for_model(str(fields.pop("model_type")), **fields, num_labels=1)
    from_config: Any = AutoModelForSequenceClassification.from_config
    model: torch.nn.Module = from_config(config, dtype=torch.float32, attn_implementation="eager")
    place = _places(model, rules)
    tensors = rules.of_graph(source.checkpoint.tensors.items(), str(folder))
    state = {
        place(name): torch.from_numpy(each.float32()) for name, each in tensors.items() if not rules.unused.search(name)
    }
    loaded = model.load_state_dict(state, strict=False)
    wrong = [name for name in (*loaded.missing_keys, *loaded.unexpected_keys) if not rules.unused.search(name)]
    if wrong:
        raise CheckpointError(f"{folder}: transformers' model and the checkpoint differ in {', '.join(wrong[:5])}")
    return model.eval()


def _places(model: torch.nn.Module, rules: NameRules) -> Callable[[str], str]:
    """Names of modules and tensors in a class with a head, by their names in files."""
    tower = str(model.base_model_prefix)
    heads = {name for name, _ in model.named_children()} - {tower}

    def place(name: str) -> str:
        own = rules.normal(name)
        return own if own.partition(".")[0] in heads else f"{tower}.{own}"

    return place
