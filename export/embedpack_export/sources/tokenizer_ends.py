"""Check of the special tokens around a text, and of the space before it, against tokenizer_config.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from embedpack.errors import CapacityError, CheckpointError
from embedpack_export.sources.added_tokens import token_content
from embedpack_export.sources.key_rules import shown

Json = Mapping[str, Any]
# Options of `Metaspace` that put a space before a text.
PREPENDED = ("always", "first")


@contextmanager
def library_errors(path: Path) -> Iterator[None]:
    """Turn errors and panics of the tokenizers library for a tokenizer.json at `path` into a CheckpointError."""
    try:
        yield
    except MemoryError as cause:
        raise CapacityError(f"{path}: does not fit the memory; free some") from cause
    except BaseException as cause:  # tokenizers raises bare Exception, and panics are none
        if isinstance(cause, Exception) or type(cause).__name__ == "PanicException":
            raise CheckpointError(f"{path}: the tokenizers library cannot read it: {cause}; copy it again") from cause
        raise


def load_tokenizer(document: Json, path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json's content, without truncation and padding.

    Raises:
        CheckpointError: the tokenizers library cannot read it.
    """
    with library_errors(path):
        return Tokenizer.from_str(json.dumps({**document, "truncation": None, "padding": None}))


def check_ends(document: Json, config: Json, path: Path, *, of_bert: bool) -> None:
    """Compare the tokens that tokenizer.json adds to a text with `config`, a tokenizer_config.json at `path`.

    Raises:
        CheckpointError: add_bos_token, add_eos_token, add_prefix_space, or cls_token and sep_token of a BertTokenizer
            contradict tokenizer.json; or BERT gets token types other than 0.
    """
    tokenizer = load_tokenizer(document, path.with_name("tokenizer.json"))
    with library_errors(path.with_name("tokenizer.json")):
        text, whole = tokenizer.encode("a", add_special_tokens=False), tokenizer.encode("a")
    added = [token for token, special in zip(whole.ids, whole.special_tokens_mask, strict=True) if special]
    before = next((row for row, special in enumerate(whole.special_tokens_mask) if not special), len(added))
    counts = {"add_bos_token": before, "add_eos_token": len(whole.ids) - before - len(text.ids)}
    for key, count in counts.items():
        if config.get(key) is not None and bool(config[key]) != (count > 0):
            raise CheckpointError(
                f"{path}: {key} is {shown(config[key])}, tokenizer.json adds {count} tokens there; keep the one that "
                "the model was trained with: remove the key, or save tokenizer.json again"
            )
    _check_prefix_space(document, config, path)
    if not of_bert:
        return
    named = {key: config[key] for key in ("cls_token", "sep_token") if config.get(key)}
    for (key, token), found in zip(named.items(), (whole.ids[:1], whole.ids[-1:]), strict=False):
        if len(named) == 2 and added and [tokenizer.token_to_id(token_content(token))] != found:
            raise CheckpointError(
                f"{path}: {key} is {shown(token_content(token))}, tokenizer.json adds id {found[0]} there; save the "
                "tokenizer again"
            )
    if any(whole.type_ids):
        raise CheckpointError(f"{path.with_name('tokenizer.json')}: token types of a text are {whole.type_ids}, not 0")


def _check_prefix_space(document: Json, config: Json, path: Path) -> None:
    wanted = config.get("add_prefix_space")
    for part in _parts(document.get("pre_tokenizer"), "pretokenizers"):
        if part.get("type") == "ByteLevel":
            found = bool(part.get("add_prefix_space", True))
        elif part.get("type") == "Metaspace":
            scheme = part.get("prepend_scheme")
            found = scheme in PREPENDED if scheme is not None else bool(part.get("add_prefix_space", True))
        else:
            continue
        if wanted is not None and bool(wanted) != found:
            raise CheckpointError(
                f"{path}: add_prefix_space is {shown(wanted)}, {part['type']} in tokenizer.json has it {found}; keep "
                "the one that the model was trained with"
            )


def _parts(component: Any, key: str) -> Iterator[Json]:
    if isinstance(component, dict):
        yield from component[key] if component.get("type") == "Sequence" else [component]
