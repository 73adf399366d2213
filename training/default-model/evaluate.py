#!/usr/bin/env python3
"""Compare every task of the default model with its bare backbone; prints tables, writes results.json beside this file.

python evaluate.py BACKBONE_DIR ADAPTER_DIR --data EVAL_DIR
python evaluate.py BACKBONE_DIR ADAPTER_DIR --data EVAL_DIR --task code    # the other tasks' figures stay

EVAL_DIR holds folders with corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv, or with pairs.tsv. The backbone gets no
prompts, as it was trained. Texts are cut at 256 tokens.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from adapters import load_adapter, load_projector, write_json
from encoder import PROMPTS, TASKS, Encoder, load_backbone
from evaluation_sets import GRADED_SETS, SEARCH_SETS, read_search, read_similarity
from measuring import mean_interval, rank_interval, search_base, search_task, similarities
from scoring import spearman
from settings import SEED
from tables import table
from torch import Tensor

OUT = Path(__file__).resolve().parent / "results.json"
MAX_TOKENS = 256
PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors")

Figures = dict[str, dict[str, object]]


@dataclass(frozen=True)
class Places:
    """Where models and texts lie."""

    backbone: Path
    adapter: Path
    data: Path

    def bare(self) -> Encoder:
        """A fresh backbone: peft changes the one it is given."""
        return load_backbone(self.backbone, MAX_TOKENS)

    def adapted(self, task: str) -> Encoder:
        """The model of one task."""
        return load_adapter(self.bare(), self.adapter, task)


def search_figures(task: str, places: Places) -> dict[str, Figures]:
    """nDCG@10 of a task that searches, by set; "multi" against the adapter's single vectors of all dimensions."""
    bare, adapted, projector = places.bare(), places.adapted(task), load_projector(places.adapter)
    results = {}
    for name in SEARCH_SETS[task]:
        one = read_search(places.data / name)
        base = search_base(bare, one)
        adapter = search_task(adapted, projector, task, one, PROMPTS)
        results[name] = {size: against(base[size], adapter[size]) for size in base}
        results[name]["multi"] = {
            "adapter": mean(adapter["multi"]),
            "difference_to_single_95": mean_interval(adapter["multi"] - adapter["384"], SEED),
        }
        print(f"{name}: {json.dumps(results[name])}", flush=True)
    return results


def against(base: Tensor, adapter: Tensor) -> dict[str, object]:
    """Two means and how sure their difference is."""
    return {
        "base": mean(base),
        "adapter": mean(adapter),
        "difference_95": mean_interval(adapter - base, SEED),
    }


def mean(values: Tensor) -> float:
    """As it is printed."""
    return round(values.mean().item(), 4)


def graded_figures(task: str, places: Places) -> dict[str, Figures]:
    """Spearman with people's grades, by set; both sides with the query's prompt, then both with the passage's."""
    bare, adapted = places.bare(), places.adapted(task)
    results: dict[str, Figures] = {}
    for name in GRADED_SETS:
        pairs = read_similarity(places.data / name)
        grades = torch.tensor([pair.grade for pair in pairs])
        base = similarities(bare, pairs, "")
        adapter = similarities(adapted, pairs, PROMPTS.query)
        passages = similarities(adapted, pairs, PROMPTS.passage)
        results[name] = {
            size: {
                "base": round(spearman(base[size], grades), 4),
                "adapter": round(spearman(adapter[size], grades), 4),
                "adapter_passage_prompt": round(spearman(passages[size], grades), 4),
                "difference_95": rank_interval(base[size], adapter[size], grades, SEED),
            }
            for size in base
        }
        print(f"{name}: {json.dumps(results[name])}", flush=True)
    return results


def write(path: Path, found: Mapping[str, dict[str, Figures]]) -> dict[str, object]:
    """Put the figures of some tasks into the file, beside those of the others."""
    kept = json.loads(path.read_text(encoding="utf-8"))["tasks"] if path.exists() else {}
    results: dict[str, object] = {
        "metric": {task: "Spearman" if task == "text-matching" else "nDCG@10" for task in TASKS},
        "max_tokens": MAX_TOKENS,
        "seed": SEED,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "tasks": {task: {**kept, **found}[task] for task in TASKS if task in kept or task in found},
    }
    write_json(path, results)
    return results


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", type=Path, metavar="BACKBONE_DIR", help="all-MiniLM-L6-v2")
    parser.add_argument("adapter", type=Path, metavar="ADAPTER_DIR", help="what train.py and projector.py wrote")
    parser.add_argument("--data", type=Path, required=True, metavar="EVAL_DIR", help="folder of the evaluation sets")
    parser.add_argument("--task", choices=TASKS, action="append", help="may be repeated; default: all")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("-o", "--out", type=Path, default=OUT, help="default: results.json beside this file")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    places = Places(options.backbone, options.adapter, options.data)
    for task in options.task or TASKS:
        measure = graded_figures if task == "text-matching" else search_figures
        results = write(options.out, {task: measure(task, places)})
    print(table(results))


if __name__ == "__main__":
    main()
