"""jina-reranker-v3 and v3.5 in torch, by the rules of its own code: literal prompts, blocks, a projector, cosines.

Nothing of how embedpack reads lists is used, so that a difference is found. Special tokens in texts are characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch

from embedpack.inputs.pair_texts import Document, check_documents
from embedpack.vectors.arrays import Float32
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.reference.torch.loading import load_model, quiet
from embedpack_export.reference.torch.own_reading import joined_files, parsed_tokens
from embedpack_export.reference.torch.pretrained import open_tokenizer


class Token(str):
    """A special token of a prompt."""

    __slots__ = ()


START, END, THINK, THOUGHT = Token("<|im_start|>"), Token("<|im_end|>"), Token("<think>"), Token("</think>")
DOCUMENT, QUERY = Token("<|embed_token|>"), Token("<|rerank_token|>")
SYSTEM = (
    "system\n"
    "You are a search relevance expert who can determine a ranking of the passages based on how relevant they are to "
    "the query. "
    "If the query is a question, how relevant a passage is depends on how well it answers the question. "
    "If not, try to analyze the intent of the query and assess how well each passage satisfies the intent. "
    "If an instruction is provided, you should follow the instruction when determining the ranking."
)


@dataclass(frozen=True)
class Rules:
    """Rules of a version of the model."""

    query_tokens: int
    document_tokens: int
    stripped: tuple[str, ...] = (DOCUMENT, QUERY)
    documents: int = 125
    marks_header: bool = False  # the query has a mark at its first place too
    ranking: str = ""  # text behind the query


RULES = {
    "jina_reranker_v3": Rules(query_tokens=512, document_tokens=2048),
    "jina_reranker_v3_5": Rules(
        query_tokens=1024,
        document_tokens=8192,
        stripped=(DOCUMENT, QUERY, "<|score_token|>"),
        marks_header=True,
        ranking=(
            "\nPlease provide the ranking of all passages based on their relevance to the search query, in descending "
            "order of relevance, with each label enclosed in square brackets (e.g., [2] > [1] > [3] > [0])."
        ),
    ),
}


def prompt(rules: Rules, query: str, documents: Sequence[str]) -> list[str]:
    """Prompt of a block: its special tokens, and the texts between them."""
    passages = [part for row, document in enumerate(documents) for part in _passage(row, document)]
    header = f"Rank the passages based on their relevance to query: {query}"
    count = f"I will provide you with {len(documents)} passages, each indicated by a numerical identifier. "
    parts = [
        START, SYSTEM, END, "\n", START, f"user\n{count}{header}", *([QUERY] * rules.marks_header), "\n", *passages,
        f"\n<query>\n{query}", QUERY, f"\n</query>{rules.ranking}", END,
        "\n", START, "assistant\n", THINK, "\n\n", THOUGHT, "\n\n",
    ]  # fmt: skip
    return list(_joined(parts))


def _passage(row: int, document: str) -> list[str]:
    return [f'{chr(10) if row else ""}<passage id="{row}">\n{document}', DOCUMENT, "\n</passage>"]


def _joined(parts: Sequence[str]) -> Iterator[str]:
    for is_token, run in groupby(parts, lambda part: isinstance(part, Token)):
        pieces = list(run)
        yield from pieces if is_token else ["".join(pieces)]


class ListReading:
    """Tokenizer of the model.

    Attributes:
        special: tokens that are parsed in a text.
    """

    def __init__(self, source: ModelSource) -> None:
        """Open the tokenizer of the checkpoint; raises whatever transformers raises."""
        with joined_files(source, None) as folder, quiet():
            self._tokenizer: Any = open_tokenizer(folder)
        self.rules = RULES[source.family]
        self.special = parsed_tokens(self._tokenizer)

    def parsed(self, query: str, documents: Sequence[str]) -> list[int]:
        """Token ids of the prompt as one text, as the model's code reads it."""
        ids: list[int] = self._tokenizer("".join(prompt(self.rules, query, documents)))["input_ids"]
        return ids

    def ids(self, query: str, documents: Sequence[str]) -> list[int]:
        """Token ids of the prompt, in which special tokens of texts are plain characters."""
        return [number for part in prompt(self.rules, query, documents) for number in self._ids(part)]

    def cut(self, text: str, limit: int) -> tuple[str, int]:
        """The text without marks, of at most `limit` tokens, and their number."""
        while any(mark in text for mark in self.rules.stripped):
            for mark in self.rules.stripped:
                text = text.replace(mark, "")
        ids = self._ids(text)
        return (text, len(ids)) if len(ids) <= limit else (self._tokenizer.decode(ids[:limit]), limit)

    def number(self, token: Token) -> int:
        """Id of a special token."""
        found: int = self._tokenizer.convert_tokens_to_ids(str(token))
        return found

    def _ids(self, part: str) -> list[int]:
        if isinstance(part, Token):
            return [self.number(part)]
        ids: list[int] = self._tokenizer(part, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids


class ListModel:
    """The model in full precision: nothing quantized, one block at a time."""

    def __init__(self, source: ModelSource) -> None:
        """Load the model; CheckpointError if transformers would use the files otherwise."""
        self._reading = ListReading(source)
        self._model = load_model(source, None)
        names = ("projector.0.weight", "projector.2.weight")
        self._projector = [torch.from_numpy(source.checkpoint.tensors[name].float32()) for name in names]
        self._max_tokens = source.max_tokens

    def scores(self, query: str, documents: Sequence[Document]) -> Float32:
        """Scores, float32 [documents]."""
        rules, read = self._reading.rules, self._reading
        query, length = read.cut(query, rules.query_tokens)
        capacity = self._max_tokens - 2 * length
        found: list[tuple[torch.Tensor, torch.Tensor]] = []
        block: list[str] = []
        for document in check_documents(documents):
            assert isinstance(document, str)
            text, tokens = read.cut(document, rules.document_tokens)
            block.append(text)
            capacity -= tokens
            if len(block) >= rules.documents or capacity <= rules.document_tokens:
                found.append(self._vectors(query, block))
                block, capacity = [], self._max_tokens - 2 * length
        if block:
            found.append(self._vectors(query, block))
        return self._merged(found)

    def _vectors(self, query: str, documents: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Projected states at the marks of a block: of the documents, and the last of the query."""
        ids = torch.tensor([self._reading.ids(query, documents)])
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
            first, second = self._projector
            vectors = torch.relu(states @ first.T) @ second.T
        of_document, of_query = (ids[0] == self._reading.number(mark) for mark in (DOCUMENT, QUERY))
        return vectors[of_document], vectors[of_query][-1]

    def _merged(self, blocks: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Float32:
        weights = [float(((1 + torch.cosine_similarity(docs, query[None])) / 2).max()) for docs, query in blocks]
        merged = np.average([query.numpy() for _, query in blocks], axis=0, weights=weights)
        vectors = np.concatenate([docs.numpy() for docs, _ in blocks])
        cosines = vectors @ merged / np.linalg.norm(merged) / np.linalg.norm(vectors, axis=1)
        return np.asarray(cosines, np.float32)
