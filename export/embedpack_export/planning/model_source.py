"""Model source: the files of a checkpoint and its adapters, with all that decides the full-precision vectors."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from embedpack.inputs.processor import Processor
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.digests import describe_file
from embedpack.pack.manifest import Pooling
from embedpack.pack.score_recipes import MaxSimScores
from embedpack_export.families.heads import ScoreHead, SingleHead, TokenHead
from embedpack_export.families.model import NO_RULES, Model
from embedpack_export.planning.score_head import ScorePlan
from embedpack_export.planning.tasks import TaskPlan
from embedpack_export.planning.text_inputs import TextInputs
from embedpack_export.sources.checkpoint import SINGLE, Checkpoint
from embedpack_export.sources.files import MAX_JSON_BYTES, check_file, exists

# Resizing and normalization of images decide their vectors as much as the weights do.
PROCESSOR_CONFIGS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint with its adapters; `source_reading.py` opens it."""

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
        """Pooling of single vectors, or of scores of pairs; None: there are neither."""
        if self.scores is not None:
            return self.scores.head.pooling if isinstance(self.scores.head, ScoreHead) else None
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
        types, marks = (False, False) if self.scores is None else (self.scores.token_types, self.scores.of_lists)
        return Processor(tokenizer, self.texts.pad_token_id, image, types, marks)

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
