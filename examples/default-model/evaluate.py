#!/usr/bin/env python3
"""Compare the adapter with its bare backbone on retrieval sets; writes results.json beside this file.

python evaluate.py BACKBONE_DIR ADAPTER_DIR --data EVAL_DIR

EVAL_DIR holds folders with corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv. The backbone gets no prompts, as it was
trained; titles are not used; texts are cut at 256 tokens.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from retriever import (
    NO_PROMPTS,
    PROMPTS,
    THREADS,
    Encoder,
    Prompts,
    encode,
    load_adapter,
    load_backbone,
    ndcg_at_10,
    read_records,
    scores,
)
from torch import Tensor

OUT = Path(__file__).resolve().parent / "results.json"
SETS = ("retrieval/debian-desc-en", "retrieval/xquad-en", "code/nl2bash", "code/cosqa-dev")
DIMENSIONS = (384, 64)
MAX_TOKENS = 256
PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors")


@dataclass(frozen=True)
class Retrieval:
    """A set; `relevant` names for every query the positions of its passages."""

    queries: list[str]
    passages: list[str]
    relevant: list[set[int]]


def read_set(folder: Path) -> Retrieval:
    """Texts and judgements; a query without a judgement tells nothing and would divide by zero, so it must not be."""
    passages = read_records(folder / "corpus.jsonl.gz")
    queries = read_records(folder / "queries.jsonl.gz")
    places = {passage["id"]: place for place, passage in enumerate(passages)}
    answers: dict[str, set[int]] = {query["id"]: set() for query in queries}
    for row in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, passage, _ = row.split("\t")
        answers[query].add(places[passage])
    if unanswered := [query for query, found in answers.items() if not found]:
        raise SystemExit(f"{folder}: {len(unanswered)} queries have no judgement, the first is {unanswered[0]}")
    return Retrieval([one["text"] for one in queries], [one["text"] for one in passages], list(answers.values()))


def measure(encoder: Encoder, sets: Sequence[Retrieval], prompts: Prompts) -> list[dict[int, Tensor]]:
    """nDCG@10 of every query, for each set and each number of dimensions."""
    found = []
    for one in sets:
        queries = encode(encoder, one.queries, prompts.query)
        passages = encode(encoder, one.passages, prompts.passage)
        found.append({size: ndcg_at_10(scores(queries, passages, size), one.relevant) for size in DIMENSIONS})
        print(f"{len(found)} of {len(sets)} sets", flush=True)
    return found


def interval(difference: Tensor, seed: int) -> list[float]:
    """The 95 % interval of a mean difference, by resampling queries: a set of 500 cannot tell half a point."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(difference), (2000, len(difference)), generator=generator)
    low, high = difference[picks].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=difference.dtype)).tolist()
    return [round(low, 4), round(high, 4)]


def compare(base: dict[int, Tensor], adapter: dict[int, Tensor], seed: int) -> dict[str, dict[str, object]]:
    """The figures of one set."""
    return {
        str(size): {
            "base": round(base[size].mean().item(), 4),
            "adapter": round(adapter[size].mean().item(), 4),
            "difference_95": interval(adapter[size] - base[size], seed),
        }
        for size in DIMENSIONS
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", type=Path, metavar="BACKBONE_DIR", help="all-MiniLM-L6-v2")
    parser.add_argument("adapter", type=Path, metavar="ADAPTER_DIR", help="what train.py wrote")
    parser.add_argument("--data", type=Path, required=True, metavar="EVAL_DIR", help="folder of the evaluation sets")
    parser.add_argument("--seed", type=int, default=20261121, help="of the intervals' resampling; default: %(default)s")
    parser.add_argument("--threads", type=int, default=THREADS, help="default: %(default)s")
    parser.add_argument("-o", "--out", type=Path, default=OUT, help="default: results.json beside this file")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    sets = [read_set(options.data / name) for name in SETS]
    encoder = load_backbone(options.backbone, MAX_TOKENS)
    base = measure(encoder, sets, NO_PROMPTS)
    adapter = measure(load_adapter(encoder, options.adapter), sets, PROMPTS)
    results = {
        "metric": "nDCG@10",
        "max_tokens": MAX_TOKENS,
        "seed": options.seed,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "sets": {
            name: compare(bare, adapted, options.seed) for name, bare, adapted in zip(SETS, base, adapter, strict=True)
        },
    }
    text = json.dumps(results, indent=2)
    options.out.write_text(text + "\n", encoding="utf-8", newline="\n")
    print(text)


if __name__ == "__main__":
    main()
