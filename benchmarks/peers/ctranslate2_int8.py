"""CTranslate2 with int8 weights; encoders only, since it returns no hidden states of decoders."""

from __future__ import annotations

import json
from pathlib import Path

import ctranslate2
import numpy as np

from benchmarks.peers.job import ConvertJob, PeerJob, PeerModel, PeerVectors, Rows
from benchmarks.peers.pooled import padded, pooled

ENCODERS = ("bert", "distilbert", "xlm-roberta", "roberta")


def open_model(job: PeerJob) -> PeerModel:
    """Load the converted model."""
    encoder = ctranslate2.Encoder(
        _folder(job.source.models), device="cpu", compute_type="int8", inter_threads=1, intra_threads=job.threads
    )

    def run(rows: Rows) -> PeerVectors:
        output = encoder.forward_batch(rows)
        _, mask = padded(rows, 0)
        return pooled(np.array(output.last_hidden_state), mask, job.source.pooling)

    return PeerModel.of_ids(run)


def convert(job: ConvertJob) -> None:
    """Convert the checkpoint.

    Raises:
        ValueError: the model is a decoder.
    """
    kind = json.loads((Path(job.source.checkpoint) / "config.json").read_text("utf-8"))["model_type"]
    if kind not in ENCODERS:
        raise ValueError(f"CTranslate2 returns no hidden states of decoders ({kind})")
    converter = ctranslate2.converters.TransformersConverter(job.source.checkpoint)
    converter.convert(_folder(job.source.models), quantization="int8", force=True)


def _folder(models: str) -> str:
    return str(Path(models) / "ctranslate2-int8")
