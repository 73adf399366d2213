"""Added tokens of a tokenizer.json, with those that the files next to it declare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedpack.errors import CheckpointError
from embedpack_export.sources.key_rules import shown

FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
Entry = dict[str, Any]


def token_content(token: Any) -> str:
    """Characters of a token, which is a string or an object."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)


@dataclass(frozen=True)
class AddedTokens:
    """Entries of `added_tokens` in tokenizer.json, and the ids of the other tokens."""

    path: Path
    entries: list[Entry]
    vocabulary: Mapping[str, int]

    @classmethod
    def read(cls, path: Path, document: Mapping[str, Any]) -> AddedTokens:
        """Read the content of a tokenizer.json that the tokenizers library accepts."""
        vocabulary = document["model"]["vocab"]
        if not isinstance(vocabulary, dict):
            vocabulary = {piece: number for number, (piece, *_) in enumerate(vocabulary)}
        return cls(path, [dict(entry) for entry in document.get("added_tokens") or ()], vocabulary)

    def number(self, content: str) -> int | None:
        """Id of a token; None if there is no such token."""
        return next(
            (entry["id"] for entry in self.entries if entry["content"] == content), self.vocabulary.get(content)
        )

    def with_numbered(self, tokens: Mapping[int, Any], source: Path, *, keep: bool = False) -> AddedTokens:
        """The entries with tokens by id that a file declares; its flags count unless `keep`.

        Raises:
            CheckpointError: tokenizer.json has another id for a token, or lacks the ids before a new one.
        """
        known = {entry["content"]: entry for entry in self.entries}
        for number, token in sorted(tokens.items()):
            content = token_content(token)
            flags = token if isinstance(token, dict) else {}
            found = self.number(content) if content not in known else known[content]["id"]
            expected = self._next_number(known) if found is None else found
            if number != expected:
                raise CheckpointError(
                    f"{source}: gives {shown(content)} the id {number}, {self.path} makes it {expected}; save the "
                    "tokenizer again"
                )
            if content in known and keep:
                continue
            special = bool(flags.get("special", False))
            values = {flag: bool(flags.get(flag, flag == "normalized" and not special)) for flag in FLAGS}
            known[content] = {"id": number, "content": content, **values, "special": special}
        return AddedTokens(self.path, list(known.values()), self.vocabulary)

    def with_special(self, contents: Iterable[str]) -> AddedTokens:
        """The entries with named special tokens, new ones behind the others."""
        known = {entry["content"]: entry for entry in self.entries}
        for content in dict.fromkeys(contents):
            if not content:
                continue
            found = self.number(content)
            new = {"id": self._next_number(known) if found is None else found, "content": content}
            new |= dict.fromkeys(FLAGS, False)
            known[content] = {**new, **known.get(content, {}), "special": True}
        return AddedTokens(self.path, list(known.values()), self.vocabulary)

    def as_texts(self, contents: Iterable[str]) -> AddedTokens:
        """The entries with special tokens that are parsed in texts as well; CheckpointError for another token."""
        special = {entry["content"]: entry for entry in self.entries if entry["special"]}
        for content in contents:
            if content not in special:
                raise CheckpointError(
                    f"{self.path}: {shown(content)} is no special token; there are {', '.join(special) or 'none'}"
                )
        changed = [
            {**entry, "special": False, "normalized": False} if entry["content"] in set(contents) else entry
            for entry in self.entries
        ]
        return AddedTokens(self.path, changed, self.vocabulary)

    def _next_number(self, known: Mapping[str, Entry]) -> int:
        return max([len(self.vocabulary) - 1, *(entry["id"] for entry in known.values())]) + 1
