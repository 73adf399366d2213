"""Hyperparameters of the ColBERT."""

from __future__ import annotations

from dataclasses import dataclass

from training.default_model.settings import SEED

RANK = 8
ALPHA = 16
DIMENSIONS = 128
MARKERS = {"query": "[unused0]", "document": "[unused1]"}  # unused tokens of BERT's vocabulary, as in ColBERTv2
MAX_TOKENS = {"query": 128, "document": 256}  # of the trained model; the marker counts


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of one training run."""

    queries: int = 24  # of a step, all of one set
    negatives: int = 1  # mined ones of each query; the documents of the other queries are negatives too
    max_tokens: int = 80  # in training
    learning_rate: float = 4e-4  # of the LoRA
    dense_learning_rate: float = 1e-3
    warmup: float = 0.05  # share of the steps
    temperature: float = 0.05
    principal_texts: int = 200  # whose token states give the directions that the projection starts from
    checkpoint_steps: int = 25
    seed: int = SEED


SETTINGS = Settings()
