"""Model families: one file each, named like the `model_type` of config.json.

A family file offers one object, `FAMILY`. A new family is one new file; nothing else has to know it.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from embedpack.errors import CheckpointError, unknown
from embedpack.pack.manifest import ImageInput, Pooling
from embedpack_export.graph.context import StagedModel
from embedpack_export.sources.checkpoint import Checkpoint
from embedpack_export.sources.weights import NameRules


@dataclass(frozen=True)
class Prompts:
    """Prefixes of a task's texts by name."""

    prefixes: Mapping[str, str]
    default: str | None


@dataclass(frozen=True)
class Vision:
    """The part that reads images.

    Attributes:
        model: the tower; its last stage returns the vectors of image tokens.
        image: how an image becomes its inputs.
        tensors: pattern of the tower's tensors.
    """

    model: StagedModel
    image: ImageInput
    tensors: re.Pattern[str]


@dataclass(frozen=True)
class TokenHead:
    """A linear layer that makes one vector of each token."""

    module: str
    dimensions: int


@dataclass(frozen=True)
class Model:
    """A checkpoint as its family reads it.

    Attributes:
        dimensions: size of a hidden state.
        max_tokens: longest text that the positions allow, special tokens included.
        pad_token_id: the token that fills up a batch.
        vocabulary: rows of the embedding table.
        truncate_dims: truncations that the model was trained for, if its configuration names them.
        rules: how the tensors of the checkpoint and of adapters may be named.
        text: the graph of texts, and of images among them where there is `vision`.
        text_alone: the graph of texts without images, where that is another one.
        pooling: that of the family, if it has one.
        prompts: of each task, where the family has its own; under "" those of any other task.
        adapters: folder of the adapters that come with the checkpoint, for the tasks in `prompts`.
        adapted: modules that each of those adapters must change.
        vision: the part that reads images, if there is one.
        other_tensors: patterns of the tensors of such parts, also of those that are left out.
        tokens: the head for multi-vectors, if there is one.
    """

    dimensions: int
    max_tokens: int
    pad_token_id: int
    vocabulary: int
    truncate_dims: tuple[int, ...]
    rules: NameRules
    text: StagedModel
    text_alone: StagedModel | None = None
    pooling: Pooling | None = None
    prompts: Mapping[str, Prompts] = field(default_factory=dict)
    adapters: Path | None = None
    adapted: frozenset[str] = frozenset()
    vision: Vision | None = None
    other_tensors: tuple[re.Pattern[str], ...] = ()
    tokens: TokenHead | None = None


@dataclass(frozen=True)
class Family:
    """One architecture."""

    read: Callable[[Checkpoint], Model]


def find_family(model_type: str) -> Family:
    """The family of that name.

    Raises:
        CheckpointError: there is none.
    """
    known = [module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)]
    if model_type.replace("_", "-") not in known:
        raise CheckpointError(f"config.json: {unknown('model_type', model_type, known)}")
    family = importlib.import_module(f"{__name__}.{model_type.replace('-', '_')}").FAMILY
    assert isinstance(family, Family)
    return family
