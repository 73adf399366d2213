"""Keys of the tensors in a PEFT file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from embedpack.errors import CheckpointError

KEY_PREFIX = "base_model.model."
TOKEN_ROWS = "trainable_tokens_delta"
# Module that holds these rows, in the embedding table's.
TOKEN_ADAPTER = "token_adapter"
# States of training in the file, by the first part of their names: of VeLoRA's gradients, of MonteCLoRA's samples.
OF_TRAINING = ("lora_velora_embed", "lora_monteclora_sampler")
PARTS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")
# PEFT's name of an adapter that was given none, where the whole state of a model was saved.
UNNAMED = "default"
# Wrapper of the model in the first module of a SentenceTransformer.
WRAPPER = re.compile(r"^0\.(auto_model|model)\.")
# Part of the name of a module that one of `modules_to_save` replaces.
ORIGINAL = "original_module"
# Heads of transformers' classes for language models, classification and question answering: no embedding needs them.
HEADS = re.compile(r"(lm_head|classifier|score|qa_outputs)\.")
# Those for classification, which may score pairs.
SCORING = ("classifier", "score")


@dataclass(frozen=True)
class AdapterKey:
    """A parsed key of the file."""

    trained: str  # name of the module in the model that was trained
    part: str  # one of PARTS; "" for a tensor that replaces one of the model
    task: str  # the task; "" in a file of one adapter
    leaf: str  # "weight", "bias" or ""

    @property
    def module(self) -> str:
        """Name of the module in the transformers model."""
        return WRAPPER.sub("", self.trained)

    def is_unused(self, *, with_heads: bool = False) -> bool:
        """True if the module is one that a saved module replaces, or belongs to a head that no embedding needs.

        `with_heads`: heads for classification are needed.
        """
        head = HEADS.match(f"{self.module}.")
        return ORIGINAL in self.module.split(".") or (head is not None and not (with_heads and head[1] in SCORING))

    @property
    def slot(self) -> str:
        """The part or its bias, or the name of the tensor that is replaced.

        PEFT appends ".weight" to the parts of linear layers only.
        """
        if not self.part:
            return f"{self.module}.{self.leaf}"
        return f"{self.part}.bias" if self.leaf == "bias" else self.part


def parse_key(path: Path, name: str) -> AdapterKey:
    """Take a key of the file at `path` apart.

    Raises:
        CheckpointError: the key is none of a LoRA or DoRA, a saved module or a bias.
    """
    words = name.removeprefix(KEY_PREFIX).split(".")
    leaf = words.pop() if words[-1] in ("weight", "bias") else ""
    part = next((word for word in words if word in PARTS), "")
    if words[-2:] == [TOKEN_ADAPTER, TOKEN_ROWS]:
        part, module, rest = TOKEN_ROWS, words[:-2], []
    elif part:
        module, rest = words[: words.index(part)], words[words.index(part) + 1 :]
    else:
        module, rest = [word for word in words if word not in ("base_layer", "modules_to_save", UNNAMED)], []
    valid = name.startswith(KEY_PREFIX) and module and (part or leaf) and len(rest) <= 1
    if not valid or any("lora" in word or "trainable_tokens" in word for word in module):
        raise CheckpointError(f"{path}: the key {name!r} is unknown; only LoRA and DoRA adapters can be merged")
    task = rest[0] if rest and rest[0] != UNNAMED else ""
    return AdapterKey(".".join(module), part, task, leaf)


def is_of_training(name: str) -> bool:
    """True if a key belongs to the state of a training, which no vector depends on."""
    return any(word in OF_TRAINING for word in name.split("."))
