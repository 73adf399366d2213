"""Loading a variant: its files checked, its graphs opened, its inputs prepared."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from embedpack.encoder import Encoder
from embedpack.errors import PackError
from embedpack.pack import Pack, Variant, VisionGraph
from embedpack.preparation import Preparation
from embedpack.saturation import products_saturate
from embedpack.session import Adapter, GraphSession, check_onnxruntime
from embedpack.tokenizer import TextTokenizer

logger = logging.getLogger("embedpack")


def graph_for_this_cpu(graph: str, without_vnni: str | None) -> str:
    """Name of the one of two graphs that gives exact products here."""
    if without_vnni is None or not products_saturate():
        return graph
    logger.debug("this CPU has no int8 dot products (VNNI): using %s", without_vnni)
    return without_vnni


def open_encoder(pack: Pack, variant: Variant, threads: int) -> Encoder:
    """Load a variant's graphs and the pack's tokenizer; their digests are checked, of the weights only the size.

    Raises:
        PackError: a file is missing or changed, or cannot be loaded.
    """
    check_onnxruntime(variant.min_onnxruntime)
    preparation = _preparation(pack)
    vision = None
    if pack.manifest.image is not None:
        graph = pack.manifest.vision[variant.weights]
        # Large, and of no use to those who embed texts only.
        vision = functools.cache(lambda: _open(pack, graph, threads))
    adapters = {task: Adapter(_checked(pack, name)) for task, name in variant.adapter_files.items()}
    return Encoder(_open(pack, variant, threads), preparation, vision, adapters)


def _checked(pack: Pack, name: str) -> Path:
    """Path of a file whose digest is right; onnxruntime trusts what it maps."""
    pack.read(name)
    return pack.path(name)


def _open(pack: Pack, graph: Variant | VisionGraph, threads: int) -> GraphSession:
    for name in graph.external_data:
        pack.path(name)
    name = graph_for_this_cpu(graph.graph, graph.graph_without_vnni)
    return GraphSession(_checked(pack, name), threads)


def _preparation(pack: Pack) -> Preparation:
    text = pack.manifest.text
    content = pack.read(text.tokenizer)
    try:
        tokenizer = TextTokenizer(content, text.max_tokens)
    except PackError as cause:
        raise PackError(f"{pack.folder}: {cause}") from cause
    if tokenizer.largest_id >= text.vocabulary:
        raise PackError(
            f"{pack.folder}: {text.tokenizer} has ids up to {tokenizer.largest_id}, the graphs' embedding table only "
            f"{text.vocabulary} rows; it belongs to another model: copy the pack again"
        )
    return Preparation(tokenizer, text.pad_token_id, pack.manifest.image, pack.manifest.dimensions)
