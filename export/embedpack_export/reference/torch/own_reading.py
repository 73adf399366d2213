"""Reading of texts by the libraries of a model: transformers' tokenizer, under the rules of sentence-transformers.

Nothing of how embedpack reads these files is used, so that a difference is found. The files of an adapter replace those
of the checkpoint of the same name, as a training run saves them next to the adapter.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedpack.pack.input_recipes import Prompt
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.reference.torch.loading import quiet
from embedpack_export.reference.torch.pretrained import open_tokenizer
from embedpack_export.sources.checkpoint import read_json
from embedpack_export.sources.files import check_file

# Adapters would be loaded as well.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "adapters")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".index.json")
MODULES = "modules.json"
TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True)
class OwnPrompts:
    """Prompts of a SentenceTransformer; none for a model without its files."""

    texts: Mapping[str, str]
    default: str | None


class OwnReading(Protocol):
    """Texts of one task to token ids.

    Attributes:
        library: name of the library that reads, for messages.
        max_tokens: limit of a text in tokens, special tokens included; may be set.
        prompts: prompts in the files.
        special: tokens that are parsed in a text.
        pooling: pooling in the files, in the words of the library; None: they have none.
        layers: description of each module after the pooling, such as "Dense 768->512 Tanh" or "Normalize".
    """

    library: str
    max_tokens: int
    prompts: OwnPrompts
    special: frozenset[str]
    pooling: str | None
    layers: tuple[str, ...]

    def ids(self, text: str, prompt: str) -> npt.NDArray[np.int64]:
        """Token ids of a text under a prompt, int64 [tokens]."""

    def pieces(self, ids: npt.NDArray[np.int64]) -> list[str]:
        """Pieces of text with these ids, as the vocabulary spells them."""


def open_reading(source: ModelSource, task: str | None) -> OwnReading:
    """Open the tokenizer of a task, by sentence-transformers if the model has its files, else by transformers.

    Raises whatever these libraries raise.
    """
    plan = None if task is None else source.tasks[task]
    adapter = None if plan is None or plan.adapter is None else plan.adapter.folder
    with joined_files(source, adapter) as folder, quiet():
        reading = (
            _SentenceTransformersReading(folder)
            if _has_plain_modules(folder) and source.single is not None
            else _TokenizerReading(folder, strip=source.model.text_rules.strip)
        )
    if adapter is not None and (adapter / TOKENIZER_CONFIG).exists() and not (adapter / MODULES).exists():
        # No library joins a SentenceTransformer and the tokenizer of an adapter: none states the limit of the two.
        reading.max_tokens = source.max_tokens
    # sentence-transformers itself limits a tokenizer by the positions, but no max_seq_length.
    plain = isinstance(reading, _TokenizerReading)
    reading.max_tokens = min(reading.max_tokens, source.model.max_tokens if plain else source.model.longest)
    return reading


class _TokenizerReading:
    """transformers' AutoTokenizer."""

    library = "transformers"
    pooling: str | None = None
    layers: tuple[str, ...] = ()

    def __init__(self, folder: Path, *, strip: bool) -> None:
        self._strip = strip
        self._tokenizer: Any = open_tokenizer(folder)
        self.max_tokens: int = self._tokenizer.model_max_length
        self.prompts = OwnPrompts({}, None)
        self.special = parsed_tokens(self._tokenizer)

    def ids(self, text: str, prompt: str) -> npt.NDArray[np.int64]:
        whole = prompt + (text.strip() if self._strip else text)
        encoded = self._tokenizer(whole, truncation=True, max_length=self.max_tokens)
        return np.array(encoded["input_ids"], np.int64)

    def pieces(self, ids: npt.NDArray[np.int64]) -> list[str]:
        return [str(piece) for piece in self._tokenizer.convert_ids_to_tokens(ids.tolist())]


class _SentenceTransformersReading:
    """A SentenceTransformer, whose weights are not loaded."""

    library = "sentence-transformers"

    def __init__(self, folder: Path) -> None:
        from sentence_transformers import SentenceTransformer

        self._model: Any = SentenceTransformer(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"device_map": "meta", "use_safetensors": True, "attn_implementation": "eager"},
        )
        prompts = {name: text or "" for name, text in self._model.prompts.items()}
        self.prompts = OwnPrompts(prompts, self._model.default_prompt_name)
        self.special = parsed_tokens(self._model.tokenizer)
        modes: list[Any] = [module.pooling_mode for module in self._model if type(module).__name__ == "Pooling"]
        self.pooling = " and ".join([mode if isinstance(mode, str) else "+".join(mode) for mode in modes]) or None
        described = (layer_description(module) for module in self._model)
        self.layers = tuple(text for text in described if text)

    @property
    def max_tokens(self) -> int:
        """The limit of the first module."""
        limit: int = self._model.max_seq_length
        return limit

    @max_tokens.setter
    def max_tokens(self, value: int) -> None:
        self._model.max_seq_length = value

    def ids(self, text: str, prompt: str) -> npt.NDArray[np.int64]:
        # One text at a time: nothing is padded, so that models without a padding token are read too.
        features = self._model.preprocess([text], prompt=prompt or None, processing_kwargs={"text": {"padding": False}})
        ids: npt.NDArray[np.int64] = features["input_ids"][0].numpy()
        return ids

    def pieces(self, ids: npt.NDArray[np.int64]) -> list[str]:
        return [str(piece) for piece in self._model.tokenizer.convert_ids_to_tokens(ids.tolist())]


def layer_description(module: Any) -> str:
    """Description of a module after the pooling; empty for other modules."""
    kind = type(module).__name__
    if kind == "Normalize":
        return kind
    if kind == "LayerNorm":
        return f"LayerNorm {module.dimension}"
    if kind != "Dense":
        return ""
    activation = type(module.activation_function).__name__
    bias = "" if module.linear.bias is not None else " without bias"
    residual = " residual" if module.use_residual else ""
    return f"Dense {module.linear.in_features}->{module.linear.out_features}{bias} {activation}{residual}"


def parsed_tokens(tokenizer: Any) -> frozenset[str]:
    """Tokens that are found in a text before it is split into words."""
    return frozenset(map(str, tokenizer.all_special_tokens)) | frozenset(tokenizer.get_added_vocab())


def _has_plain_modules(folder: Path) -> bool:
    """True if a folder is that of a SentenceTransformer without code of its own."""
    if not (folder / MODULES).exists():
        return False
    return all(
        str(module.get("type", "")).startswith("sentence_transformers.")
        for module in read_json((folder / MODULES).resolve(), list[dict[str, Any]])
    )


@contextmanager
def joined_files(source: ModelSource, adapter: Path | None) -> Iterator[Path]:
    """Temporary folder with the files of a source and of an adapter, for libraries that load both as one model."""
    with _joined(source.folder, adapter) as folder:
        _respell(folder / "config.json", source.model.config_of_class)
        yield folder


@contextmanager
def _joined(checkpoint: Path, adapter: Path | None) -> Iterator[Path]:
    """Temporary folder of links to the files of a checkpoint, and of an adapter in place of those of the same name."""
    with tempfile.TemporaryDirectory(prefix="embedpack-") as name:
        folder = Path(name)
        for source in (checkpoint, *([] if adapter is None else [adapter])):
            for path in sorted(source.iterdir()):
                is_weights = path.name.endswith(WEIGHTS)
                if path.name in ADAPTER_FILES or (is_weights and source != checkpoint):
                    continue
                if path.is_file():
                    check_file(path, source)
                (folder / path.name).unlink(missing_ok=True)
                (folder / path.name).symlink_to(path.resolve())
        yield folder


def _respell(path: Path, config: Mapping[str, object] | None) -> None:
    """Put the configuration in the spelling of transformers' class in place of the link at `path`; None: keep it."""
    if config is not None:
        path.unlink()
        path.write_text(json.dumps(config), "utf-8")


class TextIds:
    """Token ids of the texts of one task; those that spell special tokens are read as the pack reads them: as text."""

    def __init__(self, source: ModelSource, task: str | None) -> None:
        """Open the tokenizer of the task, with the length limit of the source."""
        self._reading = open_reading(source, task)
        self.max_tokens = source.max_tokens
        self._processor = source.processor

    def __call__(self, texts: Sequence[str], prompt: str, limit: int | None = None) -> list[npt.NDArray[np.int64]]:
        """Token ids of each text under a prompt, int64 [tokens]; `limit` is a lower one than that of the source."""
        self._reading.max_tokens = self.max_tokens if limit is None else limit
        return [self._ids(text, Prompt(prefix=prompt, max_tokens=limit)) for text in texts]

    def _ids(self, text: str, prompt: Prompt) -> npt.NDArray[np.int64]:
        if not any(token in text for token in self._reading.special) and len(
            ids := self._reading.ids(text, prompt.prefix)
        ):
            return ids
        # It refuses a text without tokens by name.
        return self._processor.process(self._processor.items([text]), prompt)[0].ids
