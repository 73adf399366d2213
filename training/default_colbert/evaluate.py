"""Search evaluation sets with the ColBERT and with the backbone's single vectors; print nDCG@10, write results.json.

EVAL_DIR has folders with corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv. Single vectors have no prompts, as the
backbone was trained. Both models compute in bfloat16, documents are truncated to 256 tokens.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from training.default_colbert.model import ColBERT, load_colbert
from training.default_colbert.settings import MAX_TOKENS
from training.default_model.adapters import write_json
from training.default_model.encoder import NO_PROMPTS, Encoder, encode, load_backbone
from training.default_model.evaluation_sets import SEARCH_SETS, SearchSet, read_search
from training.default_model.metrics import late_scores, mean_interval
from training.default_model.scoring import ndcg_at_10, scores
from training.default_model.settings import SEED
from training.program import add_backbone, program

OUT = Path(__file__).resolve().parent / "results.json"
SETS = tuple(name for sets in SEARCH_SETS.values() for name in sets)

EXAMPLES = """examples:
  python -m training.default_colbert.evaluate BACKBONE_DIR COLBERT_DIR --data EVAL_DIR
  python -m training.default_colbert.evaluate BACKBONE_DIR COLBERT_DIR --data EVAL_DIR --set code/nl2bash"""


def measure(model: Encoder, colbert: ColBERT, data: SearchSet) -> dict[str, object]:
    """nDCG@10 of one set in points, and the 95 % bootstrap interval over queries of the difference."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        queries, documents = (encode(model, texts, NO_PROMPTS.query).float() for texts in (data.queries, data.passages))
        tokens = [colbert.encode(data.queries, "query"), colbert.encode(data.passages, "document")]
    single = ndcg_at_10(scores(queries, documents, queries.shape[1]), data.relevant)
    multi = ndcg_at_10(late_scores(*([rows.float() for rows in side] for side in tokens)), data.relevant)
    return {
        "queries": len(data.queries),
        "documents": len(data.passages),
        "single": points(single),
        "multi": points(multi),
        "difference_95": [round(100 * end, 2) for end in mean_interval(multi - single, SEED)],
    }


def points(values: Tensor) -> float:
    """Mean in points."""
    return round(100 * values.mean().item(), 2)


def main() -> None:
    """Run the command line."""
    parser = program("default_colbert.evaluate", __doc__, EXAMPLES)
    add_backbone(parser)
    parser.add_argument("colbert", type=Path, metavar="COLBERT_DIR", help="folder of the ColBERT")
    parser.add_argument("--data", type=Path, required=True, metavar="EVAL_DIR", help="folder of the evaluation sets")
    chosen = "set to measure, may be repeated; the figures of others stay; default: all"
    parser.add_argument("--set", choices=SETS, action="append", dest="sets", help=chosen)
    parser.add_argument("-o", "--out", type=Path, default=OUT, metavar="FILE", help="default: results.json next to it")
    options = parser.parse_args()

    torch.set_num_threads(1)
    model = load_backbone(options.backbone, MAX_TOKENS["document"])
    colbert = load_colbert(options.backbone, options.colbert)
    results = json.loads(options.out.read_text(encoding="utf-8"))["sets"] if options.out.exists() else {}
    for name in options.sets or SETS:
        results[name] = measure(model, colbert, read_search(options.data / name))
        print(f"{name}: {json.dumps(results[name])}", flush=True)
        write_json(options.out, {"metric": "nDCG@10", "sets": {key: results[key] for key in SETS if key in results}})


if __name__ == "__main__":
    main()
