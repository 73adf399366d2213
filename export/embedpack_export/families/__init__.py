"""Model families: one file each, named like the `model_type` of config.json.

A family file defines one object, `FAMILY`. A new family is one new file here, and an entry of
`reference/torch/by_family.py` if transformers' `AutoModel` does not load it (CONTRIBUTING.md, "Add a family").
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
from embedpack_export.sources.key_rules import KeyTable
from embedpack_export.sources.tokenizer_class import NO_CLASS, FamilyTokenizer
from embedpack_export.sources.weights import NameRules

# Module of the linear layer that makes multi-vectors, in checkpoints and adapters.
PROJECTOR = "multi_vector_projector"


@dataclass(frozen=True)
class Prompts:
    """Text prefixes of a task by prompt name, and the name of the default prompt."""

    prefixes: Mapping[str, str]
    default: str | None


@dataclass(frozen=True)
class Vision:
    """Vision tower."""

    model: StagedModel  # stages of the tower; the last one returns the vectors of image tokens
    image: ImageInput  # processing of images to the tower's inputs
    tensors: re.Pattern[str]  # pattern of the names of the tower's tensors


@dataclass(frozen=True)
class TokenHead:
    """Linear layer that projects hidden states to token vectors."""

    module: str
    dimensions: int


@dataclass(frozen=True)
class Model:
    """A checkpoint as its family reads it."""

    dimensions: int  # size of a hidden state
    max_tokens: int  # maximum length of a text in tokens, special tokens included
    pad_token_id: int | None  # id of the padding token in config.json, which may be no row of the embedding table
    vocabulary: int  # rows of the embedding table
    truncate_dims: tuple[int, ...]  # truncations that the model was trained for, if its configuration names them
    rules: NameRules  # names of the tensors in the checkpoint and in adapters
    text: StagedModel  # text graph; with `vision` it also takes the vectors of images
    text_alone: StagedModel | None = None  # text graph without images, if that is another one
    pooling: Pooling | None = None  # pooling of the family, if it has one
    # Prompts of each task, if the family has its own; under "" those of any other task.
    prompts: Mapping[str, Prompts] = field(default_factory=dict)
    adapters: Path | None = None  # folder of the adapters in the checkpoint, for the tasks in `prompts`
    adapted: frozenset[str] = frozenset()  # names of the modules that each of those adapters must change
    vision: Vision | None = None  # vision tower, if the model is to read images
    # Patterns of tensors outside of the text graph, also of parts that are not exported.
    other_tensors: tuple[re.Pattern[str], ...] = ()
    tokens: TokenHead | None = None  # head of multi-vectors, if there is one
    eos_token_id: int | None = None  # id of the token at the end of texts in config.json
    tokenizer: FamilyTokenizer = NO_CLASS  # class of its tokenizers in transformers


@dataclass(frozen=True)
class Family:
    """One architecture."""

    # Builds the model of a checkpoint; raises CheckpointError if a value of config.json is missing or not supported.
    read: Callable[[Checkpoint], Model]
    keys: tuple[KeyTable, ...]  # rules of the keys of config.json, and of other files of the family
    # Builds the vision tower, if the architecture has one; errors as `read`.
    read_vision: Callable[[Checkpoint], Vision] | None = None
    own_modules: tuple[str, ...] = ()  # types in modules.json, of the checkpoint's own code, that the family covers


def model_types() -> list[str]:
    """Names of the families; `-` stands for `_` too."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return [name.replace("_", "-") for name in names if not name.startswith("_")]


def find_family(model_type: str) -> Family:
    """Find the family of a model type; raises CheckpointError if there is none."""
    families = model_types()
    if model_type.replace("_", "-") not in families:
        raise CheckpointError(f"config.json: {unknown('model_type', model_type, families)}")
    family = importlib.import_module(f"{__name__}.{model_type.replace('-', '_')}").FAMILY
    assert isinstance(family, Family)
    return family
