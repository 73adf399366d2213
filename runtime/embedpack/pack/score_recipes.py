"""Scores in the manifest: a query and documents to the inputs of a graph, and its output to a score for each document.

A template is a sequence of parts: a string is text, a list of numbers is token ids, and a slot stands for a text of the
call. Neighbouring texts and slots are joined before they are tokenized, without special tokens.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from embedpack.pack.strict import Strict, TokenCount, TokenId


class Slot(Strict, frozen=True):
    """Place of a text of the call.

    "count" is the number of documents of a block, "index" the position of a document in it, from 0.
    """

    slot: Literal["query", "document", "instruction", "count", "index"]


Part: TypeAlias = str | tuple[TokenId, ...] | Slot
Template: TypeAlias = tuple[Part, ...]


class PairScores(Strict, frozen=True, tag="pair"):
    """A query and one document are one input of the graph, whose output is the logit of their score.

    Attributes:
        parts: template with one query and one document.
        instruction: text of the slot "instruction" where a call has none; null: there is no such slot.
        max_tokens: maximum length of the whole input.
        max_query_tokens, max_document_tokens: maximum length of each; null: no limit of its own.
        cut: part that is truncated in inputs that are too long: the end of the document; the end of the longer of the
            two, token by token; the end of the whole input, before `text.after`.
        overlap: a document that is too long is split into windows of equal length that share this number of tokens, but
            at most a quarter of their length, the last one at its end, and its score is the highest of them; null: it
            is truncated.
        token_types: the input `token_type_ids` is 1 from the document on.
        offset: is added to the logit.
        activation: function of the sum.
    """

    parts: Template
    instruction: str | None
    max_tokens: TokenCount
    max_query_tokens: TokenCount | None
    max_document_tokens: TokenCount | None
    cut: Literal["document", "longest", "end"]
    overlap: Annotated[int, msgspec.Meta(ge=0)] | None
    token_types: bool
    offset: float
    activation: Literal["none", "sigmoid"]


class ListScores(Strict, frozen=True, tag="list"):
    """A query and a block of documents are one input of the graph, which gives a vector at each mark.

    The graph is causal: what follows the last mark of the query changes no score, and need not be computed.

    The score of a document is the cosine of the vectors at its mark and at the last mark of the query. With several
    blocks the vector of the query is their mean, weighted by the highest (1 + score) / 2 of each block.

    Attributes:
        before: template of the input before the documents.
        document: template of each document, with its mark.
        between: text between two documents.
        after: template of the input after the documents, with the mark of the query.
        document_mark, query_mark: token ids of the marks; the first stands in the template of documents alone.
        stripped: strings that are removed from queries and documents, until none is left.
        max_query_tokens, max_document_tokens: maximum length of each.
        max_tokens: maximum length of documents and of the query, which counts twice, in a block; a block also ends
            where fewer than `max_document_tokens` + 1 are left.
        max_documents: maximum number of documents in a block.
    """

    before: Template
    document: Template
    between: str
    after: Template
    document_mark: TokenId
    query_mark: TokenId
    stripped: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=64)], ...]
    max_query_tokens: TokenCount
    max_document_tokens: TokenCount
    max_tokens: TokenCount
    max_documents: Annotated[int, msgspec.Meta(ge=1, le=65_536)]


class MaxSimScores(Strict, frozen=True, tag="maxsim"):
    """The score is the MaxSim of the multi-vectors of a query and a document.

    `per_query_token`: it is divided by the number of query vectors.
    """

    task: str
    query_prompt: str
    document_prompt: str
    per_query_token: bool
