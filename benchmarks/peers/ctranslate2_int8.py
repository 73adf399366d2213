"""CTranslate2 with int8 weights; encoders only, since it returns no hidden states of decoders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np

from benchmarks.peers.job import ConvertJob, Inputs, PeerJob, Vectors
from benchmarks.peers.pooled import in_fixed_batches, padded, pooled

ENCODERS = ("bert", "distilbert", "xlm-roberta", "roberta")


@dataclass(frozen=True)
class Ct2Model:
    """Model that pools the hidden states of token ids."""

    encoder: Any
    pooling: str

    def batch(self, inputs: Inputs) -> Vectors:
        return self._run(inputs.ids)

    def corpus(self, inputs: Inputs) -> Vectors:
        return in_fixed_batches(inputs.ids, self._run)

    def _run(self, rows: Sequence[Sequence[int]]) -> Vectors:
        output = self.encoder.forward_batch(rows)
        _, mask = padded(rows, 0)
        return pooled(np.array(output.last_hidden_state), mask, self.pooling)


def open_model(job: PeerJob) -> Ct2Model:
    """Load the converted model."""
    encoder = ctranslate2.Encoder(
        _folder(job.source.models), device="cpu", compute_type="int8", inter_threads=1, intra_threads=job.threads
    )
    return Ct2Model(encoder, job.source.pooling)


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
