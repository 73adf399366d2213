"""fastembed with the ONNX model of torch.onnx; its input is texts, which it batches itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

from benchmarks.peers.job import Inputs, PeerJob, Vectors
from benchmarks.peers.torch_onnx import FILE, folder

NAME = "local/model"
POOLING = {"mean": PoolingType.MEAN, "cls": PoolingType.CLS, "last": PoolingType.LAST_TOKEN}


@dataclass(frozen=True)
class FastembedModel:
    """Model that reads texts; the time of tokenization counts."""

    model: Any

    def batch(self, inputs: Inputs) -> Vectors:
        return np.stack(list(self.model.embed(inputs.texts, batch_size=len(inputs.texts))))

    def corpus(self, inputs: Inputs) -> Vectors:
        return np.stack(list(self.model.embed(inputs.texts)))


def open_model(job: PeerJob) -> FastembedModel:
    """Register the local folder as a custom model and load it."""
    path = folder(job.source.models, "fp32")
    TextEmbedding.add_custom_model(
        model=NAME,
        pooling=POOLING[job.source.pooling],
        normalization=True,
        sources=ModelSource(hf=NAME),
        dim=_dimensions(path / "config.json"),
        model_file=FILE,
        additional_files=[f"{FILE}.data"],
    )
    return FastembedModel(
        TextEmbedding(NAME, threads=job.threads, specific_model_path=str(path), local_files_only=True)
    )


def _dimensions(config: Path) -> int:
    size: int = json.loads(config.read_text("utf-8"))["hidden_size"]
    return size
