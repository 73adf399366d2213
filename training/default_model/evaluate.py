"""Compare every task of the default model with its backbone; print tables, write results.json.

EVAL_DIR has folders with corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv, or with pairs.tsv. The backbone gets no
prompts, as it was trained. Texts are truncated to 256 tokens.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from training.default_model.adapters import load_adapter, load_projector, write_json
from training.default_model.encoder import PROMPTS, TASKS, Encoder, load_backbone
from training.default_model.evaluation_sets import GRADED_SETS, SEARCH_SETS, read_search
from training.default_model.metrics import mean_interval, rank_interval, search_base, search_task, similarities
from training.default_model.scoring import spearman
from training.default_model.settings import SEED
from training.default_model.tables import table
from training.default_model.training_sets import read_graded
from training.program import add_backbone, program

OUT = Path(__file__).resolve().parent / "results.json"
MAX_TOKENS = 256
PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors")

Metrics = dict[str, dict[str, object]]

EXAMPLES = """examples:
  python -m training.default_model.evaluate BACKBONE_DIR ADAPTER_DIR --data EVAL_DIR
  python -m training.default_model.evaluate BACKBONE_DIR ADAPTER_DIR --data EVAL_DIR --task code"""


@dataclass(frozen=True)
class Folders:
    """Folders of the backbone, the adapter and the evaluation sets."""

    backbone: Path
    adapter: Path
    data: Path

    def encoders(self, task: str) -> tuple[Encoder, Encoder]:
        """Load the backbone, and anew with the adapter of one task: PEFT modifies the model that it wraps."""
        bare, wrapped = (load_backbone(self.backbone, MAX_TOKENS) for _ in range(2))
        return bare, load_adapter(wrapped, self.adapter, task)


def search_metrics(task: str, folders: Folders) -> dict[str, Metrics]:
    """nDCG@10 of a search task by set; "multi" is compared with the adapter's single vectors of 384 dimensions."""
    bare, adapted = folders.encoders(task)
    projector = load_projector(folders.adapter)
    results = {}
    for name in SEARCH_SETS[task]:
        data = read_search(folders.data / name)
        base = search_base(bare, data)
        adapter = search_task(adapted, projector, task, data, PROMPTS)
        results[name] = {size: compared(base[size], adapter[size]) for size in base}
        results[name]["multi"] = {
            "adapter": mean(adapter["multi"]),
            "difference_to_single_95": mean_interval(adapter["multi"] - adapter["384"], SEED),
        }
        print(f"{name}: {json.dumps(results[name])}", flush=True)
    return results


def compared(base: Tensor, adapter: Tensor) -> dict[str, object]:
    """Means of backbone and adapter, with the 95 % interval of their difference."""
    return {"base": mean(base), "adapter": mean(adapter), "difference_95": mean_interval(adapter - base, SEED)}


def mean(values: Tensor) -> float:
    """Mean, rounded to four decimals."""
    return round(values.mean().item(), 4)


def graded_metrics(task: str, folders: Folders) -> dict[str, Metrics]:
    """Spearman's correlation with people's grades by set, both texts with the query's or with the passage's prompt."""
    bare, adapted = folders.encoders(task)
    results: dict[str, Metrics] = {}
    for name in GRADED_SETS:
        pairs = read_graded(folders.data / name / "pairs.tsv")
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


def write(path: Path, measured: Mapping[str, dict[str, Metrics]]) -> dict[str, object]:
    """Write the metrics of some tasks into the file; those of other tasks stay."""
    existing = json.loads(path.read_text(encoding="utf-8"))["tasks"] if path.exists() else {}
    results: dict[str, object] = {
        "metric": {task: "Spearman" if task == "text-matching" else "nDCG@10" for task in TASKS},
        "max_tokens": MAX_TOKENS,
        "seed": SEED,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "tasks": {task: {**existing, **measured}[task] for task in TASKS if task in existing or task in measured},
    }
    write_json(path, results)
    return results


def main() -> None:
    """Run the command line."""
    parser = program("default_model.evaluate", __doc__, EXAMPLES)
    add_backbone(parser)
    parser.add_argument("adapter", type=Path, metavar="ADAPTER_DIR", help="adapter folder with the projector")
    parser.add_argument("--data", type=Path, required=True, metavar="EVAL_DIR", help="folder of the evaluation sets")
    tasks = "task to measure, may be repeated; the metrics of others stay; default: all"
    parser.add_argument("--task", choices=TASKS, action="append", help=tasks)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="number of threads; default: %(default)s")
    out = "default: training/default_model/results.json"
    parser.add_argument("-o", "--out", type=Path, default=OUT, metavar="FILE", help=out)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    folders = Folders(options.backbone, options.adapter, options.data)
    for task in options.task or TASKS:
        measure = graded_metrics if task == "text-matching" else search_metrics
        results = write(options.out, {task: measure(task, folders)})
    print(table(results))


if __name__ == "__main__":
    main()
