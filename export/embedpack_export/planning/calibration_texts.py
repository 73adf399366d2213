"""Calibration texts: read from JSON lines, grouped by prompt. They are part of no evaluation set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from embedpack.errors import InputError, failed
from embedpack.inputs.prompt_rules import PromptOrPrefix

SHIPPED = Path(__file__).parents[1] / "data" / "calibration.jsonl"


class CalibrationText(msgspec.Struct, frozen=True):
    """Line of a calibration file; `kind` is the name of its prompt, if the task has that prompt."""

    text: str
    kind: str | None = None
    lang: str | None = None


@dataclass(frozen=True)
class CalibrationSet:
    """Texts of a file, with its digest."""

    texts: tuple[CalibrationText, ...]
    sha256: str

    def by_prompt(self, prompt: Callable[[str | None], PromptOrPrefix]) -> dict[PromptOrPrefix, list[str]]:
        """Group the texts by the prompt of their kind."""
        groups: dict[PromptOrPrefix, list[str]] = {}
        for line in self.texts:
            groups.setdefault(prompt(line.kind), []).append(line.text)
        return groups


def read_calibration(path: Path | None) -> CalibrationSet:
    """Read JSON lines with a "text" each; None takes the texts that come with the exporter.

    Raises:
        InputError: the file is missing, not JSON lines, or has no text.
    """
    path = path or SHIPPED
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise InputError(f"{path}: {failed('read', cause)}") from cause
    texts = tuple(_text(path, number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip())
    if not texts:
        raise InputError(f"{path}: has no calibration texts; write one JSON object with a `text` in each line")
    return CalibrationSet(texts, hashlib.sha256(content).hexdigest())


def _text(path: Path, number: int, line: bytes) -> CalibrationText:
    try:
        text = msgspec.json.decode(line, type=CalibrationText)
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        raise InputError(f'{path}: line {number} must be a JSON object with a "text": {cause}') from cause
    if not text.text.strip():
        raise InputError(f"{path}: line {number} has an empty text; remove it")
    return text
