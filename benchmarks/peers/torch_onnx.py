"""onnxruntime with the default export of torch.onnx, and with the same after `quantize_dynamic`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from benchmarks.peers.job import ConvertJob, PeerJob, PeerModel, PeerVectors, Rows
from benchmarks.peers.pooled import padded, pooled

FILE = "model.onnx"
# Names and files that other programs expect of an ONNX model.
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "last_hidden_state"
TOKENIZER = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def open_model(job: PeerJob) -> PeerModel:
    """Open a session with the default optimizations of onnxruntime."""
    return open_session(job, ())


def open_session(job: PeerJob, disabled: Sequence[str]) -> PeerModel:
    """Open a session without some of the optimizations."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = job.threads
    path = folder(job.source.models, job.format) / FILE
    session = ort.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled)
    )

    def run(rows: Rows) -> PeerVectors:
        ids, mask = padded(rows, job.source.pad_token_id)
        (states,) = session.run([OUTPUT], {"input_ids": ids, "attention_mask": mask})
        return pooled(states, mask, job.source.pooling)

    return PeerModel.of_ids(run)


def folder(models: str, name: str) -> Path:
    """Folder of a format of the ONNX model."""
    return Path(models) / f"onnx-{name}"


def convert(job: ConvertJob) -> None:
    """Export with torch.onnx, or quantize the exported model."""
    target = folder(job.source.models, job.format)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    if job.format == "fp32":
        _export(job.source.checkpoint, target)
    else:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        source = folder(job.source.models, "fp32")
        # Files of more than 2 GB do not fit in one protobuf file.
        large = sum(path.stat().st_size for path in source.iterdir()) > 1 << 31
        quantize_dynamic(source / FILE, target / FILE, weight_type=QuantType.QInt8, use_external_data_format=large)


def _export(checkpoint: str, target: Path) -> None:
    import torch

    from benchmarks.peers.torch_eager import HiddenStates

    ids = torch.ones((2, 9), dtype=torch.int64)
    # A tensor of its own, with padding: torch.onnx merges inputs that are one object, and drops a mask of ones.
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    axes = {0: "batch", 1: "sequence"}
    program = torch.onnx.export(
        HiddenStates(checkpoint),
        (ids, mask),
        input_names=list(INPUTS),
        output_names=[OUTPUT],
        dynamic_shapes=(axes, axes),
        dynamo=True,
    )
    assert program is not None
    program.save(str(target / FILE), external_data=True)
    for name in TOKENIZER:
        if (Path(checkpoint) / name).exists():
            shutil.copyfile(Path(checkpoint) / name, target / name)
