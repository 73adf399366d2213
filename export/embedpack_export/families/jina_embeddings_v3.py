"""jina-embeddings-v3: XLM-RoBERTa with rotary positions, and the adapters of five tasks stacked in the checkpoint.

The architecture is that of Sturua et al. 2024 (arXiv 2409.10173, section 3). Queries and passages of retrieval have
adapters of their own and share a space; the model without an adapter is a task beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec

from embedpack.errors import CheckpointError
from embedpack.inputs.tokenizer import TextRules
from embedpack_export.families._encoder import ROTARY_NAMES, EncoderConfig, Theta
from embedpack_export.families.heads import Heads, SingleHead
from embedpack_export.families.model import Family, Model, TaskFacts
from embedpack_export.graph.towers.encoder_shape import EncoderShape, RotaryPositions
from embedpack_export.graph.towers.rotary import RotaryTable
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT, ENCODERS, SIZES, code_of, sizes
from embedpack_export.sources.key_rules import Followed, KeyTable, Only, no_effect
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.stacked_adapters import Stacked
from embedpack_export.sources.tokenizer_class import FamilyTokenizer

# Model type of transformers' class; the published config.json has none, files that its code saves have another.
OF_TRANSFORMERS, OF_CODE = "jina_embeddings_v3", "xlm-roberta"
# Name of the task without an adapter, that of calls which name none.
WITHOUT_ADAPTER = "base"
# Last parts of the names of tasks whose vectors are compared with each other.
SIDES = ("query", "passage")


class JinaV3Config(EncoderConfig, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on; unsupported values are refused."""

    type_vocab_size: Size = 1
    layer_norm_eps: float = 1e-5
    pad_token_id: int | None = 1
    position_embedding_type: Literal["rotary"]
    rotary_emb_base: Theta
    matryoshka_dims: tuple[Size, ...] = msgspec.field(name="matryoshka_dimensions")
    lora_adaptations: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    lora_rank: Size
    lora_alpha: Annotated[float, msgspec.Meta(gt=0, le=1e6)]
    task_instructions: Mapping[str, str]

    def shape(self) -> EncoderShape:
        """Shape of the tower."""
        table = RotaryTable(self.head_size, self.rotary_emb_base)
        shape = self.plain_shape(self.layer_norm_eps, RotaryPositions((table,) * self.num_hidden_layers))
        return replace(shape, token_types=self.type_vocab_size, names=NAMES)

    def adapters(self) -> Stacked:
        """Adapters of all tasks."""
        return Stacked(self.lora_adaptations, self.lora_rank, self.lora_alpha / self.lora_rank, EMBEDDINGS)

    @property
    def adapted(self) -> frozenset[str]:
        """Names of the modules that each adapter changes."""
        layers = range(self.num_hidden_layers)
        linears = (f"layers.{number}.{name}" for number in layers for name in ADAPTED_LINEARS)
        return frozenset((*ADAPTED_EMBEDDINGS, *linears))

    def tasks(self) -> dict[str, TaskFacts]:
        """Facts of each task; its instruction, if it has one, is its default prompt."""
        adapted = {task: facts_of_task(task, self.task_instructions[task]) for task in self.lora_adaptations}
        return {**adapted, WITHOUT_ADAPTER: TaskFacts({}, None)}

    def of_class(self) -> dict[str, Any]:
        """The configuration of transformers' class."""
        names = (*SIZES.split(), "type_vocab_size", "pad_token_id", "layer_norm_eps")
        rope = {"rope_type": "default", "rope_theta": self.rotary_emb_base}
        return {"model_type": OF_TRANSFORMERS, **{name: getattr(self, name) for name in names}, "rope_parameters": rope}


KEYS = KeyTable(
    "config.json (jina_embeddings_v3)",
    {
        **ENCODERS,
        **sizes("type_vocab_size"),
        "hidden_act": Only(("gelu",), ANOTHER_CHECKPOINT),
        "layer_norm_eps": Followed("epsilon of the layer norms"),
        "position_embedding_type": Only(("rotary",), ANOTHER_CHECKPOINT),
        "rotary_emb_base": Followed("base of the rotary positions; needed, as that of the training was another"),
        "matryoshka_dimensions": Followed("allowed truncations; needed"),
        "matryoshka_dims": Only((None,), "truncations are in matryoshka_dimensions; remove it"),
        "truncate_dim": Only((None,), "calls choose a truncation; remove it"),
        "lora_adaptations": Followed("tasks, in the order of the stacked adapters; needed"),
        "lora_rank": Followed("rank of the adapters; needed"),
        "lora_alpha": Followed("factor of the adapters, over lora_rank; needed"),
        "task_instructions": Followed("prompt of each task; needed"),
        "emb_pooler": Only((None,), "the model has mean pooling; export a checkpoint with it"),
        "auto_map": code_of("XLMRobertaFlashConfig", "XLMRobertaLoRA"),
        **no_effect(
            "used in training alone", ("lora_dropout_p", "lora_main_params_trainable", "load_trained_adapters")
        ),
        **no_effect("of how the model is run", ("use_flash_attn", "use_reentrant")),
    },
)
NAMES = replace(ROTARY_NAMES, gate=None, inner="mlp.fc1", outer="mlp.fc2")
RULES = NameRules(
    prefixes=("roberta.",),
    renames={
        ".parametrizations.weight.original": ".weight",
        "emb_ln": "embeddings.LayerNorm",
        "encoder.layers.": "layers.",
        ".mixer.": ".self_attn.",
        ".self_attn.out_proj": ".self_attn.o_proj",
        ".norm1": ".post_attention_layernorm",
        ".norm2": ".post_mlp_layernorm",
    },
    unused=re.compile(r"^(pooler|lm_head)\."),
    fused={".self_attn.Wqkv": (".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj")},
)
EMBEDDINGS = re.compile("_embeddings$")
ADAPTED_EMBEDDINGS = (NAMES.words, NAMES.token_types)
ADAPTED_LINEARS = ("self_attn.Wqkv", "self_attn.o_proj", "mlp.fc1", "mlp.fc2")


def claims(checkpoint: Checkpoint) -> bool:
    """True for stacked adapters, or the keys of their tasks, where no model type is stated or that of the code."""
    kind, config = checkpoint.config.get("model_type"), checkpoint.config
    if kind == OF_TRANSFORMERS:
        return True
    if kind is not None and not (kind == OF_CODE and config.get("position_embedding_type") == "rotary"):
        return False
    keys = (config.get("lora_adaptations"), config.get("task_instructions"))
    return keys != (None, None) or any(Stacked.infix in name for name in checkpoint.tensors)


def facts_of_task(task: str, instruction: str) -> TaskFacts:
    """Facts of a task; sides of one task share a space, and their prompts are named after them."""
    stem, _, side = task.rpartition(".")
    has_side = side in SIDES and stem != ""
    name = side if has_side else task
    prompts = {name: instruction} if instruction else {}
    return TaskFacts(prompts, name if prompts else None, stem if has_side else task)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a checkpoint."""
    path = checkpoint.folder / "config.json"
    if checkpoint.config.get("model_type") == OF_TRANSFORMERS:
        raise CheckpointError(
            f"{path}: model_type is {OF_TRANSFORMERS!r}, the form of transformers, whose weights have no adapters; "
            "export jinaai/jina-embeddings-v3, which has the same weights with all adapters"
        )
    config = parse_config(checkpoint, JinaV3Config, KEYS)
    tasks = config.lora_adaptations
    if len(set(tasks)) < len(tasks) or set(tasks) != set(config.task_instructions):
        raise CheckpointError(
            f"{path}: lora_adaptations are {', '.join(tasks)}, task_instructions has "
            f"{', '.join(config.task_instructions)}; each task needs one adapter and "
            "one instruction: restore the config.json of the model"
        )
    return replace(
        config.model(config.shape(), RULES, FamilyTokenizer("XLMRobertaTokenizer")),
        heads=Heads(SingleHead("mean")),
        text_rules=TextRules(strip=True),
        tasks=config.tasks(),
        adapters=config.adapters(),
        adapted=config.adapted,
        adapter_mode="switchable",
        base_task=WITHOUT_ADAPTER,
        default_task=WITHOUT_ADAPTER,
        config_of_class=config.of_class(),
    )


FAMILY = Family(OF_TRANSFORMERS, claims, read, (KEYS,), own_modules=("custom_st.Transformer",))
