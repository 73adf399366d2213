"""onnxruntime with other exports than the default one of torch.onnx, and with other settings of its quantization.

A form names an exporter (dynamo or TorchScript), the fusion of attention by onnxruntime's transformers optimizer,
dynamic int8 by tensor or by channel, and the fusions that the session may make.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.peers import torch_onnx
from benchmarks.peers.job import ConvertJob, PeerJob, PeerModel
from benchmarks.peers.torch_onnx import FILE, INPUTS, OUTPUT, folder

# Fusions of onnxruntime that are slower than their parts.
SLOW_FUSIONS = ("SkipLayerNormFusion", "BiasSkipLayerNormFusion", "BiasGeluFusion")
SCRIPT_OPSET = 17


@dataclass(frozen=True)
class Form:
    """Form of a model.

    Attributes:
        exporter: exporter of torch.onnx.
        fused: attention and GELU are fused by onnxruntime's transformers optimizer.
        scales: dynamic int8 with one scale for each weight, or for each of its channels; None: float32.
        slow_fusions: the session makes SLOW_FUSIONS.
    """

    exporter: Literal["dynamo", "script"]
    fused: bool = False
    scales: Literal["tensor", "channel"] | None = None
    slow_fusions: bool = False


FORMS: Mapping[str, Form] = {
    "dynamo-parts": Form("dynamo"),
    "dynamo-channel-parts": Form("dynamo", scales="channel"),
    "script": Form("script", slow_fusions=True),
    "script-parts": Form("script"),
    "script-fused-parts": Form("script", fused=True),
    "script-channel": Form("script", scales="channel", slow_fusions=True),
    "script-tensor-parts": Form("script", scales="tensor"),
    "script-channel-parts": Form("script", scales="channel"),
    "script-fused-channel-parts": Form("script", fused=True, scales="channel"),
}


def open_model(job: PeerJob) -> PeerModel:
    """Open a session."""
    slow = FORMS[job.format].slow_fusions
    return torch_onnx.open_session(job, () if slow else SLOW_FUSIONS)


def convert(job: ConvertJob) -> None:
    """Export the model, or fuse and quantize the export.

    Raises:
        ValueError: the optimizer fuses no attention of this model.
    """
    form, target = FORMS[job.format], folder(job.source.models, job.format)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        graph = folder(job.source.models, "fp32") / FILE
        if form.exporter == "script":
            graph = _export(job.source.checkpoint, Path(scratch) / "export.onnx")
        if form.fused:
            graph = _fuse(graph, Path(scratch) / "fused.onnx", job.source.checkpoint)
        if form.scales is None:
            _copy(graph, target / FILE)
        else:
            _quantize(graph, target / FILE, per_channel=form.scales == "channel")


def _export(checkpoint: str, target: Path) -> Path:
    """Export with TorchScript; only attention in its parts ("eager") can be fused."""
    import torch

    from benchmarks.peers.torch_eager import HiddenStates

    ids = torch.ones((2, 9), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    axes = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        HiddenStates(checkpoint, "eager"),
        (ids, mask),
        str(target),
        input_names=list(INPUTS),
        output_names=[OUTPUT],
        dynamic_axes={name: axes for name in (*INPUTS, OUTPUT)},
        opset_version=SCRIPT_OPSET,
        dynamo=False,
    )
    return target


def _fuse(graph: Path, target: Path, checkpoint: str) -> Path:
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    config = json.loads((Path(checkpoint) / "config.json").read_text("utf-8"))
    options = FusionOptions("bert")
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = options.enable_bias_gelu = False
    model = optimizer.optimize_model(
        str(graph),
        "bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        optimization_options=options,
        opt_level=0,
    )
    if not model.get_fused_operator_statistics().get("Attention"):
        raise ValueError("onnxruntime's transformers optimizer fuses no attention of this model")
    model.save_model_to_file(str(target))
    return target


def _quantize(graph: Path, target: Path, *, per_channel: bool) -> None:
    import onnx
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model: Any = onnx.load(graph)
    # The types of fused operators are not inferred; those of the exporter are not those of quantized weights.
    model.graph.ClearField("value_info")
    options = {"DefaultTensorType": TensorProto.FLOAT}
    quantize_dynamic(model, target, per_channel=per_channel, weight_type=QuantType.QInt8, extra_options=options)


def _copy(graph: Path, target: Path) -> None:
    """Copy a graph with its weights into one file."""
    import onnx

    onnx.save_model(onnx.load(graph), target)
