"""Scores of language models: the difference of the logits of two tokens behind the prompt of a pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from embedpack.errors import CheckpointError
from embedpack.pack.score_recipes import Slot, Template
from embedpack.storage.safetensors import StoredTensor
from embedpack_export.families.heads import ScoreHead
from embedpack_export.families.model import Model, PairPrompt, ScoreModel
from embedpack_export.planning.text_inputs import TextInputs
from embedpack_export.sources.checkpoint import Checkpoint, check_is_float
from embedpack_export.sources.head_layers import TokenLogits
from embedpack_export.sources.logit_score import CHAT_TEMPLATE, LogitScore
from embedpack_export.sources.sentence_transformers import SentenceTransformersConfig
from embedpack_export.sources.tokenizer_ends import library_errors, load_tokenizer

HEAD, TABLE = "lm_head.weight", "embed_tokens.weight"


def read_token_scores(checkpoint: Checkpoint, model: Model, logits: LogitScore) -> ScoreModel:
    """Scores of a language model with a LogitScore module, by the prompt of its family.

    Raises:
        CheckpointError: the family has no prompt, chat_template.jinja has another one, or a row of the head is missing.
    """
    if model.pair_prompt is None:
        raise CheckpointError(
            f"{logits.config}: LogitScore is supported for Qwen3-Reranker alone; docs/models.md has the rerankers that "
            "are exported"
        )
    _check_template(checkpoint, model.pair_prompt, logits.template)
    layer = TokenLogits("token_logits", model.hidden)
    head = _language_head(checkpoint, model)
    rows = (_row(logits, head, token, model) for token in (logits.true_token_id, logits.false_token_id))
    return ScoreModel(
        ScoreHead("last", (layer,)),
        prompt=model.pair_prompt,
        tensors=dict(zip(layer.shapes, rows, strict=True)),
    )


def check_marks(texts: TextInputs, marks: Iterable[str], kind: str) -> None:
    """Refuse a tokenizer without the tokens of a prompt of a `kind`; CheckpointError names the first one."""
    known = {entry["content"] for entry in texts.tokens.added.entries}
    for mark in marks:
        if mark not in known:
            raise CheckpointError(
                f"{texts.tokenizer}: has no token {mark}, which the prompt of {kind} needs; restore it"
            )


def prompt_template(prompt: PairPrompt, document: Mapping[str, Any], texts: TextInputs) -> Template:
    """Template of the pairs of a prompt, whose ends are token ids of a tokenizer.json with this content.

    Raises:
        CheckpointError: it has not the tokens of the prompt, or the limit leaves no room for a text.
    """
    check_marks(texts, prompt.marks, "pairs")
    tokenizer = load_tokenizer(document, texts.tokenizer)
    tokenizer.no_truncation()
    with library_errors(texts.tokenizer):
        before, after = (
            tuple(tokenizer.encode(text, add_special_tokens=False).ids) for text in (prompt.before, prompt.after)
        )
    if len(before) + len(after) >= texts.max_tokens:
        raise CheckpointError(
            f"the prompt of pairs has {len(before) + len(after)} tokens, a pair at most {texts.max_tokens}; pass a "
            "larger --max-length"
        )
    instruction, query, text = Slot(slot="instruction"), Slot(slot="query"), Slot(slot="document")
    return (before, prompt.instruction, instruction, prompt.query, query, prompt.document, text, after)


def instruction_of(prompt: PairPrompt, config: SentenceTransformersConfig) -> str:
    """Instruction of calls without one: the default prompt of the files, else that of the chat template."""
    name = config.default_prompt_name
    return prompt.default_instruction if name is None else config.prompts[name]


def _check_template(checkpoint: Checkpoint, prompt: PairPrompt, template: str) -> None:
    """Refuse a chat template without the words of the prompt in their order; the reading check compares all of it."""
    words = [prompt.before, prompt.instruction, prompt.query, prompt.document, prompt.after]
    rest = template.replace("\\n", "\n").replace('\\"', '"')
    for line in (line.strip() for text in words for line in text.split("\n") if line.strip()):
        _, found, rest = rest.partition(line)
        if not found:
            raise CheckpointError(
                f"{checkpoint.folder / CHAT_TEMPLATE}: is no template of Qwen3-Reranker, {line!r} is missing or at "
                "another place; restore the files of the model"
            )


def _language_head(checkpoint: Checkpoint, model: Model) -> StoredTensor:
    """Matrix [vocabulary, hidden] whose product are the logits.

    Raises:
        CheckpointError: there is none, or tied embeddings have one of other values next to them.
    """
    table = next((each for name, each in checkpoint.tensors.items() if model.rules.normal(name) == TABLE), None)
    head = checkpoint.tensors.get(HEAD)
    tied = checkpoint.config.get("tie_word_embeddings") is True
    if tied and table is not None and head is not None:
        raise CheckpointError(
            f"{head.path}: has {HEAD} next to the embedding table, and tie_word_embeddings is true in config.json; "
            "save the model again with transformers"
        )
    found = head or (table if tied else None)
    if found is None:
        raise CheckpointError(f"{checkpoint.folder}: {HEAD} is missing, which computes the scores; restore the files")
    return found


def _row(logits: LogitScore, head: StoredTensor, token: int, model: Model) -> StoredTensor:
    check_is_float(head)
    if head.shape != (model.vocabulary, model.hidden):
        raise CheckpointError(
            f"{head.path}: {head.name} has the shape {list(head.shape)}, config.json asks for "
            f"{[model.vocabulary, model.hidden]}; are both of one model?"
        )
    if token >= model.vocabulary:
        raise CheckpointError(f"{logits.config}: token {token} is none of the {model.vocabulary} tokens; correct it")
    return head.part(token)
