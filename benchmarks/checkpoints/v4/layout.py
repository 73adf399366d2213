"""Names and shapes of all tensors, in the order of the model's modules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.checkpoints.v4.shape import TextShape, V4Shape, V4VisionShape
from embedpack_export.families.model import PROJECTOR

Kind = Literal["linear", "features", "embedding", "bias", "norm", "projector", "lora_A", "lora_B"]
Spelling = Literal["old", "new"]

TASKS = ("retrieval", "text-matching", "code")
# The first shard of the real checkpoint ends here, inside layer 19 of 36.
SPLIT_LAYER = 19 / 36
SPLIT_PARTS = ("mlp.down_proj", "input_layernorm", "post_attention_layernorm")


@dataclass(frozen=True)
class Entry:
    """Name, shape and kind of a tensor; names of base tensors have the old spelling."""

    name: str
    shape: tuple[int, ...]
    kind: Kind


def base_entries(shape: V4Shape, projector: bool) -> list[Entry]:
    """Tensors of model.safetensors."""
    return [
        *_vision(shape.vision),
        *_text(shape.text),
        *(_linear(PROJECTOR, shape.projector_dim, shape.text.hidden, kind="projector") if projector else ()),
    ]


def adapter_entries(shape: V4Shape) -> Iterator[Entry]:
    """Tensors of adapters/adapter_model.safetensors, named after base tensors in the new spelling."""
    modules = {
        f"model.language_model.layers.{layer}.{name}": size
        for layer in range(shape.text.layers)
        for name, size in decoder_linears(shape.text).items()
    }
    modules[PROJECTOR] = (shape.projector_dim, shape.text.hidden)
    for module, (outputs, inputs) in modules.items():
        for task in TASKS:
            yield Entry(f"base_model.model.{module}.lora_A.{task}.weight", (shape.rank, inputs), "lora_A")
            yield Entry(f"base_model.model.{module}.lora_B.{task}.weight", (outputs, shape.rank), "lora_B")


def decoder_linears(text: TextShape) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of the linear layers of a decoder layer, by name."""
    return {
        "self_attn.q_proj": (text.hidden, text.hidden),
        "self_attn.k_proj": (text.kv_size, text.hidden),
        "self_attn.v_proj": (text.kv_size, text.hidden),
        "self_attn.o_proj": (text.hidden, text.hidden),
        "mlp.gate_proj": (text.inner, text.hidden),
        "mlp.up_proj": (text.inner, text.hidden),
        "mlp.down_proj": (text.hidden, text.inner),
    }


def spell(name: str, spelling: Spelling) -> str:
    """Name of a base tensor as older or newer releases of transformers write it."""
    if spelling == "old" or name.startswith(PROJECTOR):
        return name
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1)


def in_first_shard(name: str, layers: int) -> bool:
    """Report whether a base tensor, in the old spelling, is in the first shard."""
    if not name.startswith("model.layers."):
        return name.startswith(("visual.", "model.embed_tokens."))
    layer, part = name.removeprefix("model.layers.").split(".", 1)
    split = int(layers * SPLIT_LAYER)
    return int(layer) < split or (int(layer) == split and not part.startswith(SPLIT_PARTS))


def _text(text: TextShape) -> Iterator[Entry]:
    yield Entry("model.embed_tokens.weight", (text.vocabulary, text.hidden), "embedding")
    for layer in range(text.layers):
        prefix = f"model.layers.{layer}"
        for name, (outputs, inputs) in decoder_linears(text).items():
            biased = name.endswith(("q_proj", "k_proj", "v_proj"))
            yield from _linear(f"{prefix}.{name}", outputs, inputs, bias=biased)
        yield Entry(f"{prefix}.input_layernorm.weight", (text.hidden,), "norm")
        yield Entry(f"{prefix}.post_attention_layernorm.weight", (text.hidden,), "norm")
    yield Entry("model.norm.weight", (text.hidden,), "norm")


def _vision(vision: V4VisionShape) -> Iterator[Entry]:
    patch = (vision.hidden, vision.channels, vision.temporal, vision.patch, vision.patch)
    yield Entry("visual.patch_embed.proj.weight", patch, "linear")
    for block in range(vision.depth):
        prefix = f"visual.blocks.{block}"
        yield Entry(f"{prefix}.norm1.weight", (vision.hidden,), "norm")
        yield Entry(f"{prefix}.norm2.weight", (vision.hidden,), "norm")
        yield from _linear(f"{prefix}.attn.qkv", 3 * vision.hidden, vision.hidden)
        yield from _linear(f"{prefix}.attn.proj", vision.hidden, vision.hidden)
        yield from _linear(f"{prefix}.mlp.gate_proj", vision.inner, vision.hidden)
        yield from _linear(f"{prefix}.mlp.up_proj", vision.inner, vision.hidden)
        yield from _linear(f"{prefix}.mlp.down_proj", vision.hidden, vision.inner)
    yield Entry("visual.merger.ln_q.weight", (vision.hidden,), "norm")
    yield from _linear("visual.merger.mlp.0", vision.merged, vision.merged)
    yield from _linear("visual.merger.mlp.2", vision.out_hidden, vision.merged, kind="features")


def _linear(name: str, outputs: int, inputs: int, *, bias: bool = True, kind: Kind = "linear") -> Iterator[Entry]:
    yield Entry(f"{name}.weight", (outputs, inputs), kind)
    if bias:
        yield Entry(f"{name}.bias", (outputs,), "bias")
