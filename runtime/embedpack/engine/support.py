"""Parts of the pack format that this version of the runtime cannot run yet: refused before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator

from embedpack.errors import PackError
from embedpack.pack.folder import Pack
from embedpack.pack.input_recipes import SquareImage
from embedpack.pack.variants import Variant, devices_of


def check_support(pack: Pack, variant: Variant) -> None:
    """Raise PackError for a variant of an unknown combination of device and weights, or inputs of an unknown kind."""
    if variant.device not in devices_of(variant.weights):
        raise PackError(
            f"{pack.folder}: {variant.graph} is made for {variant.device} with {variant.weights} weights; "
            "this embedpack runs fp32 and int8 on CPUs, fp16 on GPUs and int4 on both: open another variant"
        )
    for part in _unsupported(pack):
        raise PackError(f"{pack.folder}: this embedpack cannot run {part}; update it")


def _unsupported(pack: Pack) -> Iterator[str]:
    manifest = pack.manifest
    gives = {graph.gives for graph in manifest.vision.values()}
    if isinstance(manifest.image, SquareImage) and gives != {"vectors"}:
        yield "images of this type without vectors of their own (`$.image.type`)"
