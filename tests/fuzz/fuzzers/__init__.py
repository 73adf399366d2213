"""All fuzzers, one a file, in the order of their rows in the table."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz.fuzzers import (
    checkpoints,
    graphs,
    image_packs,
    images,
    onnx_adapters,
    pack_json,
    pdfs,
    peft_adapters,
    saved_vectors,
    texts,
    tokenizers,
)
from tests.fuzz.outcome import Fuzzer

MODULES = (
    texts, saved_vectors, images, pdfs, pack_json, graphs, image_packs, tokenizers, onnx_adapters, checkpoints,
    peft_adapters,
)  # fmt: skip
FUZZERS: Mapping[str, Fuzzer] = {module.FUZZER.name: module.FUZZER for module in MODULES}
