"""transformers and peft as the reference: adapters that peft saved, merged by peft; hidden states of transformers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM
from transformers.utils import logging

from embedpack.vectors.arrays import Float32

torch.set_num_threads(1)
logging.set_verbosity_error()  # type: ignore[no-untyped-call]
logging.disable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def _their_warnings() -> Iterator[None]:
    """Ignore deprecations inside peft and transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_model(checkpoint: Path) -> Any:
    """The float32 encoder as transformers builds it."""
    with _their_warnings():
        return AutoModel.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()


def save_adapter(checkpoint: Path, folder: Path, *, model: Any = None, seed: int = 0, **config: Any) -> Path:
    """An adapter as peft saves it after training: every trained value differs from its initial one."""
    settings = {"r": 4, "lora_alpha": 12, "target_modules": ["query", "value", "output.dense"], **config}
    torch.manual_seed(seed)
    with _their_warnings(), torch.no_grad():
        adapted = get_peft_model(load_model(checkpoint) if model is None else model, LoraConfig(**settings))
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        adapted.save_pretrained(str(folder))
    return folder


def save_with_head(checkpoint: Path) -> None:
    """Replace the weights by random ones of a whole masked language model, as its pretraining leaves it."""
    torch.manual_seed(3)
    config = AutoConfig.from_pretrained(checkpoint)
    AutoModelForMaskedLM.from_config(config).save_pretrained(checkpoint)  # type: ignore[no-untyped-call]


def converted_adapter(checkpoint: Path, folder: Path, init: str) -> Any:
    """A trained adapter whose initialisation changed the base, saved as a plain LoRA of the unchanged one.

    Returns the trained model.
    """
    torch.manual_seed(2)
    with _their_warnings(), torch.no_grad():
        config: Any = LoraConfig(r=3, lora_alpha=6, target_modules=["query", "output.dense"])
        config.init_lora_weights = init
        adapted = get_peft_model(load_model(checkpoint), config)
        config.init_lora_weights = True
        adapted.save_pretrained(str(folder / "initial"))
        config.init_lora_weights = init
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        adapted.save_pretrained(str(folder), path_initial_model_for_weight_conversion=str(folder / "initial"))
    return adapted.eval()


def adapted_by_peft(checkpoint: Path, adapter: Path) -> Any:
    """The encoder with the layers of peft, not merged."""
    with _their_warnings():
        return PeftModel.from_pretrained(load_model(checkpoint), adapter).eval()


def merged_by_peft(checkpoint: Path, adapter: Path) -> dict[str, Float32]:
    """Tensors of the encoder with the adapter merged by peft in float32; the pooler, which nobody uses, left out."""
    with _their_warnings(), torch.no_grad():
        merged = PeftModel.from_pretrained(load_model(checkpoint), adapter).merge_and_unload()
    return {name: value.numpy() for name, value in merged.state_dict().items() if not name.startswith("pooler.")}


def recast(path: Path, dtype: torch.dtype) -> None:
    """Store a safetensors file in another floating point type."""
    save_file({name: value.to(dtype) for name, value in load_file(path).items()}, path, {"format": "pt"})


def last_hidden_states(model: Any, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> Float32:
    """float32 [batch, sequence, hidden]."""
    with torch.no_grad():
        output = model(input_ids=torch.from_numpy(input_ids), attention_mask=torch.from_numpy(attention_mask))
    return np.asarray(output.last_hidden_state.numpy(), np.float32)


def mean_vectors(model: Any, tokenizer: Path, texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Means of the last hidden states of texts, each computed alone; float64 [texts, hidden]."""
    encode = Tokenizer.from_file(str(tokenizer)).encode
    rows = []
    for text in texts:
        ids = np.asarray([encode(text).ids], np.int64)
        rows.append(last_hidden_states(model, ids, np.ones_like(ids))[0].astype(np.float64).mean(0))
    return np.stack(rows)
