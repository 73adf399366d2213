"""embedpack inspect: the contents of a pack."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from embedpack.cli.options import add_pack
from embedpack.cli.output import add_json, check_output, write_json

if TYPE_CHECKING:
    from embedpack.pack.accuracy_records import Check
    from embedpack.pack.folder import Pack
    from embedpack.pack.input_recipes import Prompt
    from embedpack.pack.manifest import Manifest, MultiVectors, SingleVectors, Task, VectorCodes
    from embedpack.pack.score_recipes import ListScores, MaxSimScores, PairScores
    from embedpack.pack.variants import Variant

SUMMARY = "Show the contents of a pack: tasks, images, codes, variants, adapters, sizes, accuracy, licence."
EXAMPLES = """\
  embedpack inspect packs/minilm
  embedpack inspect packs/minilm --json
  embedpack inspect packs/v4"""

MEGABYTE = 1e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the manifest."""
    import msgspec

    from embedpack.pack.folder import read_pack

    check_output(options.json, [options.pack], overwrite=options.overwrite)
    pack = read_pack(options.pack)
    if options.json is not None:
        write_json(options.json, msgspec.json.encode(pack.manifest))
    else:
        _print(options.pack, pack)
    return 0


def _print(folder: Path, pack: Pack) -> None:
    manifest = pack.manifest
    restricted = ", non-commercial" if manifest.license.non_commercial else ""
    print(f"{manifest.name}  ({manifest.family}, pack format {pack.format})")
    print(f"license     {manifest.license.id or 'not stated'}{restricted}")
    _print_heads(pack)
    print(f"texts       up to {manifest.text.max_tokens} tokens")
    if manifest.export.text_tokens:
        print(f"            parsed in texts too: {', '.join(map(repr, manifest.export.text_tokens))}")
    _print_images(manifest)
    for name, task in manifest.tasks.items():
        adapter = "no adapter" if task.adapter is None else f"adapter of {task.adapter.modules} matrices"
        shared = "" if task.space in (None, name) else f", space {task.space}"
        print(f"task        {name}: {adapter}{shared}")
        _print_prompts(task)
    if manifest.default_task is not None:
        print(f"            {manifest.default_task} is the task of calls that name none")
    for name, space in manifest.spaces.items():
        print(f"space       {name}: codes calibrated on {space.inputs} inputs")
        _print_codes("codes", space.single)
        _print_codes("tokens", space.multi)
    for name, variant in manifest.variants.items():
        _print_variant(manifest, name, variant)
    _print_sizes(manifest)
    if manifest.report is None:
        print("report      none (export ran without a check)")
    else:
        print(f"report      {folder / manifest.report.page}")


def _print_heads(pack: Pack) -> None:
    """Print the vectors and scores of a pack."""
    manifest = pack.manifest
    if manifest.single is not None:
        print(f"vectors     {_dimensions(manifest.single)}, {manifest.single.pooling} pooling{_pooled(pack)}")
        if not manifest.single.normalized:
            by = "dot product" if manifest.single.similarity == "dot" else "cosine"
            print(f"            lengths of their own, compared by {by}")
    if manifest.multi is not None:
        print(f"tokens      {_dimensions(manifest.multi)}")
    if manifest.score is not None:
        print(f"scores      {_scores(manifest.score)}")
    if manifest.late_chunking:
        print("chunks      one vector for each part of a text (late chunking)")


def _scores(score: PairScores | ListScores | MaxSimScores) -> str:
    """Kind of the scores, and the rules of pairs."""
    from embedpack.pack.score_recipes import ListScores, MaxSimScores

    if isinstance(score, MaxSimScores):
        return "MaxSim"
    if isinstance(score, ListScores):
        lists = f"lists in blocks of up to {score.max_documents} documents, up to {score.max_tokens} tokens"
        return f"{lists}; a document has up to {score.max_document_tokens}, a query {score.max_query_tokens}"
    span = ", from 0 to 1" if score.activation == "sigmoid" else ", of any size"
    windows = "" if score.overlap is None else f"; longer documents in windows that share {score.overlap}"
    return f"pairs of up to {score.max_tokens} tokens{span}{windows}"


def _pooled(pack: Pack) -> str:
    """The token of a text that is pooled, if it is one; tokenizers differ in the tokens that they add."""
    from embedpack.inputs.pack_tokenizer import pooled_token

    token = pooled_token(pack)
    if token is None:
        return ""
    if token.added is None:
        return f" of the {token.place} token of prompt and text; the tokenizer adds none there"
    return f" of {token.added!r}, which the tokenizer adds"


def _dimensions(head: SingleVectors | MultiVectors) -> str:
    dims = ", ".join(map(str, head.truncate_dims[:-1]))
    return f"{head.dimensions} dimensions ({f'truncate_dim {dims}' if dims else 'cannot be truncated'})"


def _print_prompts(task: Task) -> None:
    """Print the prompts of a task, and those of queries, of documents, and of calls that name none."""
    from embedpack.pack.prompts import document_prompt, query_prompt

    if not task.prompts:
        print("  prompt    none")
        return
    for name, prompt in task.prompts.items():
        print(f"  prompt    {name:<20} {prompt.prefix!r}{_rules(prompt)}")
    print(
        f"  prompts   default {task.default_prompt_name or 'none'}, queries {query_prompt(task) or 'none'}, "
        f"documents and files {document_prompt(task) or 'none'}"
    )


def _rules(prompt: Prompt) -> str:
    """Everything of a prompt next to its prefix."""
    parts = []
    if prompt.max_tokens is not None:
        parts.append(f"up to {prompt.max_tokens} tokens")
    if prompt.marker is not None:
        parts.append(f"marker {prompt.marker}")
    if prompt.fill is not None:
        parts.append(f"filled up to {prompt.fill.length} tokens with {prompt.fill.token}")
    if prompt.skip:
        parts.append(f"no vectors of {len(prompt.skip)} tokens")
    return "".join(f", {part}" for part in parts)


def _print_codes(label: str, codes: VectorCodes | None) -> None:
    """Print the steps that calibration kept, and the recall of the codes with and without them."""
    if codes is None:
        return
    print(f"  {label:<9} {' and '.join(codes.kept) or 'no center, no rotation'}")
    for tried, recalls in codes.recall_at_10.items():
        recall = ", ".join(f"{precision} {100 * share:.1f} %" for precision, share in recalls.items())
        print(f"  recall@10 {tried:<20} {recall}")


def _print_images(manifest: Manifest) -> None:
    from embedpack.pack.input_recipes import QwenImage

    image = manifest.image
    if image is None:
        return
    if isinstance(image, QwenImage):
        print(f"images      {image.min_pixels} to {image.max_pixels} pixels; other sizes are resized to these limits")
    else:
        print(f"images      {image.size} x {image.size} pixels; other sizes are resized")
    for weights, graph in manifest.vision.items():
        size = manifest.bytes_of(graph.graph_files) / MEGABYTE
        print(f"vision      {weights:<20} {size:8.1f} MB")


def _print_variant(manifest: Manifest, name: str, variant: Variant) -> None:
    size = manifest.bytes_of(variant.graph_files) / MEGABYTE
    print(f"variant     {name:<20} {size:8.1f} MB   {'; '.join(_closeness(variant))}")
    for task, check in variant.checks.items():
        print(f"  check     {task:<20} {_describe(check)}")
    for task, file in variant.adapter_files.items():
        print(f"  adapter   {task:<20} {manifest.files[file].bytes / MEGABYTE:8.1f} MB   {file}")


def _closeness(variant: Variant) -> Iterator[str]:
    """Cosines of a variant's vectors with those of the reference, by head, and the head-room of float16."""
    accuracy = variant.accuracy
    single, multi = accuracy.single, accuracy.multi
    if accuracy.headroom is not None:
        yield f"for GPUs, head-room {accuracy.headroom.factor:,.1f} at {accuracy.headroom.value}"
    if single is not None:
        yield (
            f"cosine to {accuracy.reference}: mean {single.mean:.5f}, 1st percentile {single.p1:.5f}, lowest "
            f"{single.min:.5f} ({accuracy.inputs} inputs)"
        )
    if multi is not None:
        yield f"token vectors: mean {multi.mean:.5f}, 1st percentile {multi.p1:.5f} ({multi.tokens} tokens)"
    if accuracy.score is not None:
        yield (
            f"difference of scores to {accuracy.reference}: up to {accuracy.score.largest_difference:.2g}, Kendall's "
            f"tau {accuracy.score.kendall:.4f} ({accuracy.score.pairs} pairs)"
        )


def _describe(check: Check) -> str:
    """Result of the accuracy check of a variant, with its figures."""
    if check.ranking_loss is None or check.ranking_loss_95 is None:
        close = "" if check.single is None else f"; cosine to {check.reference} {check.single.mean:.5f}"
        return f"{check.outcome}: {check.texts} texts are too few for a ranking{close}"
    low, high = check.ranking_loss_95
    return (
        f"{check.outcome}: loss of {check.ranking_loss:.2f} points of nDCG@10 against {check.reference} (95 % interval "
        f"{low:.2f} to {high:.2f}), budget {check.budget:.2f}; {check.texts} texts"
    )


def _print_sizes(manifest: Manifest) -> None:
    """Print the bytes of a single vector, a token vector, and a multi-vector of the largest image, by precision."""
    from embedpack.pack.input_recipes import QwenImage

    if manifest.single is not None:
        low_bits = manifest.single.similarity == "cosine"
        for precision, size in _sizes(manifest.single.dimensions, low_bits=low_bits):
            print(f"precision   {precision:<20} {size:8} bytes per vector")
    if manifest.multi is None:
        return
    tokens = manifest.image.max_tokens if isinstance(manifest.image, QwenImage) else None
    image = "" if tokens is None else f"; the largest image has {tokens} tokens"
    print(f"multi       {manifest.multi.dimensions} dimensions per token{image}")
    for precision, size in _sizes(manifest.multi.dimensions):
        page = "" if tokens is None else f"  {tokens * size:10} bytes for the largest image"
        print(f"precision   {precision:<20} {size:8} bytes per token{page}")


def _sizes(dimensions: int, *, low_bits: bool = True) -> list[tuple[str, int]]:
    """Precisions that allow this number of dimensions, with the bytes of a vector."""
    from embedpack.vectors.bit_packing import fills_bytes
    from embedpack.vectors.codes import DTYPES, PRECISIONS, code_width, is_low_bit

    fitting = [name for name in PRECISIONS if not is_low_bit(name) or (low_bits and fills_bytes(name, dimensions))]
    return [(name, code_width(name, dimensions) * DTYPES[name]().itemsize) for name in fitting]
