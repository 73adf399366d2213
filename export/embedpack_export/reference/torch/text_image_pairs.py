"""jina-reranker-m0 in torch, by the rules of its own code: literal prompts, a token behind them, a head of two layers.

Inputs run one at a time, so nothing is padded. Special tokens in texts are plain characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import Qwen2VLForConditionalGeneration

from embedpack.errors import CheckpointError
from embedpack.inputs.images import read_image
from embedpack.inputs.pair_texts import Document, check_documents, check_query
from embedpack.vectors.arrays import Float32
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.reference.torch.loading import quiet
from embedpack_export.reference.torch.own_reading import joined_files, parsed_tokens
from embedpack_export.reference.torch.pair_reading import ReadPair
from embedpack_export.reference.torch.pretrained import open_model, open_tokenizer
from embedpack_export.reference.torch.qwen2_vl_image import Patches, image_patches, read_image_settings

SCORE_TOKEN, LOGIT_BIAS, QUERY_TOKENS = 100, 2.65, 512
BEFORE, BETWEEN = "**Document**:\n", "\n**Query**:\n"
IMAGE = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
HEAD = ("score.0.weight", "score.0.bias", "score.2.weight", "score.2.bias")


class TextPairReading:
    """Tokenizer of the model.

    Attributes:
        special: tokens that are parsed in a text.
    """

    def __init__(self, source: ModelSource) -> None:
        """Open the tokenizer of the checkpoint; raises whatever transformers raises."""
        with joined_files(source, None) as folder, quiet():
            self._tokenizer: Any = open_tokenizer(folder)
        self._max_tokens = source.max_tokens
        self.special = parsed_tokens(self._tokenizer)

    def read(self, query: str, document: str) -> ReadPair:
        """Tokens of a pair as the model's code reads it, without a cut of the document."""
        ids = self._tokenizer(f"{BEFORE}{document}{BETWEEN}{query}", add_special_tokens=False)["input_ids"]
        found = np.array([*ids[: self._max_tokens - 1], SCORE_TOKEN], np.int64)
        return ReadPair(found, np.zeros_like(found))

    def text_ids(self, query: str, document: str) -> list[int]:
        """Token ids of a query and a text."""
        ids = self._plain(document)
        limit = max(self._max_tokens - QUERY_TOKENS, QUERY_TOKENS)
        text = document if len(ids) <= limit else self._tokenizer.decode(ids[:limit])
        return [*self._plain(f"{BEFORE}{text}{BETWEEN}{query}")[: self._max_tokens - 1], SCORE_TOKEN]

    def image_ids(self, query: str, tokens: int) -> list[int]:
        """Token ids of a query and an image of this number of tokens."""
        start, image, end = self._tokenizer.convert_tokens_to_ids([*IMAGE])
        whole = [*self._plain(BEFORE), start, *[image] * tokens, end, *self._plain(f"{BETWEEN}{query}")]
        return [*whole[: self._max_tokens - 1], SCORE_TOKEN]

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids


class TextAndImagePairs:
    """The model in full precision: nothing quantized, nothing padded."""

    def __init__(self, source: ModelSource) -> None:
        """Load the model; CheckpointError if transformers would use the files otherwise."""
        self._reading, self._model = TextPairReading(source), _load_towers(source)
        self._head = [torch.from_numpy(source.checkpoint.tensors[name].float32()) for name in HEAD]
        self._images = None if source.model.vision is None else read_image_settings(source.checkpoint.folder)

    def scores(self, query: str, documents: Sequence[Document]) -> Float32:
        """Scores, float32 [documents]; InputError if a query or a document cannot be used."""
        checked = check_documents(documents, images=self._images is not None)
        with torch.inference_mode():
            return np.array([self._score(check_query(query), document) for document in checked], np.float32)

    def _score(self, query: str, document: Document) -> float:
        if isinstance(document, str):
            return self._of_ids(self._reading.text_ids(query, document), None)
        assert self._images is not None
        patches = image_patches(read_image(document, 0), self._images)
        tokens = patches.rows * patches.columns // self._images.merge_size**2
        return self._of_ids(self._reading.image_ids(query, tokens), patches)

    def _of_ids(self, numbers: list[int], patches: Patches | None) -> float:
        ids, grid = torch.tensor([numbers]), None
        image: Mapping[str, torch.Tensor] = {}
        if patches is not None:
            grid = torch.tensor([[1, patches.rows, patches.columns]])
            image = {"pixel_values": patches.values, "image_grid_thw": grid}
        mask, kinds = torch.ones_like(ids), torch.zeros_like(ids).int()
        if patches is not None:
            kinds = (ids == self._model.config.image_token_id).int()
        positions, _ = self._model.get_rope_index(ids, kinds, image_grid_thw=grid, attention_mask=mask)
        states = self._model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, **image)
        weight, bias, last_weight, last_bias = self._head
        hidden = torch.relu(states.last_hidden_state[0, -1] @ weight.T + bias)
        return float(torch.sigmoid(hidden @ last_weight.T + last_bias - LOGIT_BIAS))


def _load_towers(source: ModelSource) -> Any:
    with quiet():
        model, report = open_model(Qwen2VLForConditionalGeneration, source.checkpoint.folder)
    left = {name for name in report["unexpected_keys"] if name not in HEAD}
    # The head of the language model is no part of the reranker.
    missing = {name for name in report["missing_keys"] if not name.startswith("lm_head.")}
    wrong = left | missing | {str(item) for item in report["mismatched_keys"]}
    if wrong:
        raise CheckpointError(
            f"{source.checkpoint.folder}: transformers does not use these: {', '.join(sorted(wrong)[:5])}"
        )
    towers = model.model
    assert isinstance(towers, torch.nn.Module)
    return towers.eval()
