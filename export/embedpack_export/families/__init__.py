"""Model families: one file each, named like the `model_type` of config.json.

A family file offers one object, `FAMILY`. A new family is one new file; nothing else has to know it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from embedpack.errors import CheckpointError, unknown
from embedpack_export.checkpoint import Checkpoint
from embedpack_export.graph.target import HiddenStates
from embedpack_export.weights import NameRules


@dataclass(frozen=True)
class TextModel:
    """A checkpoint as its family reads it.

    Attributes:
        dimensions: size of a hidden state.
        max_tokens: longest text that the positions allow, special tokens included.
        pad_token_id: the token that fills up a batch.
        vocabulary: rows of the embedding table.
        truncate_dims: truncations that the model was trained for, if its configuration names them.
        rules: how the tensors of the checkpoint and of adapters may be named.
        hidden_states: appends the model to a graph.
    """

    dimensions: int
    max_tokens: int
    pad_token_id: int
    vocabulary: int
    truncate_dims: tuple[int, ...]
    rules: NameRules
    hidden_states: HiddenStates


@dataclass(frozen=True)
class Family:
    """One architecture."""

    read: Callable[[Checkpoint], TextModel]


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
