"""Head of single vectors: of the family, or of the files of sentence-transformers in a checkpoint and its adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedpack.errors import CheckpointError
from embedpack.pack.manifest import Pooling
from embedpack.storage.safetensors import StoredTensor
from embedpack.vectors.metric import Similarity
from embedpack_export.families.heads import SingleHead
from embedpack_export.families.model import Model
from embedpack_export.sources.layer_modules import LayerModule
from embedpack_export.sources.sentence_transformers import SentenceTransformersConfig

# Folders of a checkpoint and its adapters, the checkpoint first.
Configs = Sequence[SentenceTransformersConfig]


@dataclass(frozen=True)
class HeadWithTensors:
    """A head, and the tensors of its layers that are in files of their own."""

    head: SingleHead
    tensors: Mapping[str, StoredTensor]


def read_single_head(model: Model, configs: Configs, pooling: Pooling | None) -> HeadWithTensors:
    """Head of the family or of the files; `pooling` replaces its pooling.

    Raises:
        CheckpointError: the pooling is unknown, two folders contradict each other, or layers do not fit each other.
    """
    own = model.heads.single
    if own is not None:
        for config in configs:
            if config.layers:
                raise CheckpointError(
                    f"{config.folder / 'modules.json'}: has {', '.join(config.modules)}; the family of this model has "
                    f"{own.pooling} pooling without layers after it: is it a model of another family?"
                )
            if pooling is None and config.pooling not in (None, own.pooling):
                raise CheckpointError(
                    f"{config.folder / 'modules.json'}: has {config.pooling} pooling, the family of this model has "
                    f"{own.pooling}; pass --pooling"
                )
        return HeadWithTensors(replace(own, pooling=pooling or own.pooling), {})
    layers, normalize = _layers(configs), _normalizes(configs)
    size = model.hidden
    for module in layers:
        if module.layer.inputs != size:
            raise CheckpointError(
                f"{module.files[0]}: takes vectors of {module.layer.inputs} dimensions, the module before it gives "
                f"{size}; are both of one model?"
            )
        size = module.layer.outputs
    return HeadWithTensors(
        SingleHead(
            pooling=pooling or _pooling(configs),
            layers=tuple(module.layer for module in layers),
            normalize=normalize,
            similarity=_similarity(configs, normalize=normalize),
        ),
        {name: tensor for module in layers for name, tensor in module.tensors.items()},
    )


def _pooling(configs: Configs) -> Pooling:
    stated = [(config.folder, config.pooling) for config in configs if config.pooling is not None]
    if not stated:
        raise CheckpointError(
            f"{configs[0].folder}: no modules.json, so the pooling of the tokens is unknown; "
            "pass --pooling mean|cls|last"
        )
    (first, pooling), *others = stated
    for folder, other in others:
        if other != pooling:
            raise CheckpointError(f"{first} has {pooling} pooling, {folder} has {other}; pass --pooling")
    return pooling


def _layers(configs: Configs) -> Sequence[LayerModule]:
    """Layers of the folders that have modules; those of all are the same."""
    stated = [config for config in configs if config.modules]
    for other in stated[1:]:
        if not _same_layers(stated[0].layers, other.layers):
            raise CheckpointError(
                f"{stated[0].folder} has the modules {', '.join(stated[0].modules)}, {other.folder} has "
                f"{', '.join(other.modules)}, with other weights or settings: all tasks of a pack share one head; "
                "export them as packs of their own"
            )
    return stated[0].layers if stated else []


def _normalizes(configs: Configs) -> bool:
    """True if the folders that have modules have Normalize; without any modules vectors are normalized."""
    stated = [config for config in configs if config.modules]
    for other in stated[1:]:
        if ("Normalize" in other.modules) != ("Normalize" in stated[0].modules):
            raise CheckpointError(
                f"{stated[0].folder} has the modules {', '.join(stated[0].modules)}, {other.folder} has "
                f"{', '.join(other.modules)}: one of them has Normalize, so its vectors have other lengths; export the "
                "adapters to packs of their own"
            )
    return not stated or "Normalize" in stated[0].modules


def _similarity(configs: Configs, *, normalize: bool) -> Similarity:
    """Similarity that all files state, of those that state one; vectors of length 1 rank alike under most of them."""
    supported = ("cosine", "dot", "euclidean") if normalize else ("cosine", "dot")
    stated = [config for config in configs if config.similarity is not None]
    for config in stated:
        path = config.folder / "config_sentence_transformers.json"
        if config.similarity not in supported:
            raise CheckpointError(
                f"{path}: similarity_fn_name is {config.similarity!r}; supported: {', '.join(supported)}; vectors of "
                "this model are not ranked that way. Take one of these, if that ranking is wanted"
            )
        if not normalize and config.similarity != stated[0].similarity:
            raise CheckpointError(
                f"{path}: similarity_fn_name is {config.similarity!r}, that of {stated[0].folder} "
                f"{stated[0].similarity!r}; all tasks of a pack share one"
            )
    return "dot" if stated and not normalize and stated[0].similarity == "dot" else "cosine"


def _same_layers(one: Sequence[LayerModule], other: Sequence[LayerModule]) -> bool:
    """True if the layers and their tensors are equal."""
    if [module.layer for module in one] != [module.layer for module in other]:
        return False
    pairs = [(a.tensors[name], b.tensors[name]) for a, b in zip(one, other, strict=True) for name in a.tensors]
    return all(np.array_equal(first.float32(), second.float32()) for first, second in pairs)
