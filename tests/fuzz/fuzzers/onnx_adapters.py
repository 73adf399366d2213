"""Changed adapter files of a pack with switchable adapters, whose digests fit."""

from __future__ import annotations

import random
from pathlib import Path

from embedpack import Embedder
from embedpack_export.pipeline import export
from tests.fuzz.mutations import mutate_bytes
from tests.fuzz.outcome import Attempt, Fuzzer
from tests.fuzz.packs import PackCopy, vectors_of
from tests.helpers.exports import query_update, quick, write_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint

TASKS = ("code", "retrieval")


def prepare(folder: Path) -> Attempt:
    """Tries with changed bytes of one of two adapters."""
    adapters = {task: write_adapter(folder / task, query_update(seed=seed)) for seed, task in enumerate(TASKS)}
    settings = quick(
        make_checkpoint(folder / "toy"), folder / "made", weights=("fp32",), adapters=adapters,
        adapter_modes=("switchable",),
    )  # fmt: skip
    manifest = export(settings)
    (variant,) = manifest.variants.values()
    pack = PackCopy(folder / "made", folder / "pack")

    def attempt(rng: random.Random) -> None:
        task = rng.choice(TASKS)
        name = variant.adapter_files[task]
        with pack.replaced({name: mutate_bytes(pack.read(name), rng)}) as changed:
            vectors_of(Embedder(changed, threads=1), task)

    return attempt


FUZZER = Fuzzer("onnx_adapter files", 800, prepare)
