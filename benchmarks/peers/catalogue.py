"""Catalogue of the peers: names, environments, conversions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Arithmetic = Literal["fp32", "bf16", "int8"]


@dataclass(frozen=True)
class Step:
    """A conversion of the model: the function `convert` of a module, for one format."""

    environment: str
    module: str
    format: str


@dataclass(frozen=True)
class Peer:
    """A program that runs the model.

    A module of this package opens it for one format. `arithmetic` is that of most of its products, whose peak its speed
    is compared with; its inputs are token ids, or texts that it tokenizes itself.
    """

    name: str
    environment: str
    module: str
    format: str
    arithmetic: Arithmetic
    reads: Literal["ids", "texts"] = "ids"
    steps: tuple[Step, ...] = ()


EXPORT = Step("torch", "torch_onnx", "fp32")
QUANTIZE = Step("torch", "torch_onnx", "dynamic")


def _converted(name: str, environment: str, module: str, kind: str, arithmetic: Arithmetic = "int8") -> Peer:
    """Peer that converts the model with its own module."""
    return Peer(name, environment, module, kind, arithmetic, steps=(Step(environment, module, kind),))


PEERS = (
    Peer("torch fp32", "torch", "torch_eager", "fp32", "fp32"),
    Peer("torch bf16", "torch", "torch_eager", "bf16", "bf16"),
    Peer("onnxruntime fp32", "torch", "torch_onnx", "fp32", "fp32", steps=(EXPORT,)),
    Peer("onnxruntime quantize_dynamic", "torch", "torch_onnx", "dynamic", "int8", steps=(EXPORT, QUANTIZE)),
    Peer("sentence-transformers", "torch", "sentence_bert", "fp32", "fp32", "texts"),
    Peer("fastembed", "fastembed", "fastembed_onnx", "fp32", "fp32", "texts", (EXPORT,)),
    _converted("OpenVINO int8", "openvino", "openvino_int8", "static"),
    _converted("OpenVINO int8 weights", "openvino", "openvino_int8", "weights"),
    _converted("CTranslate2 int8", "ctranslate2", "ctranslate2_int8", "int8"),
    _converted("llama.cpp Q8_0", "llama", "llama", "Q8_0"),
    _converted("llama.cpp Q4_K_M", "llama", "llama", "Q4_K_M"),
    _converted("llama.cpp Q4_0", "llama", "llama", "Q4_0"),
    _converted("llama.cpp BF16", "llama", "llama", "BF16", "bf16"),
)
