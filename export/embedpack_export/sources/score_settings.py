"""Activation of scores, as sentence-transformers finds it for a CrossEncoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from embedpack.errors import CheckpointError
from embedpack_export.sources.checkpoint import Checkpoint
from embedpack_export.sources.key_rules import shown
from embedpack_export.sources.sentence_transformers import SentenceTransformersConfig

ActivationName = Literal["none", "sigmoid"]
# Names in the files; a CrossEncoder of one label without any has Sigmoid.
ACTIVATIONS: Mapping[object, ActivationName] = {
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.linear.Identity": "none",
    "torch.nn.Sigmoid": "sigmoid",
    "torch.nn.Identity": "none",
    None: "sigmoid",
}


def score_activation(
    checkpoint: Checkpoint, config: SentenceTransformersConfig, by_task: Mapping[str, SentenceTransformersConfig]
) -> ActivationName:
    """Activation in the files of the adapters, `by_task`, else of the checkpoint.

    Raises:
        CheckpointError: it is another one, or that of two adapters differs.
    """
    stated = {folder.folder: folder.activation for folder in by_task.values() if folder.activation is not None}
    if len(set(stated.values())) > 1:
        raise CheckpointError(
            f"the adapters have different activations of their scores, a pack has one: "
            f"{', '.join(f'{folder} has {name}' for folder, name in stated.items())}"
        )
    for folder, name in stated.items():
        return _known(folder / "config_sentence_transformers.json", name)
    path = checkpoint.folder / "config.json"
    nested = checkpoint.config.get("sentence_transformers")
    if config.is_cross_encoder and config.activation is not None:
        return _known(config.folder / "config_sentence_transformers.json", config.activation)
    if isinstance(nested, dict) and "activation_fn" in nested:
        return _known(path, nested["activation_fn"])
    return _known(path, checkpoint.config.get("sbert_ce_default_activation_function"))


def _known(path: Path, name: object) -> ActivationName:
    if not isinstance(name, str | None) or name not in ACTIVATIONS:
        raise CheckpointError(
            f"{path}: the activation of scores is {shown(name)}; supported: Sigmoid and Identity of torch.nn"
        )
    return ACTIVATIONS[name]
