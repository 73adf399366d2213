"""Models and tokenizers of local folders by transformers: nothing is downloaded, no code of a folder runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

TOKENIZER = {"local_files_only": True, "trust_remote_code": False}
# Eager attention is the plain formula, and the same on every CPU.
MODEL = {
    **TOKENIZER,
    "dtype": torch.float32,
    "attn_implementation": "eager",
    "use_safetensors": True,
    "output_loading_info": True,
}


def open_tokenizer(folder: Path) -> Any:
    """Tokenizer of a folder; raises whatever transformers raises."""
    return AutoTokenizer.from_pretrained(folder, **TOKENIZER)


def open_model(model_class: Any, folder: Path, config: Any = None) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Model of a class of transformers in float32, and its report on missing, unused and misshapen tensors.

    `config` None: that of the folder. Raises whatever transformers raises.
    """
    options = MODEL if config is None else {**MODEL, "config": config}
    model, report = model_class.from_pretrained(folder, **options)
    return model, report
