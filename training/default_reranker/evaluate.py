"""Rerank evaluation sets with the cross-encoder; print nDCG@10 and write results.json.

EVAL_DIR has folders with corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv. The backbone's single vectors find the
candidates. Both models compute in bfloat16; documents are truncated, so that a pair has 256 tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from training.default_model.adapters import write_json
from training.default_model.encoder import Encoder, load_backbone
from training.default_model.evaluation_sets import SEARCH_SETS, SearchSet, read_search
from training.default_model.metrics import mean_interval
from training.default_model.settings import SEED
from training.default_reranker.candidates import Candidates
from training.default_reranker.cross_encoder import CrossEncoder, load_cross_encoder, reduce_frozen_layers
from training.program import add_backbone, program

OUT = Path(__file__).resolve().parent / "results.json"
MAX_TOKENS = 256
SETS = tuple(name for sets in SEARCH_SETS.values() for name in sets)

EXAMPLES = """example:
  python -m training.default_reranker.evaluate BACKBONE_DIR ADAPTER_DIR --data EVAL_DIR --queries 200 --depth 50"""


@dataclass(frozen=True)
class Amount:
    """Amount of work: queries of a set, the first ones; candidates of a query."""

    queries: int
    depth: int
    weight: float  # of the reranker's score in the sum with the cosine


def measure(model: Encoder, encoder: CrossEncoder, data: SearchSet, amount: Amount) -> dict[str, object]:
    """nDCG@10 of one set in points: in the order of cosines, of the reranker's scores and of their sum."""
    cut = slice(amount.queries)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Candidates.find(model, SearchSet(data.queries[cut], data.passages, data.relevant[cut]), amount.depth)
    pairs = found.pair_scores(encoder)
    base = found.ndcg(found.cosines)
    best = found.ndcg(found.right())
    return {
        "queries": len(found.queries),
        "depth": found.nearest.shape[1],
        "weight": amount.weight,
        "single": mean(base),
        "reranked": compared(base, found.ndcg(pairs)),
        "sum": compared(base, found.ndcg(found.cosines + amount.weight * pairs)),
        "best_order": mean(best),
    }


def compared(base: Tensor, values: Tensor) -> dict[str, object]:
    """Mean, with the 95 % bootstrap interval over queries of its difference from the base."""
    return {"ndcg": mean(values), "difference_95": [round(100 * end, 2) for end in mean_interval(values - base, SEED)]}


def mean(values: Tensor) -> float:
    """Mean in points."""
    return round(100 * values.mean().item(), 2)


def main() -> None:
    """Run the command line."""
    parser = program("default_reranker.evaluate", __doc__, EXAMPLES)
    add_backbone(parser)
    parser.add_argument("adapter", type=Path, metavar="ADAPTER_DIR", help="adapter folder of the cross-encoder")
    parser.add_argument("--data", type=Path, required=True, metavar="EVAL_DIR", help="folder of the evaluation sets")
    parser.add_argument("--queries", type=int, default=500, metavar="N", help="queries of a set; default: %(default)s")
    parser.add_argument("--depth", type=int, default=100, metavar="K", help="candidates; default: %(default)s")
    chosen = "set to measure, may be repeated; the figures of others stay; default: all"
    parser.add_argument("--set", choices=SETS, action="append", dest="sets", help=chosen)
    weight = "weight of the reranker's score next to the cosine; default: %(default)s"
    parser.add_argument("--weight", type=float, default=0.04, help=weight)
    parser.add_argument("-o", "--out", type=Path, default=OUT, metavar="FILE", help="default: results.json next to it")
    options = parser.parse_args()

    torch.set_num_threads(1)
    amount = Amount(options.queries, options.depth, options.weight)
    encoder = load_cross_encoder(options.backbone, options.adapter, MAX_TOKENS)
    reduce_frozen_layers(encoder)
    model = load_backbone(options.backbone, MAX_TOKENS)
    results = json.loads(options.out.read_text(encoding="utf-8"))["sets"] if options.out.exists() else {}
    for name in options.sets or SETS:
        results[name] = measure(model, encoder, read_search(options.data / name), amount)
        print(f"{name}: {json.dumps(results[name])}", flush=True)
        sets = {key: results[key] for key in SETS if key in results}
        write_json(options.out, {"metric": "nDCG@10", "max_tokens": MAX_TOKENS, "sets": sets})


if __name__ == "__main__":
    main()
