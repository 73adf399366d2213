"""OpenVINO on the torch model: int8 with calibration (nncf.quantize), or int8 weights (nncf.compress_weights).

The format is "static" or "weights", with "-throughput" for the hint of many requests at a time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov

from benchmarks.peers.job import ConvertJob, PeerJob, PeerModel, PeerVectors, Rows, read_inputs
from benchmarks.peers.pooled import padded, pooled

# Values of an activation that share a scale; a quarter faster than the default.
GROUP = "128"


def open_model(job: PeerJob) -> PeerModel:
    """Compile for the CPU, with OpenVINO's default precision of float parts."""
    kind, _, hint = job.format.partition("-")
    settings = {"INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": (hint or "latency").upper()}
    if kind == "weights":
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = GROUP
    compiled = ov.Core().compile_model(_path(job.source.models, kind), "CPU", settings)
    request = compiled.create_infer_request()

    def run(rows: Rows) -> PeerVectors:
        ids, mask = padded(rows, job.source.pad_token_id)
        (states,) = request.infer([ids, mask]).values()
        return pooled(states, mask, job.source.pooling)

    return PeerModel.of_ids(run)


def convert(job: ConvertJob) -> None:
    """Convert the torch model, then quantize it."""
    import nncf
    import torch

    from benchmarks.peers.torch_eager import HiddenStates

    ids = torch.ones((2, 9), dtype=torch.int64)
    example = {"input_ids": ids, "attention_mask": ids}
    converted = ov.convert_model(HiddenStates(job.source.checkpoint), example_input=example)
    if job.format == "weights":
        model = nncf.compress_weights(converted, mode=nncf.CompressWeightsMode.INT8_SYM)
    else:
        texts = read_inputs(job.source.calibration)
        rows = [padded([row], job.source.pad_token_id) for row in texts.ids]
        feeds = [{"input_ids": row, "attention_mask": np.ones_like(row)} for row, _ in rows]
        model = nncf.quantize(
            converted, nncf.Dataset(feeds), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(feeds)
        )
    ov.save_model(model, _path(job.source.models, job.format), compress_to_fp16=False)


def _path(models: str, name: str) -> str:
    return str(Path(models) / f"openvino-{name}.xml")
