"""Catalogue of the peers: programs in several forms, with their environments and conversions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Arithmetic = Literal["fp32", "bf16", "int8"]
# Most tokens of a call of peers that compute a large batch in parts.
PARTS = 512


@dataclass(frozen=True)
class Step:
    """A conversion of the model: the function `convert` of a module, for one format."""

    environment: str
    module: str
    format: str


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A program that runs the model in one form.

    Attributes:
        program: program; its forms differ in export, quantization or settings.
        form: form, empty for the only one.
        environment: environment that it runs in.
        module, format: module of this package that opens it, for one format.
        arithmetic: arithmetic of most of its products, whose peak its speed is compared with.
        reads: token ids, or texts that it tokenizes itself.
        steps: conversions of the model.
        budget: most tokens of a call with a part of a batch; None: a batch is one call.
        remark: reason why it is faster or slower than another form.
    """

    program: str
    form: str = ""
    environment: str
    module: str
    format: str
    arithmetic: Arithmetic = "int8"
    reads: Literal["ids", "texts"] = "ids"
    steps: tuple[Step, ...] = ()
    budget: int | None = None
    remark: str = ""

    @property
    def name(self) -> str:
        """Program and form."""
        return f"{self.program}, {self.form}" if self.form else self.program

    def describe(self) -> dict[str, str]:
        """Facts for the results file."""
        names = ("program", "form", "arithmetic", "reads")
        return {name: str(getattr(self, name)) for name in names}


EXPORT = Step("torch", "torch_onnx", "fp32")
QUANTIZE = Step("torch", "torch_onnx", "dynamic")


def _form(format_: str, form: str, remark: str, budget: int | None = None) -> Peer:
    """Form of onnxruntime with an export of its own."""
    int8 = "channel" in format_ or "tensor" in format_
    return Peer(
        program="onnxruntime quantize_dynamic" if int8 else "onnxruntime fp32",
        form=form,
        environment="torch",
        module="onnx_forms",
        format=format_,
        arithmetic="int8" if int8 else "fp32",
        steps=(*((EXPORT,) if format_.startswith("dynamo") else ()), Step("torch", "onnx_forms", format_)),
        budget=budget,
        remark=remark,
    )


def _openvino(format_: str, form: str, remark: str) -> Peer:
    kind = format_.partition("-")[0]
    steps = (Step("openvino", "openvino_int8", kind),)
    program = "OpenVINO int8" if kind == "static" else "OpenVINO int8 weights"
    return Peer(
        program=program,
        form=form,
        environment="openvino",
        module="openvino_int8",
        format=format_,
        steps=steps,
        remark=remark,
    )


def _ctranslate2(form: str, budget: int | None, remark: str) -> Peer:
    step = Step("ctranslate2", "ctranslate2_int8", "int8")
    return Peer(
        program="CTranslate2 int8",
        form=form,
        environment=step.environment,
        module=step.module,
        format=step.format,
        steps=(step,),
        budget=budget,
        remark=remark,
    )


def _llama(format_: str, form: str = "", budget: int | None = None, remark: str = "") -> Peer:
    return Peer(
        program=f"llama.cpp {format_}",
        form=form,
        environment="llama",
        module="llama",
        format=format_,
        arithmetic="bf16" if format_ == "BF16" else "int8",
        steps=(Step("llama", "llama", format_),),
        budget=budget,
        remark=remark,
    )


WHOLE, IN_PARTS = "one call", f"parts of {PARTS} tokens"
CACHE = "a part of the batch stays in the cache"
SLOW = "onnxruntime fuses residual and norm into SkipLayerNormalization, which is slower than its parts"
PIECES = "attention is MatMul, Softmax, MatMul, with Transpose"
SDPA = "attention is MatMul, Softmax, MatMul, with IsNaN and Where over all scores"
TENSOR = "faster than by channel, but too far from the model to be the best"

PEERS = (
    Peer(program="torch fp32", environment="torch", module="torch_eager", format="fp32", arithmetic="fp32"),
    Peer(program="torch bf16", environment="torch", module="torch_eager", format="bf16", arithmetic="bf16"),
    Peer(
        program="onnxruntime fp32",
        form="dynamo",
        environment="torch",
        module="torch_onnx",
        format="fp32",
        arithmetic="fp32",
        steps=(EXPORT,),
        remark=f"{SDPA}; {SLOW}",
    ),
    _form("dynamo-parts", "dynamo, no slow fusions", SDPA),
    _form("script", "TorchScript", f"{PIECES}; BiasGelu"),
    _form("script-parts", "TorchScript, no slow fusions", PIECES),
    _form("script-fused-parts", "TorchScript, attention fused, no slow fusions", "attention is one operator"),
    _form("script-fused-parts", f"TorchScript, attention fused, no slow fusions, {IN_PARTS}", CACHE, PARTS),
    Peer(
        program="onnxruntime quantize_dynamic",
        form="dynamo, per tensor",
        environment="torch",
        module="torch_onnx",
        format="dynamic",
        steps=(EXPORT, QUANTIZE),
        remark=f"{SDPA}; {SLOW}",
    ),
    _form("dynamo-channel-parts", "dynamo, per channel, no slow fusions", SDPA),
    _form("script-channel", "TorchScript, per channel", f"{PIECES}; {SLOW}"),
    _form("script-tensor-parts", "TorchScript, per tensor, no slow fusions", TENSOR),
    _form("script-channel-parts", "TorchScript, per channel, no slow fusions", PIECES),
    _form("script-channel-parts", f"TorchScript, per channel, no slow fusions, {IN_PARTS}", CACHE, PARTS),
    _form(
        "script-fused-channel-parts",
        "TorchScript, attention fused, per channel, no slow fusions",
        "attention and its projections are one operator, QAttention",
    ),
    _form(
        "script-fused-channel-parts",
        f"TorchScript, attention fused, per channel, no slow fusions, {IN_PARTS}",
        CACHE,
        PARTS,
    ),
    Peer(
        program="sentence-transformers",
        environment="torch",
        module="sentence_bert",
        format="fp32",
        arithmetic="fp32",
        reads="texts",
    ),
    Peer(
        program="fastembed",
        environment="fastembed",
        module="fastembed_onnx",
        format="fp32",
        arithmetic="fp32",
        reads="texts",
        steps=(EXPORT,),
    ),
    Peer(
        program="candle fp32",
        environment="candle",
        module="candle",
        format="fp32",
        arithmetic="fp32",
        reads="texts",
        steps=(Step("candle", "candle", "fp32"),),
    ),
    _openvino("static", "hint latency", "one stream"),
    _openvino("static-throughput", "hint throughput", "on one thread one stream, too: the difference is noise"),
    _openvino("weights", "hint latency", "one stream; activations are quantized in groups of 128"),
    _openvino("weights-throughput", "hint throughput", "on one thread one stream, too: the difference is noise"),
    _ctranslate2(WHOLE, None, "a large batch leaves the cache"),
    _ctranslate2(IN_PARTS, PARTS, CACHE),
    _llama("Q8_0", WHOLE, None, "scores of all texts with each other, most of them masked"),
    _llama("Q8_0", IN_PARTS, PARTS, "scores of the texts of a part alone"),
    _llama("Q4_K_M", IN_PARTS, PARTS),
    _llama("Q4_0", IN_PARTS, PARTS),
    _llama("BF16", IN_PARTS, PARTS),
)
