"""Reading of pairs by transformers' tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpack.pack.score_recipes import PairScores
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.reference.torch.loading import quiet
from embedpack_export.reference.torch.own_reading import joined_files, parsed_tokens
from embedpack_export.reference.torch.pretrained import open_tokenizer


@dataclass(frozen=True)
class ReadPair:
    """Token ids and token types of a pair, int64 [tokens]; zeros if the tokenizer gives no types."""

    ids: npt.NDArray[np.int64]
    types: npt.NDArray[np.int64]


class PairReading:
    """Tokenizer of a task, with the length limit of the source.

    Attributes:
        special: tokens that are parsed in a text.
    """

    def __init__(self, source: ModelSource, task: str) -> None:
        """Open the tokenizer of the checkpoint, or of the adapter; raises whatever transformers raises."""
        adapter = source.tasks[task].adapter
        with joined_files(source, None if adapter is None else adapter.folder) as folder, quiet():
            self._tokenizer: Any = open_tokenizer(folder)
        self._max_tokens = source.max_tokens
        recipe = None if source.scores is None else source.scores.recipe
        self._instruction = recipe.instruction if isinstance(recipe, PairScores) else None
        self.special = parsed_tokens(self._tokenizer)

    def read(self, query: str, document: str) -> ReadPair:
        """Tokens of a pair, the longer one of the two cut first; behind a chat template, none is cut."""
        if self._instruction is not None:
            return self._rendered(self._instruction, query, document)
        encoded = self._tokenizer(query, document, truncation="longest_first", max_length=self._max_tokens)
        ids = np.array(encoded["input_ids"], np.int64)
        return ReadPair(ids, np.array(encoded.get("token_type_ids", np.zeros_like(ids)), np.int64))

    def _rendered(self, instruction: str, query: str, document: str) -> ReadPair:
        """Tokens of the chat template, with the roles that sentence-transformers gives to the texts."""
        texts = {"system": instruction, "query": query, "document": document}
        messages = [{"role": role, "content": text} for role, text in texts.items()]
        rendered = self._tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)
        ids = np.array(rendered["input_ids"], np.int64)
        return ReadPair(ids, np.zeros_like(ids))
