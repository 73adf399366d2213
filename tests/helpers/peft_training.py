"""Adapters as training runs leave them: saved by PEFT, of a bare model, one with a head, or a SentenceTransformer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, get_peft_model
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
)

from embedpack_export.arrays import Float64
from tests.helpers.tiny_families import FAMILIES

Trained = Literal["bare", "language model", "classifier", "question answering", "SentenceTransformer"]
LOADING = {"dtype": torch.float32, "attn_implementation": "eager"}


@dataclass(frozen=True)
class TrainedModel:
    """A model that is trained, and the backbone in it."""

    model: Any
    backbone: Any  # transformers' model without a head

    @classmethod
    def load(cls, checkpoint: Path, model_type: str, trained: Trained) -> TrainedModel:
        """Load a tiny checkpoint in the form that is trained."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if trained == "SentenceTransformer":
                model = SentenceTransformer(str(checkpoint), device="cpu", model_kwargs=dict(LOADING))
                return cls(model, model[0].auto_model)
            is_encoder = FAMILIES[model_type].tower != "decoder"
            kinds: dict[str, Any] = {
                "bare": AutoModel,
                "language model": AutoModelForMaskedLM if is_encoder else AutoModelForCausalLM,
                "classifier": AutoModelForSequenceClassification,
                "question answering": AutoModelForQuestionAnswering,
            }
            model = kinds[trained].from_pretrained(checkpoint, **LOADING)
            # Decoders for question answering have other names than the checkpoint's, and would begin at random values.
            bare = AutoModel.from_pretrained(checkpoint, **LOADING)
            model.base_model.load_state_dict(bare.state_dict(), strict=False)
            return cls(model, model.base_model)

    @property
    def prefix(self) -> str:
        """Prefix of the names of the backbone's modules, with a dot at its end; "" for the backbone itself."""
        name = next(name for name, module in self.model.named_modules() if module is self.backbone)
        return f"{name}." if name else ""

    def adapt(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Add an adapter with random values in place of trained ones, and save it."""
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            adapted = get_peft_model(self.model, LoraConfig(**config))
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.05)
            adapted.eval()
            adapted.save_pretrained(str(folder))

    def mean_vector(self, ids: npt.NDArray[np.int64]) -> Float64:
        """Mean of the last hidden states of a sequence, float64 [hidden], with PEFT's layers in the backbone."""
        with torch.no_grad():
            states = self.backbone(torch.from_numpy(ids)[None]).last_hidden_state
        mean: Float64 = states[0].numpy().astype(np.float64).mean(0)
        return mean
