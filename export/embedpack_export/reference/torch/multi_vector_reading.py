"""Reading of texts by the library of a model for multi-vectors: sentence-transformers' MultiVectorEncoder.

It loads the files of PyLate and of ColBERT's own code too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from embedpack_export.planning.model_source import ModelSource
from embedpack_export.reference.torch.loading import quiet
from embedpack_export.reference.torch.own_reading import joined_files, layer_description, parsed_tokens
from embedpack_export.reference.torch.prompted_ids import PromptedIds


class MultiVectorReading:
    """Texts of both sides to token ids; the weights of the model are not loaded.

    Attributes:
        library: name of the library that reads, for messages.
        special: tokens that are parsed in a text.
        layers: description of each Dense, and of Normalize.
    """

    library = "sentence-transformers"

    def __init__(self, folder: Path) -> None:
        from sentence_transformers import MultiVectorEncoder

        self._model: Any = MultiVectorEncoder(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"device_map": "meta", "use_safetensors": True, "attn_implementation": "eager"},
        )
        self.special = parsed_tokens(self._model.tokenizer)
        self.layers = tuple(text for text in map(layer_description, self._model) if text)
        self._mask: Any = next(module for module in self._model if type(module).__name__ == "MultiVectorMask")

    def set_document_length(self, tokens: int) -> None:
        """Set the limit of documents."""
        self._model[0].document_length = tokens

    def read(self, text: str, side: str) -> PromptedIds:
        """Token ids of a text, and those whose vectors are kept."""
        features = self._model.preprocess([text], prompt=self._model.prompts.get(side) or None, task=side)
        attended = int(features["attention_mask"].sum())
        kept = self._mask(dict(features), task=side)["attention_mask"][0].numpy()
        return PromptedIds(features["input_ids"][0].numpy(), attended, kept.astype(np.bool_))


def open_multi_vector_reading(source: ModelSource, task: str) -> MultiVectorReading:
    """Open the reading of a task; raises whatever the library raises."""
    adapter = source.tasks[task].adapter
    with joined_files(source, None if adapter is None else adapter.folder) as folder, quiet():
        return MultiVectorReading(folder)
