"""Write an encoder of EuroBERT's shape with outliers in its activations, of the sizes that trained models have.

Two kinds, as in trained transformers: channels of the residual stream that are large in every token, and one value at
the first token that the product of a feed-forward network makes and the residual stream keeps (Sun et al. 2024,
arXiv 2402.17762). Later layers attend to that token, and take no value from it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.arguments import add_number, program
from benchmarks.checkpoints.v4.configs import write_json
from benchmarks.checkpoints.v4.tokenizer import train_tokenizer
from embedpack import EmbedpackError
from embedpack.storage.safetensors import write_safetensors
from embedpack.vectors.arrays import Float32

LAYERS, HIDDEN, HEADS, INNER = 4, 256, 4, 1024
PROMPT = "Document: "
# Channels: mark of the prompt's first token, large ones, those that keep the massive value, and one that is 1.
MARK, LARGE, KEPT, ONE = 0, slice(1, 9), slice(9, 11), 11
# Size of the large channels, relative to all others; the first layer makes them.
FACTOR = 50.0
# Value of the mark in the table, and about that after a norm.
MARK_SIZE = 10.0
# The largest input of a linear layer in benchmarks/results/outliers-smollm2.json, and the layer that makes one of that
# order here: the norm of the marked token decides its exact size.
MASSIVE, LAYER, UNIT = 3550.0, 1, 7
# Value of the gates of planted products: far in the linear part of SiLU.
GATE = 20.0
EXAMPLES = """examples:
  python -m benchmarks.checkpoints.make_outliers models/outliers      15 MB"""


def make_outliers(folder: Path, seed: int = 7) -> Path:
    """Write a checkpoint with last-token pooling and the prompt `document`, and return its folder."""
    tokenizer = train_tokenizer()
    first = tokenizer.tokenizer.encode(PROMPT).ids[0]
    tensors = _Tensors(seed, tokenizer.rows, first).all()
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    tokenizer.tokenizer.save(str(folder / "tokenizer.json"))
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode_lasttoken": True})
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": {"document": PROMPT}, "default_prompt_name": "document"},
    )
    write_json(folder / "config.json", _config(tokenizer.rows, tokenizer.ids["<|endoftext|>"]))
    return folder


def _config(vocabulary: int, pad: int) -> Mapping[str, object]:
    return {
        "model_type": "eurobert",
        "architectures": ["EuroBertModel"],
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0,
        "hidden_act": "silu",
        "pad_token_id": pad,
    }


class _Tensors:
    """Tensors whose layers read normal values of size 1 beside the outliers, so that all channels count alike."""

    def __init__(self, seed: int, vocabulary: int, first: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._table = self._normal(vocabulary, HIDDEN)
        self._table[:, MARK], self._table[:, ONE] = 0, 1
        self._table[first, MARK] = MARK_SIZE

    def all(self) -> dict[str, Float32]:
        """All tensors by name."""
        tensors = {"embed_tokens.weight": self._table, "norm.weight": self._norm(LAYERS)}
        tensors["norm.weight"][LARGE] /= FACTOR
        for layer in range(LAYERS):
            tensors |= {f"layers.{layer}.{name}.weight": tensor for name, tensor in self._layer(layer).items()}
        return tensors

    def _layer(self, layer: int) -> dict[str, Float32]:
        tensors = {
            **{name: self._norm(layer) for name in ("input_layernorm", "post_attention_layernorm")},
            **{f"self_attn.{name}_proj": self._reader(HIDDEN, layer) for name in "qkv"},
            **{f"mlp.{name}_proj": self._reader(INNER, layer) for name in ("gate", "up")},
            "self_attn.o_proj": self._writer(HIDDEN),
            "mlp.down_proj": self._writer(INNER),
        }
        if layer == 0:
            self._plant(tensors, ONE, LARGE, 1.0, FACTOR / GATE)
        if layer == LAYER:
            self._plant(tensors, MARK, KEPT, MASSIVE / GATE / MARK_SIZE, 1.0)
        if layer > LAYER:
            tensors["self_attn.v_proj"][:, KEPT] = 0
        return tensors

    def _plant(self, tensors: dict[str, Float32], source: int, target: slice, up: float, down: float) -> None:
        """Make a product of one channel of the residual stream, which is written to others with random signs."""
        for name, weight in (("gate", GATE / float(self._table[:, source].max())), ("up", up)):
            tensors[f"mlp.{name}_proj"][UNIT] = 0
            tensors[f"mlp.{name}_proj"][UNIT, source] = weight
        tensors["mlp.down_proj"][:, UNIT] = 0
        tensors["mlp.down_proj"][target, UNIT] = down * np.sign(self._normal(target.stop - target.start))

    def _reader(self, outputs: int, layer: int) -> Float32:
        """Matrix that reads a norm's output; after the first layer, large channels count no more than others."""
        matrix = self._normal(outputs, HIDDEN) / np.float32(HIDDEN**0.5)
        if layer > 0:
            matrix[:, LARGE] /= FACTOR
        matrix[:, [MARK, ONE]] = 0
        return matrix

    def _writer(self, inputs: int) -> Float32:
        """Matrix that writes less to the residual stream than it holds: norms divide by the large channels alone."""
        matrix = self._normal(HIDDEN, inputs) / np.float32(2 * inputs**0.5)
        matrix[[MARK, ONE]] = 0
        return matrix

    def _norm(self, layer: int) -> Float32:
        """Weight of a norm, after which ordinary channels have the size 1: it divides by the size of the large ones."""
        size = 1.0 if layer == 0 else FACTOR * ((LARGE.stop - LARGE.start) / HIDDEN) ** 0.5
        return np.full(HIDDEN, size, np.float32)

    def _normal(self, *shape: int) -> Float32:
        return self._rng.standard_normal(shape, np.float32)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = program("benchmarks.checkpoints.make_outliers", __doc__, EXAMPLES)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write; files in it are replaced")
    add_number(parser, "--seed", 7, "random seed")
    options = parser.parse_args(arguments)
    try:
        make_outliers(options.folder, options.seed)
    except EmbedpackError as error:
        print(f"make_outliers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
