"""Compare teachers of the cross-encoder on held-out training pairs: cosine, MaxSim, and sums of both."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from training.default_colbert.model import ColBERT, load_colbert
from training.default_reranker.candidates import Candidates
from training.default_reranker.held_out import line, read_held_out
from training.default_reranker.settings import SETTINGS
from training.program import add_backbone, add_training_sets, program

COSINE_WEIGHTS = (0.25, 0.5, 1.0, 2.0)

EXAMPLES = """example:
  python -m training.default_reranker.teachers BACKBONE_DIR COLBERT_DIR --data TRAIN_DIR"""


@torch.no_grad()
def maxsim(colbert: ColBERT, data: Candidates) -> Tensor:
    """MaxSim per query token [queries, k] of the candidates."""
    used = sorted({index for row in data.nearest.tolist() for index in row})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        queries = colbert.encode(data.queries, "query")
        rows = colbert.encode([data.documents[index] for index in used], "document")
    documents = dict(zip(used, rows, strict=True))
    return torch.tensor([
        [(query.float() @ documents[index].float().T).max(1).values.mean().item() for index in row]
        for query, row in zip(queries, data.nearest.tolist(), strict=True)
    ])  # fmt: skip


def main() -> None:
    """Run the command line."""
    parser = program("default_reranker.teachers", __doc__, EXAMPLES)
    add_backbone(parser)
    parser.add_argument("colbert", type=Path, metavar="COLBERT_DIR", help="folder of the trained ColBERT")
    add_training_sets(parser)
    options = parser.parse_args()

    torch.set_num_threads(1)
    colbert = load_colbert(options.backbone, options.colbert)
    totals: dict[str, float] = {}
    sets = read_held_out(options.backbone, options.data, SETTINGS)
    for name, data in sets.items():
        found = maxsim(colbert, data)
        orders = {"cosine": data.cosines, "MaxSim": found}
        orders |= {f"MaxSim + {weight} x cosine": found + weight * data.cosines for weight in COSINE_WEIGHTS}
        means = {order: data.ndcg(values).mean().item() for order, values in orders.items()}
        totals = {order: totals.get(order, 0.0) + mean / len(sets) for order, mean in means.items()}
        print(line(name, means), flush=True)
    print(line("mean", totals))


if __name__ == "__main__":
    main()
