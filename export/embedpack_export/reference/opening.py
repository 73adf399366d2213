"""Reference of a finished pack: its checkpoint in torch, or its own fp32 variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedpack.errors import InputError, OptionError
from embedpack.pack.folder import Pack
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.planning.prompt_options import PromptOptions
from embedpack_export.planning.source_reading import read_model_source
from embedpack_export.planning.tasks import TaskNames
from embedpack_export.planning.text_inputs import TextOptions
from embedpack_export.reference.cache import ReferenceCache
from embedpack_export.reference.fp32_variant import Fp32VariantReference
from embedpack_export.reference.protocol import Reference
from embedpack_export.reference.torch_reference import TorchReference


@dataclass(frozen=True)
class ReferenceSource:
    """Files of a reference."""

    # Folder that the pack was exported from; None: the fp32 variants of the pack are the reference.
    checkpoint: Path | None
    adapters: Mapping[str, Path]  # task to the folder of its PEFT adapter
    cache: Path | None  # folder for vectors of the torch reference; None: they are not kept


def open_reference(pack: Pack, source: ReferenceSource, threads: int | None) -> Reference:
    """Open the reference of a pack.

    Raises:
        InputError: the checkpoint and adapters are not those that the pack was made of, or there is neither a
            checkpoint nor an fp32 variant.
        CheckpointError: the checkpoint or an adapter cannot be read.
    """
    if source.checkpoint is None:
        if source.adapters:
            raise OptionError("--adapter goes with --reference; name the checkpoint that the adapters belong to")
        return Fp32VariantReference(pack, threads)
    model = model_source_of(pack, source.checkpoint, source.adapters)
    return TorchReference(model, ReferenceCache(source.cache))


def model_source_of(pack: Pack, checkpoint: Path, adapters: Mapping[str, Path]) -> ModelSource:
    """Open the checkpoint and the adapters that a pack was exported from.

    Raises:
        InputError: the pack was made of other files.
        CheckpointError: the checkpoint or an adapter cannot be read, or a task of the pack is not in it.
    """
    manifest = pack.manifest
    without = [name for name, task in manifest.tasks.items() if task.adapter is None]
    model = read_model_source(
        checkpoint,
        adapters=adapters,
        tasks=TaskNames(tuple(manifest.tasks), next(iter(without), None)),
        modality="text" if manifest.image is None else "text+image",
        pooling=None if manifest.single is None else manifest.single.pooling,
        texts=TextOptions(
            manifest.text.max_tokens,
            manifest.export.text_tokens,
            PromptOptions.of_record(manifest.export.settings),
        ),
    )
    if model.fingerprint != manifest.source.fingerprint:
        options = "".join(f" and --adapter {task}={folder}" for task, folder in adapters.items())
        raise InputError(
            f"{pack.folder} was made of other files than {checkpoint}{options}: the pack's fingerprint is "
            f"{manifest.source.fingerprint[:16]}…, that of these files {model.fingerprint[:16]}…; pass the "
            "checkpoint and all adapters that it was exported from"
        )
    return model
