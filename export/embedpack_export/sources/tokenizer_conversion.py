"""Folders whose tokenizer is in another file than tokenizer.json: the command that makes one."""

from __future__ import annotations

import shlex
from pathlib import Path

from embedpack.errors import CheckpointError
from embedpack_export.sources.files import MAX_JSON_BYTES, exists, read_file

# Files that transformers makes a tokenizer of if there is no tokenizer.json.
SENTENCEPIECE = ("tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "spm.model")
VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", *SENTENCEPIECE)
# A file of SentencePiece begins with the field 1 of its message, one of tiktoken with a token in base64.
FIRST_FIELD = b"\n"


def missing_tokenizer(folder: Path) -> CheckpointError:
    """Error of a folder without tokenizer.json; its message has the command that writes one."""
    found = [name for name in VOCABULARIES if exists(folder / name)]
    if not found:
        others = ", ".join(sorted(path.name for path in folder.glob("*.tiktoken"))) or "no other file of a tokenizer"
        return CheckpointError(
            f"{folder}: tokenizer.json is missing, there is {others}; copy tokenizer.json from the folder of the model "
            "that this one was trained from"
        )
    return CheckpointError(
        f"{folder}: tokenizer.json is missing; make one of {found[0]}: {conversion(folder, found[0])}"
    )


def conversion(folder: Path, vocabulary: str) -> str:
    """Shell command that makes a tokenizer.json in a folder of a vocabulary, and the packages that it needs.

    Raises:
        CheckpointError: the vocabulary cannot be read.
    """
    packages = "transformers"
    if vocabulary in SENTENCEPIECE:
        content = read_file(folder / vocabulary, folder, MAX_JSON_BYTES)
        packages += " sentencepiece protobuf" if content.startswith(FIRST_FIELD) else " tiktoken"
    name = repr(str(folder))
    script = f"from transformers import AutoTokenizer as T; T.from_pretrained({name}).save_pretrained({name})"
    return f"{shlex.join(['python', '-c', script])} (needs pip install {packages})"
