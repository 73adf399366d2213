"""LogitScore module of sentence-transformers: the score is the difference of the logits of two tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from embedpack.errors import CheckpointError
from embedpack.pack.strict import TokenId
from embedpack_export.sources.checkpoint import read_json
from embedpack_export.sources.files import MAX_JSON_BYTES, check_file, exists
from embedpack_export.sources.key_rules import Checked, Followed, KeyTable, Only, check_keys
from embedpack_export.sources.modules_json import Module
from embedpack_export.sources.sentence_transformers_keys import LIMITS

CHAT_TEMPLATE = "chat_template.jinja"
FLAT = {"method": "forward", "method_output_name": "logits", "format": "flat"}
LOGIT_SCORE = KeyTable(
    "1_LogitScore/config.json",
    {
        "true_token_id": Followed("token whose logit is the score"),
        "false_token_id": Followed("token whose logit is subtracted; needed"),
        "module_input_name": Only(("causal_logits", None), "export a model whose module reads the logits"),
    },
)


def _message_problem(value: Any) -> str | None:
    """Reason to refuse a `modality_config`; None if pairs go through the chat template as plain texts."""
    if isinstance(value, dict) and value.get("message") == FLAT:
        return None
    return f"supported: message as {FLAT}; export a model whose chat template takes a query and a document as texts"


LOGIT_LIMITS = KeyTable(
    "sentence_bert_config.json (LogitScore)",
    {
        **LIMITS.rules,
        "transformer_task": Only(("text-generation",), "export a model whose module reads the logits"),
        "module_output_name": Only(("causal_logits",), "export a model whose module reads the logits"),
        "modality_config": Checked("pairs through the chat template, as texts", _message_problem),
    },
)


class _Tokens(msgspec.Struct, frozen=True):
    true_token_id: TokenId
    false_token_id: TokenId


@dataclass(frozen=True)
class LogitScore:
    """Tokens of the answers, and the template of the pairs."""

    true_token_id: int
    false_token_id: int
    config: Path
    template: str  # content of chat_template.jinja
    files: tuple[Path, ...]


def read_logit_score(folder: Path, transformer: Path, module: Module) -> LogitScore:
    """Read the module of the model in `folder`, and the chat template next to the weights.

    Raises:
        CheckpointError: a file is missing or damaged, or a value is not supported.
    """
    config, template = folder / module.path / "config.json", transformer / CHAT_TEMPLATE
    check_keys(config, read_json(config, dict[str, Any], folder), LOGIT_SCORE)
    tokens = read_json(config, _Tokens, folder)
    if not exists(template):
        raise CheckpointError(
            f"{template}: missing, the template of pairs of a model with LogitScore; restore the files of the model"
        )
    try:
        content = check_file(template, folder, MAX_JSON_BYTES).read_text("utf-8")
    except UnicodeDecodeError as cause:
        raise CheckpointError(f"{template}: not UTF-8; restore the files of the model") from cause
    return LogitScore(tokens.true_token_id, tokens.false_token_id, config, content, (config, template))
