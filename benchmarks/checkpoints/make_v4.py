"""Write a checkpoint in the layout of jina-embeddings-v4 with random weights, for tests and measurements.

Names, shapes, types, files and settings are those of the real checkpoint. With --text-from, decoder and tokenizer are
those of a trained model; image tower, projector and adapters stay random.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from benchmarks.arguments import add_number, program
from benchmarks.checkpoints.v4.configs import (
    adapter_config,
    model_config,
    preprocessor_config,
    tokenizer_config,
    write_json,
)
from benchmarks.checkpoints.v4.layout import (
    Entry,
    Spelling,
    adapter_entries,
    base_entries,
    in_first_shard,
    spell,
)
from benchmarks.checkpoints.v4.shape import REAL, REAL_SPREAD, TINY, TINY_SPREAD, Spread, V4Shape, V4VisionShape
from benchmarks.checkpoints.v4.stream import Dtype, Tensor, write_tensors
from benchmarks.checkpoints.v4.text_source import EMBEDDING, TextSource, read_text_source
from benchmarks.checkpoints.v4.tokenizer import V4Tokenizer, fill_tokenizer, load_tokenizer, train_tokenizer
from benchmarks.checkpoints.v4.values import RandomValues
from embedpack import EmbedpackError
from embedpack.progress import Progress
from embedpack.vectors.arrays import Float32
from embedpack_export.families.model import PROJECTOR

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
README = """---
license: cc-by-nc-4.0
---
These are random weights in the layout of jina-embeddings-v4; the vectors mean nothing.
"""
EXAMPLES = """examples:
  python -m benchmarks.checkpoints.make_v4 tiny-v4                            half a megabyte
  python -m benchmarks.checkpoints.make_v4 small-v4 --text-from SmolLM2-135M  trained decoder, random adapters
  python -m benchmarks.checkpoints.make_v4 real-v4 --size real                8 GB, the size of the real model
"""
# With a trained decoder a small tower is enough, since its features are random anyway.
SMALL_VISION = V4VisionShape(depth=4, hidden=64, heads=4, inner=88, full_attention=(1, 3), out_hidden=0)
WIDE = replace(REAL, text=replace(REAL.text, layers=4), vision=replace(SMALL_VISION, out_hidden=REAL.vision.out_hidden))
Size = Literal["tiny", "wide", "real"]
SHAPES: Mapping[Size, V4Shape] = {"tiny": TINY, "wide": WIDE, "real": REAL}


@dataclass(frozen=True)
class V4Options:
    """Options of a checkpoint.

    Attributes:
        size: size of all parts that are not from `text_from`; "wide" is the real one with 4 layers and a small image
            tower.
        text_from: folder of a Qwen2 or Llama model with the decoder and the tokenizer; None for random ones.
        seed: random seed.
        spelling: spelling of the base tensors' names, as older or newer releases of transformers write them.
        adapters: whether to write the folder adapters/.
        projector: whether to write a projector for multi-vectors.
    """

    size: Size = "tiny"
    text_from: Path | None = None
    seed: int = 7
    spelling: Spelling = "old"
    adapters: bool = True
    projector: bool = True


@dataclass(frozen=True)
class _Recipe:
    """Shapes, tokenizer and values of a checkpoint."""

    shape: V4Shape
    tokenizer: V4Tokenizer
    values: RandomValues
    spread: Spread
    source: TextSource | None

    @property
    def dtype(self) -> Dtype:
        return "BF16" if self.source is None else self.source.dtype

    def chunks(self, entry: Entry) -> Iterator[Float32]:
        """Yield the values of a base tensor."""
        trained = None if self.source is None else self.source.chunks(entry)
        if trained is None:
            yield from self.values.chunks(entry)
            return
        yield from trained
        if self.source is not None and entry.kind == "embedding":
            added = entry.shape[0] - self.source.shape.vocabulary
            yield from self.values.chunks(replace(entry, shape=(added, entry.shape[1])))

    def update(self, entry: Entry) -> Iterator[Float32]:
        """Yield the values of an adapter tensor."""
        module = entry.name.removeprefix("base_model.model.").split(".lora_")[0]
        inputs, deviation = self.shape.text.hidden, self.spread.linear
        if module.endswith("down_proj"):
            inputs = self.shape.text.inner
        if module == PROJECTOR:
            deviation = inputs**-0.5
        elif self.source is not None and entry.kind == "lora_B":
            deviation = self.source.deviation(f"{module.replace('model.language_model', 'model')}.weight")
        return self.values.update(entry, inputs, deviation)


def make_v4(folder: Path, options: V4Options | None = None) -> Path:
    """Write a checkpoint and return its folder.

    Raises:
        EmbedpackError: the folder cannot be written, or `text_from` cannot be used.
    """
    chosen = options or V4Options()
    recipe = _recipe(chosen)
    base = base_entries(recipe.shape, chosen.projector)
    adapters = list(adapter_entries(recipe.shape)) if chosen.adapters else []
    folder.mkdir(parents=True, exist_ok=True)
    with Progress("tensors", len(base) + len(adapters)) as progress:
        _write_base(folder, recipe, base, chosen.spelling, progress)
        if adapters:
            _write_adapters(folder / "adapters", recipe, adapters, progress)
    ids = recipe.tokenizer.ids
    write_json(folder / "config.json", model_config(recipe.shape, ids, recipe.dtype))
    write_json(folder / "preprocessor_config.json", preprocessor_config(recipe.shape))
    write_json(folder / "tokenizer_config.json", tokenizer_config(ids))
    recipe.tokenizer.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text(README, "utf-8")
    return folder


def _recipe(options: V4Options) -> _Recipe:
    if options.text_from is not None:
        return _recipe_from(read_text_source(options.text_from), options.seed)
    tiny = options.size == "tiny"
    shape, spread = SHAPES[options.size], TINY_SPREAD if tiny else REAL_SPREAD
    tokenizer = train_tokenizer() if tiny else fill_tokenizer()
    assert tokenizer.rows <= shape.text.vocabulary
    return _Recipe(shape, tokenizer, RandomValues(options.seed, spread), spread, None)


def _recipe_from(source: TextSource, seed: int) -> _Recipe:
    tokenizer = load_tokenizer(source.tokenizer)
    hidden = source.shape.hidden
    doubled = [128 << power for power in range(16) if 128 << power < hidden]
    shape = replace(
        REAL,
        text=replace(source.shape, vocabulary=max(source.shape.vocabulary, tokenizer.rows)),
        vision=replace(SMALL_VISION, out_hidden=hidden),
        projector_dim=min(REAL.projector_dim, hidden),
        matryoshka=(*doubled, hidden),
    )
    embedding = source.deviation(EMBEDDING)
    # Features of the size of embeddings: the GELU before has values of about 1.
    spread = replace(TINY_SPREAD, features=embedding * shape.vision.merged**-0.5, update=REAL_SPREAD.update)
    return _Recipe(shape, tokenizer, RandomValues(seed, replace(spread, embedding=embedding)), spread, source)


def _write_base(
    folder: Path, recipe: _Recipe, entries: Sequence[Entry], spelling: Spelling, progress: Progress
) -> None:
    shards: dict[str, list[Tensor]] = {name: [] for name in SHARDS}
    for entry in entries:
        shard = SHARDS[0 if in_first_shard(entry.name, recipe.shape.text.layers) else 1]
        name = spell(entry.name, spelling)
        shards[shard].append(Tensor(name, entry.shape, recipe.dtype, partial(recipe.chunks, entry)))
    for shard, tensors in shards.items():
        write_tensors(folder / shard, tensors, progress)
    write_json(
        folder / "model.safetensors.index.json",
        {
            "metadata": {"total_size": sum(tensor.size for tensors in shards.values() for tensor in tensors)},
            "weight_map": dict(sorted((tensor.name, shard) for shard, members in shards.items() for tensor in members)),
        },
    )


def _write_adapters(folder: Path, recipe: _Recipe, entries: Sequence[Entry], progress: Progress) -> None:
    folder.mkdir(exist_ok=True)
    tensors = [Tensor(entry.name, entry.shape, "BF16", partial(recipe.update, entry)) for entry in entries]
    write_tensors(folder / "adapter_model.safetensors", tensors, progress)
    write_json(folder / "adapter_config.json", adapter_config(recipe.shape))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = program("benchmarks.checkpoints.make_v4", __doc__, EXAMPLES)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write; files in it are replaced")
    parser.add_argument("--size", choices=SHAPES, default="tiny", help="size of the random parts; default: %(default)s")
    parser.add_argument(
        "--text-from",
        type=Path,
        metavar="FOLDER",
        help="folder of a Qwen2 or Llama model with the decoder and the tokenizer",
    )
    add_number(parser, "--seed", 7, "random seed")
    options = parser.parse_args(arguments)
    try:
        make_v4(options.folder, V4Options(size=options.size, text_from=options.text_from, seed=options.seed))
    except EmbedpackError as error:
        print(f"make_v4: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
