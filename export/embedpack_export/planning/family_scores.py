"""Rerankers whose family has the form of the input: the prompt of lists, or the plain text of pairs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from embedpack.errors import CheckpointError
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.score_recipes import ListScores, PairScores, Part, Slot, Template
from embedpack_export.families.heads import MarkHead, ScoreHead
from embedpack_export.families.model import FixedPairs, ListPrompt, Model
from embedpack_export.planning.score_head import ScorePlan
from embedpack_export.planning.text_inputs import TextInputs
from embedpack_export.planning.token_scores import check_marks
from embedpack_export.sources.checkpoint import Checkpoint
from embedpack_export.sources.sentence_transformers import SentenceTransformersConfig

SLOTS: Mapping[str, Slot] = {
    "{query}": Slot(slot="query"),
    "{document}": Slot(slot="document"),
    "{count}": Slot(slot="count"),
    "{index}": Slot(slot="index"),
}


def check_options(family: str, config: SentenceTransformersConfig, adapters: Mapping[str, Path]) -> None:
    """Refuse what such a reranker has no use for; CheckpointError names the adapter or the file."""
    for folder in adapters.values():
        raise CheckpointError(
            f"{folder}: adapters of {family} are not supported; merge it with PEFT's merge_and_unload, and export the "
            "merged model"
        )
    if config.modules:
        raise CheckpointError(
            f"{config.folder / 'modules.json'}: modules of sentence-transformers, which {family} does not have; remove "
            "the file"
        )


def plan_family_scores(checkpoint: Checkpoint, model: Model, texts: TextInputs) -> ScorePlan:
    """Recipe of the scores.

    Raises:
        CheckpointError: a tensor of the head is missing or misshapen, or the tokenizer or the limit does not fit.
    """
    head = model.heads.score
    assert head is not None
    _check_head(checkpoint, model, head)
    if model.fixed_pairs is not None:
        return ScorePlan(head, _pairs(model.fixed_pairs, texts))
    assert model.list_prompt is not None
    return ScorePlan(head, _lists(model, model.list_prompt, texts))


def _pairs(pairs: FixedPairs, texts: TextInputs) -> PairScores:
    return PairScores(
        parts=_template(pairs.template, {}),
        instruction=None,
        max_tokens=texts.max_tokens,
        max_query_tokens=None,
        max_document_tokens=min(max(texts.max_tokens - pairs.reserved, pairs.reserved), texts.max_tokens),
        cut="end",
        overlap=None,
        token_types=False,
        offset=pairs.offset,
        activation="sigmoid",
    )


def _lists(model: Model, prompt: ListPrompt, texts: TextInputs) -> ListScores:
    check_marks(texts, prompt.marks, "lists")
    _check_texts(model, prompt, texts)
    marks = {mark: texts.tokens.added.number(mark) for mark in prompt.marks}
    ids = {mark: number for mark, number in marks.items() if number is not None}
    return ListScores(
        before=_template(prompt.before, ids),
        document=_template(prompt.document, ids),
        between=prompt.between,
        after=_template(prompt.after, ids),
        document_mark=ids[prompt.document_mark],
        query_mark=ids[prompt.query_mark],
        stripped=prompt.stripped,
        max_query_tokens=prompt.max_query_tokens,
        max_document_tokens=prompt.max_document_tokens,
        max_tokens=texts.max_tokens,
        max_documents=prompt.max_documents,
    )


def _template(text: str, ids: Mapping[str, int]) -> Template:
    """Parts of a text with the names of slots and of tokens."""
    pattern = "|".join(map(re.escape, [*SLOTS, *ids]))
    return tuple(_part(piece, ids) for piece in re.split(f"({pattern})", text) if piece)


def _part(piece: str, ids: Mapping[str, int]) -> Part:
    return SLOTS[piece] if piece in SLOTS else (ids[piece],) if piece in ids else piece


def _check_head(checkpoint: Checkpoint, model: Model, head: ScoreHead | MarkHead) -> None:
    tensors = {model.rules.normal(name): tensor for name, tensor in checkpoint.tensors.items()}
    for name, shape in (item for layer in head.layers for item in layer.shapes.items()):
        tensor = tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{checkpoint.folder}: tensor {name!r} is missing; is a shard or a file incomplete?")
        if tensor.shape != shape:
            raise CheckpointError(
                f"{tensor.path}: {name} has the shape {list(tensor.shape)}, the model's code makes it {list(shape)}; "
                "restore the file"
            )


def _check_texts(model: Model, prompt: ListPrompt, texts: TextInputs) -> None:
    tokenizer = TextTokenizer(texts.tokenizer_json, texts.max_tokens)
    if tokenizer.special_tokens:
        raise CheckpointError(
            f"{texts.tokenizer}: adds {tokenizer.special_tokens} tokens to a text, which the prompt of lists does not "
            "have; restore the tokenizer of the model"
        )
    largest = max(texts.tokens.added.number(mark) or 0 for mark in prompt.marks)
    if largest >= model.vocabulary:
        raise CheckpointError(
            f"{texts.tokenizer}: the token {largest} of the prompt is none of the {model.vocabulary} rows of the "
            "embedding table; the tokenizer belongs to another model"
        )
    needed = max(prompt.max_document_tokens, prompt.max_query_tokens)
    if texts.max_tokens < needed:
        raise CheckpointError(
            f"a list has at most {texts.max_tokens} tokens, one document has up to {needed}; pass a larger --max-length"
        )
