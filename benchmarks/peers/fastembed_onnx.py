"""fastembed with the ONNX model of torch.onnx; its input is texts, which it batches itself."""

from __future__ import annotations

import json

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

from benchmarks.peers.job import PeerJob, PeerModel
from benchmarks.peers.torch_onnx import FILE, folder

NAME = "local/model"
POOLING = {"mean": PoolingType.MEAN, "cls": PoolingType.CLS, "last": PoolingType.LAST_TOKEN}


def open_model(job: PeerJob) -> PeerModel:
    """Register the local ONNX folder as a custom model of fastembed and load it; timings include tokenization."""
    path = folder(job.source.models, "fp32")
    TextEmbedding.add_custom_model(
        model=NAME,
        pooling=POOLING[job.source.pooling],
        normalization=True,
        sources=ModelSource(hf=NAME),
        dim=json.loads((path / "config.json").read_text("utf-8"))["hidden_size"],
        model_file=FILE,
        additional_files=[f"{FILE}.data"],
    )
    model = TextEmbedding(NAME, threads=job.threads, specific_model_path=str(path), local_files_only=True)
    return PeerModel(
        lambda inputs: np.stack(list(model.embed(inputs.texts, batch_size=len(inputs.texts)))),
        lambda inputs: np.stack(list(model.embed(inputs.texts))),
    )
