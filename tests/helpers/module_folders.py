"""Folders of sentence-transformers with any modules after the Transformer, written by sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

from embedpack.vectors.arrays import Float32
from tests.helpers.tiny_checkpoint import make_checkpoint

HIDDEN = 32
# Lengths from one token to more than the limit of the tiny checkpoint.
TEXTS = (
    "a",
    "cat",
    "how do i reset the router?",
    "blue house, red door!",
    "the cat sleeps on the warm roof, while the rain is blue and the network of the house is down again and again " * 2,
)


def pooling(mode: str | list[str] = "mean") -> torch.nn.Module:
    return Pooling(HIDDEN, pooling_mode=mode)


def dense(inputs: int, outputs: int, activation: torch.nn.Module, *, bias: bool = True, seed: int = 1) -> Dense:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    return Dense(
        inputs,
        outputs,
        bias=bias,
        activation_function=activation,
        init_weight=weight,
        init_bias=torch.randn(outputs, generator=generator) * 0.2 if bias else None,
    )


def layer_norm(size: int, seed: int = 2) -> LayerNorm:
    module = LayerNorm(size)
    generator = torch.Generator().manual_seed(seed)
    module.norm.weight = torch.nn.Parameter(1 + 0.3 * torch.randn(size, generator=generator))
    module.norm.bias = torch.nn.Parameter(0.1 * torch.randn(size, generator=generator))
    return module


def normalize() -> Normalize:
    return Normalize()


def save_modules(folder: Path, *modules: torch.nn.Module, **settings: Any) -> Path:
    """Write a tiny checkpoint with these modules after its Transformer."""
    return save_on(make_checkpoint(folder.with_name(f"{folder.name}-plain")), folder, *modules, **settings)


def save_on(plain: Path, folder: Path, *modules: torch.nn.Module, **settings: Any) -> Path:
    """Write the checkpoint in `plain` with these modules after its Transformer."""
    transformer = Transformer(str(plain))
    prompts = {"query": "query: ", "document": "passage: "}
    model = SentenceTransformer(modules=[transformer, *modules], device="cpu", prompts=prompts, **settings)
    model.save(str(folder), create_model_card=False)
    return folder


def oracle(folder: Path, texts: Sequence[str] = TEXTS, **options: Any) -> Float32:
    """Vectors that sentence-transformers computes, one text at a time."""
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"attn_implementation": "eager"})
    rows = [model.encode([text], show_progress_bar=False, **options)[0] for text in texts]
    return np.stack(rows).astype(np.float32)
