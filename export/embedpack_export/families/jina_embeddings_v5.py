"""jina-embeddings-v5-text: Qwen3 (small) or EuroBERT (nano), and a folder with the adapter of each task.

The repositories of single tasks have merged weights under the names of Qwen3 and EuroBERT, and are of these families.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import msgspec

from embedpack.errors import CheckpointError
from embedpack_export.families import eurobert, qwen3
from embedpack_export.families.heads import Heads, SingleHead
from embedpack_export.families.model import Family, Model, TaskFacts, by_model_type
from embedpack_export.graph.towers.decoder import LINEARS_OF_A_LAYER
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_object
from embedpack_export.sources.config_keys import code_of
from embedpack_export.sources.key_rules import Followed, KeyTable, shown
from embedpack_export.sources.peft_folders import PeftFolders

# Norms of queries and keys, which Qwen3 alone has.
QK_NORM = ".self_attn.q_norm.weight"
# Truncations on the model cards, besides all dimensions; no file has them.
TRUNCATIONS = (32, 64, 128, 256, 512, 768)
# In the code of the model too, which its files of sentence-transformers only repeat.
PROMPTS = TaskFacts({"query": "Query: ", "document": "Document: "}, "document")
OWN_KEYS = {
    "task_names": Followed("tasks, each with its adapter in adapters/TASK"),
    "is_decoder": Followed("false: EuroBERT, whose layers have no q_norm; true or missing: Qwen3"),
    "auto_map": code_of("JinaEmbeddingsV5Config", "JinaEmbeddingsV5Model"),
}
KEYS = KeyTable(
    "config.json (jina_embeddings_v5, next to the keys of qwen3 or eurobert)",
    {
        **OWN_KEYS,
        "num_hidden_layers": Followed("layers that each adapter changes"),
        "rms_norm_eps": Followed("epsilon of the norms; needed"),
        "rope_theta": Followed("base of the rotary positions; needed, as that of the backbone was changed"),
        **{name: qwen3.KEYS.rules[name] for name in ("rope_scaling", "rope_parameters")},
    },
)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of config.json that this family needs; a default of the backbone would give other vectors."""

    task_names: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    is_decoder: bool | None = None
    num_hidden_layers: Size
    rms_norm_eps: float
    rope_theta: float


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a checkpoint on that of its backbone."""
    content = {key: value for key, value in checkpoint.config.items() if key in KEYS.rules}
    config = parse_object(checkpoint, content, Config, KEYS)
    backbone = _backbone(checkpoint, config.is_decoder)
    of_backbone: Mapping[str, Any] = {
        **{key: value for key, value in checkpoint.config.items() if key not in OWN_KEYS},
        "model_type": backbone.name,
    }
    model = backbone.read(replace(checkpoint, config=of_backbone))
    layers = range(config.num_hidden_layers)
    return replace(
        model,
        heads=Heads(SingleHead("last")),
        truncate_dims=model.truncate_dims or tuple(size for size in TRUNCATIONS if size < model.hidden),
        tasks={"": PROMPTS},
        adapters=PeftFolders(checkpoint.folder / "adapters", config.task_names),
        adapted=frozenset(f"layers.{index}.{name}" for index in layers for name in LINEARS_OF_A_LAYER),
        config_of_class=of_backbone,
    )


def _backbone(checkpoint: Checkpoint, is_decoder: bool | None) -> Family:
    """Family of the backbone, by its tensors; raises CheckpointError if `is_decoder` is of the other one."""
    is_qwen3 = any(name.endswith(QK_NORM) for name in checkpoint.tensors)
    if is_qwen3 != (is_decoder is not False):
        raise CheckpointError(
            f"{checkpoint.folder / 'config.json'}: is_decoder is {shown(is_decoder)}, the tensors are those of "
            f"{'qwen3, with' if is_qwen3 else 'eurobert, without'} self_attn.q_norm; restore the config.json of the "
            "model"
        )
    return qwen3.FAMILY if is_qwen3 else eurobert.FAMILY


FAMILY = Family(
    "jina_embeddings_v5",
    by_model_type("jina_embeddings_v5"),
    read,
    (KEYS,),
    own_modules=("custom_st.Transformer",),
)
