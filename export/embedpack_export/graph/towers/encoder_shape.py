"""Sizes and options of bidirectional encoders, and the part under construction that the functions of a tower share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from embedpack.errors import CheckpointError
from embedpack.pack.graph_io import LONG_TEXT
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer
from embedpack_export.graph.towers.norms import layer_norm, rms_norm
from embedpack_export.graph.towers.relative_bias import RelativeBias
from embedpack_export.graph.towers.rotary import RotaryTable

# Names of activation functions in config.json.
ActivationName = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"]
# Order of a norm and the part of a layer that is added to its input: norm(x + part(x)), or x + part(norm(x)).
LayerOrder = Literal["post-norm", "pre-norm"]
NormKind = Literal["layer", "layer without bias", "rms"]

# Parts of the inner channels of a feed-forward network have a multiple of this many: products of other sizes are slow.
PART_MULTIPLE = 16
# Key heads of a group, if they divide those of the model.
GROUP_HEADS = 2


@dataclass(frozen=True)
class EncoderNames:
    """Names of modules in the checkpoint, those of BERT by default; names in a layer follow that of the layer.

    Attributes:
        inner: first layer of a feed-forward network, or up(x) of a gated one.
        gate: gate(x) of a gated feed-forward network; None: it has none.
        embedding_norm: norm of the embeddings; in pre-norm order the first layer then has no `attention_norm`.
        final_norm: norm after the last layer, in pre-norm order.
    """

    words: str = "embeddings.word_embeddings"
    token_types: str = "embeddings.token_type_embeddings"
    embedding_norm: str | None = "embeddings.LayerNorm"
    layer: str = "encoder.layer.{}"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    mixed: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    gate: str | None = None
    inner: str = "intermediate.dense"
    outer: str = "output.dense"
    output_norm: str = "output.LayerNorm"
    final_norm: str | None = None


@dataclass(frozen=True)
class Biases:
    """Linear layers that have a bias in the checkpoint."""

    attention: bool = True  # projections to queries, keys and values
    mixed: bool = True
    inner: bool = True  # also of the gate
    outer: bool = True


@dataclass(frozen=True)
class LearnedPositions:
    """A table of positions that is added to the embeddings."""

    rows: int
    first: int = 0  # row of the first token
    module: str = "embeddings.position_embeddings"


@dataclass(frozen=True)
class RotaryPositions:
    """Rotary positions of queries and keys: a table for each layer."""

    tables: tuple[RotaryTable, ...]


@dataclass(frozen=True)
class EncoderShape:
    """Sizes and options of an encoder."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    epsilon: float
    max_tokens: int  # length of the longest text
    positions: LearnedPositions | RotaryPositions
    activation: ActivationName = "gelu"
    token_types: int = 0  # rows of the table of token types; 0: the model has none
    reads_token_types: bool = False  # the graph has the input `token_type_ids`; false: every token has type 0
    kv_heads: int | None = None  # number of heads of keys and values; None: that of queries
    order: LayerOrder = "post-norm"
    norm: NormKind = "layer"
    biases: Biases = Biases()
    names: EncoderNames = EncoderNames()
    relative: RelativeBias | None = None  # bias of attention scores by relative position, if the model has one
    # Largest distance between tokens that attend to each other, for each layer; None: any. Empty: any in every layer.
    windows: tuple[int | None, ...] = ()
    in_head_groups: bool = True  # see `head_groups`; false: all heads at once

    @property
    def head_size(self) -> int:
        """Channels of a head."""
        return self.hidden // self.heads

    @property
    def key_heads(self) -> int:
        """Number of heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def head_groups(self) -> int:
        """Number of groups of heads in models of long texts.

        Groups are computed one after another, so that the scores or the copies of only one are in memory.
        """
        grouped = self.in_head_groups and self.key_heads % GROUP_HEADS == 0
        return self.key_heads // GROUP_HEADS if grouped else 1

    @property
    def attention_heads(self) -> tuple[int, int, int]:
        """Numbers of heads of queries, keys and values."""
        return self.heads, self.key_heads, self.key_heads

    @property
    def has_short_texts(self) -> bool:
        """True if the scores of every token with every other are small, or needed for a bias."""
        return self.max_tokens <= LONG_TEXT or self.relative is not None

    @property
    def inner_parts(self) -> int:
        """Number of equal parts of the inner channels of a feed-forward network.

        In models of long texts a part is at most as wide as two hidden states, of a gated network as one, if the sizes
        allow: the memory of a text is then that of its attention.
        """
        if self.has_short_texts:
            return 1
        hidden_states = 1 if self.names.gate is not None else 2
        least = -(-self.intermediate // (self.hidden * hidden_states))
        divisors = (parts for parts in range(least, 2 * least) if not self.intermediate % (PART_MULTIPLE * parts))
        return next(divisors, 1)

    def window(self, layer: int) -> int | None:
        """Largest distance of attention in a layer; None: any."""
        return self.windows[layer] if self.windows else None

    def check(self) -> None:
        """Raise CheckpointError if the sizes contradict each other."""
        if self.hidden % self.heads:
            raise CheckpointError(
                f"config.json: {self.heads} heads do not divide the hidden size {self.hidden}; "
                "restore the config.json of the model"
            )
        if self.heads % self.key_heads:
            raise CheckpointError(
                f"config.json: {self.heads} heads cannot share {self.key_heads} key and value heads; "
                "restore the config.json of the model"
            )
        if isinstance(self.positions, RotaryPositions) and self.head_size % 8:
            raise CheckpointError(
                f"config.json: head size {self.head_size}; it must be a multiple of 8, others cannot be exported"
            )


@dataclass(frozen=True)
class EncoderPart:
    """The graph under construction and the shape of the encoder, for the functions that append its parts."""

    context: GraphContext
    shape: EncoderShape

    @property
    def graph(self) -> GraphBuilder:
        """The graph under construction."""
        return self.context.graph

    def layer(self, module: str, inputs: int, outputs: int, *, bias: bool) -> LinearLayer:
        """A linear layer; `bias`: whether the checkpoint has its bias, as an adapter may bring one."""
        weights = self.context.weights
        matrix = weights.matrix(module, (outputs, inputs))
        vector = weights.vector(f"{module}.bias", outputs) if bias else weights.new_bias(module, outputs)
        return LinearLayer(matrix, vector)

    def norm(self, module: str, x: ir.Value) -> Activation:
        """The encoder's norm over the last axis, which can also output its result shifted and scaled."""
        shape = self.shape
        if shape.norm == "rms":
            return rms_norm(self.context, module, x, shape.hidden, shape.epsilon)
        return layer_norm(self.context, module, x, shape.hidden, shape.epsilon, bias=shape.norm == "layer")
