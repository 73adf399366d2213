"""candle, the library of text-embeddings-inference on CPUs, through candding; its input is texts.

candding reads models of its catalogue from the cache of Hugging Face's hub, so the merged checkpoint is laid out there.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from benchmarks.peers.job import ConvertJob, PeerJob, PeerModel

# Model of the catalogue, and the sizes that its checkpoint must have.
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SIZES = {"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "vocab_size": 30522}
REVISION = "main"
# Texts of a call of mixed lengths, its default.
BATCH = 32


def open_model(job: PeerJob) -> PeerModel:
    """Load the checkpoint; timings include tokenization."""
    os.environ["HF_HOME"] = str(_home(job.source.models))
    os.environ["RAYON_NUM_THREADS"] = str(job.threads)
    import candding

    model = candding.TextEmbedding(MODEL, device="cpu")
    return PeerModel(
        lambda inputs: model.embed(inputs.texts, batch_size=len(inputs.texts)),
        lambda inputs: model.embed(inputs.texts, batch_size=BATCH),
    )


def convert(job: ConvertJob) -> None:
    """Lay out the checkpoint.

    Raises:
        ValueError: the checkpoint is of another size, or pooled in another way.
    """
    config = json.loads((Path(job.source.checkpoint) / "config.json").read_text("utf-8"))
    found = {name: config.get(name) for name in SIZES}
    if found != SIZES or job.source.pooling != "mean":
        raise ValueError(f"candding's catalogue has no model like this: {found}, pooling {job.source.pooling}")
    folder = _home(job.source.models) / "hub" / f"models--{MODEL.replace('/', '--')}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(job.source.checkpoint, folder / "snapshots" / REVISION)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(REVISION, "utf-8")


def _home(models: str) -> Path:
    return Path(models) / "candle"
