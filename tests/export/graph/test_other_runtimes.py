"""Graphs in runtimes other than onnxruntime: finished vectors from the token ids of the pack's tokenizer.

Float32 sums in another order differ in the last bits, in onnx's reference evaluator and in OpenVINO alike. int8 and
int4 differ by more for two reasons: such a last bit moves a value of an activation to the next integer, and OpenVINO
computes the activations of 4-bit products in float32. Both are smaller than the rounding of the pack itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from tokenizers import Tokenizer

from embedpack import Embedder
from embedpack.pack.graph_io import ATTENTION_MASK, INPUT_IDS, SENTENCE_EMBEDDING
from tests.helpers.exports import distance
from tests.helpers.tiny_pack import TINY_PACK

TEXTS = [
    "how do i reset the router?",
    "a",
    "the cat sleeps on the warm roof, while the rain is blue",
    "find every label twice in a large folder",
]
FLOAT32_TOLERANCE = 1e-6
OUTPUTS = [SENTENCE_EMBEDDING, f"{SENTENCE_EMBEDDING}_int8", f"{SENTENCE_EMBEDDING}_binary"]


def feeds(folder: Path) -> dict[str, npt.NDArray[np.int64]]:
    """Token ids of the texts, padded on the right, and their mask."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    rows = tokenizer.encode_batch(TEXTS)
    return {
        INPUT_IDS: np.array([row.ids for row in rows], np.int64),
        ATTENTION_MASK: np.array([row.attention_mask for row in rows], np.int64),
    }


def own_vectors(folder: Path, weights: str) -> npt.NDArray[np.float32]:
    return Embedder(folder, weights=weights).encode(TEXTS, prompt_name="").decode()


def openvino_outputs(graph: Path) -> Sequence[npt.NDArray[Any]]:
    openvino = pytest.importorskip("openvino", reason="needs pip install openvino")
    # "ACCURACY": float32 activations, as in onnxruntime; the default on many CPUs is bfloat16.
    model = openvino.Core().compile_model(graph, "CPU", {"EXECUTION_MODE_HINT": "ACCURACY"})
    results = model(feeds(graph.parent))
    return [results[name] for name in OUTPUTS]


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_scales_of_the_embedding_table_are_constants(weights: str) -> None:
    """OpenVINO refuses computed ones."""
    graph = onnx.load(TINY_PACK / f"default-{weights}.onnx", load_external_data=False).graph
    (table,) = (node for node in graph.node if node.op_type == "GatherBlockQuantized")
    assert table.input[2] in {tensor.name for tensor in graph.initializer}


def test_reference_evaluator_of_onnx_computes_the_vectors_of_fp32() -> None:
    evaluator: Any = ReferenceEvaluator(str(TINY_PACK / "default-fp32.onnx"))
    found = evaluator.run([SENTENCE_EMBEDDING], feeds(TINY_PACK))[0]
    assert distance(found, own_vectors(TINY_PACK, "fp32")) <= FLOAT32_TOLERANCE


def test_openvino_computes_the_vectors_of_fp32() -> None:
    found = openvino_outputs(TINY_PACK / "default-fp32.onnx")[0]
    assert distance(found, own_vectors(TINY_PACK, "fp32")) <= FLOAT32_TOLERANCE


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_openvino_is_closer_to_a_variant_than_the_variant_to_fp32(weights: str) -> None:
    vectors, int8, bits = openvino_outputs(TINY_PACK / f"default-{weights}.onnx")
    own = own_vectors(TINY_PACK, weights)
    assert distance(vectors, own) <= distance(own, own_vectors(TINY_PACK, "fp32"))
    assert (int8.dtype, int8.shape) == (np.dtype(np.int8), own.shape)
    assert (bits.dtype, bits.shape) == (np.dtype(np.uint8), (len(TEXTS), own.shape[1] // 8))
