"""Make training groups of the cross-encoder: a query, its document and neighbours, with scores of its teachers.

Teachers are the ColBERT and the backbone's single vectors. Neighbours are those by the single vectors, which also find
what the trained cross-encoder is given.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from training.default_colbert.model import ColBERT, load_colbert
from training.default_model.encoder import Encoder, load_backbone
from training.default_model.scoring import scores
from training.default_model.settings import SEED
from training.default_model.training_sets import Pair
from training.default_reranker.groups import Group, write_groups
from training.default_reranker.settings import SOURCES
from training.hard_negatives.sources import read_source
from training.program import add_backbone, add_training_sets, program

NEIGHBOURS = 4  # of a group
DEPTH = 30  # neighbours that they are drawn from
OTHERS = 1  # documents of a group from all the rest
COSINE_WEIGHT = 0.5  # of the cosine, next to MaxSim
MAX_TOKENS = 256  # of a document
MAX_QUERY_TOKENS = 96  # groups with longer queries are left out

EXAMPLES = """example:
  python -m training.default_reranker.mine BACKBONE_DIR COLBERT_DIR --data TRAIN_DIR -o groups.jsonl.gz"""


def negatives(similarity: Tensor, own: int, rng: random.Random) -> list[int]:
    """Indices of the wrong documents of a group: neighbours at log-uniform ranks of the first DEPTH, and others."""
    ranked = [index for index in similarity.argsort(descending=True).tolist() if index != own]
    near, far = ranked[:DEPTH], ranked[DEPTH:]
    picked: list[int] = []
    while len(picked) < min(NEIGHBOURS, len(near)):
        index = near[int(math.exp(rng.uniform(0.0, math.log(len(near)))) - 1)]
        if index not in picked:
            picked.append(index)
    return picked + rng.sample(far, min(OTHERS, len(far)))


@torch.no_grad()
def mine(name: str, pairs: list[Pair], single: Encoder, colbert: ColBERT, rng: random.Random) -> Iterator[Group]:
    """Groups of one source; the documents of its other pairs are the candidates."""
    queries, documents = [pair.query for pair in pairs], [pair.passage for pair in pairs]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        similarity = scores(single(queries).float(), single(documents).float(), 384)
        query_rows, document_rows = colbert.encode(queries, "query"), colbert.encode(documents, "document")
    for index, pair in enumerate(pairs):
        query = query_rows[index].float()
        if len(query) > MAX_QUERY_TOKENS:
            continue
        chosen = [index, *negatives(similarity[index], index, rng)]
        best = [(query @ document_rows[each].float().T).max(1).values for each in chosen]
        cosines = COSINE_WEIGHT * similarity[index, chosen]
        teacher = [round(each.mean().item() + cosine, 4) for each, cosine in zip(best, cosines.tolist(), strict=True)]
        # Without [CLS], the marker and [SEP].
        tokens = [[round(value, 3) for value in each[2:-1].tolist()] for each in best]
        yield Group(name, pair.query, [pairs[each].passage for each in chosen], teacher, tokens)


def main() -> None:
    """Run the command line."""
    parser = program("default_reranker.mine", __doc__, EXAMPLES)
    add_backbone(parser)
    parser.add_argument("colbert", type=Path, metavar="COLBERT_DIR", help="folder of the trained ColBERT")
    add_training_sets(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="file to write")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    single, colbert = load_backbone(options.backbone, MAX_TOKENS), load_colbert(options.backbone, options.colbert)
    groups: list[Group] = []
    rng = random.Random(SEED)
    for source in SOURCES:
        groups += mine(source.name, read_source(source, options.data).train, single, colbert, rng)
        print(f"{source.name}: {len(groups)} groups so far", flush=True)
    write_groups(groups, options.out)


if __name__ == "__main__":
    main()
