"""Files of a repository of the Hugging Face hub that an export reads: modules.json names the folders of modules."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from embedpack_export.sources.files import exists
from embedpack_export.sources.hub_check import check_commit, has_digest
from embedpack_export.sources.modules_json import module_folders

MODULES = "modules.json"
# A star matches slashes too, so each pattern is specific to one kind of file.
INCLUDED = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "sentence_*_config.json",
    "config_sentence_transformers.json",
    "artifact.metadata",
    "adapters/*.json",
    "adapters/*README.md",
    "adapters/*LICENSE*",
    "README.md",
    "LICENSE*",
)
# Code, other formats, and weights of other models or training steps in subfolders.
CODE = ("*.py", "*.bin", "*.pt", "*.onnx")
EXCLUDED = (*CODE, "*/model.safetensors", "*/model-?????-of-?????.safetensors", "*/model.safetensors.index.json")


def fetch_files(repository: str, revision: str | None) -> Path:
    """Download the files that an export reads, all of one commit; return their folder in the hub's cache.

    Raises:
        CheckpointError: modules.json is damaged or names a folder elsewhere, or the hub sent no commit.
        Others of huggingface_hub.
    """
    from huggingface_hub import snapshot_download

    def fetch(commit: str | None, allowed: Sequence[str], refused: Sequence[str]) -> Path:
        return Path(
            snapshot_download(repository, revision=commit, allow_patterns=[*allowed], ignore_patterns=[*refused])
        )

    # huggingface_hub warns of a call without any file: a repository has one of these, and further calls find the first.
    folder = fetch(revision, [MODULES, "config.json"], CODE)
    commit = check_commit(repository, folder)
    modules = [glob.escape(name) for name in _module_folders(folder / MODULES)]
    fetch(commit, INCLUDED, EXCLUDED)
    if modules:
        of_modules = [f"{module}/{kind}" for module in modules for kind in ("*.json", "*.safetensors")]
        fetch(commit, [MODULES, *of_modules], [*CODE, *(f"{module}/*/*" for module in modules)])
    return folder


def _module_folders(path: Path) -> list[str]:
    """Folders in modules.json, which is compared with its digest before it is read; none without the file."""
    if path.is_symlink():
        has_digest(path)
    return module_folders(path) if exists(path) else []
