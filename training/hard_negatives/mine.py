"""Make training groups: for every query its document and hard negatives, with scores of the default model as a teacher.

Negatives are neighbours by the single vectors of the default model's retrieval adapter. The teacher's score is the
mean of the cosine and of MaxSim per query token.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from training.default_model.adapters import load_adapter, load_projector
from training.default_model.encoder import PROMPTS, States, load_backbone
from training.default_model.late_interaction import maxsim
from training.default_model.metrics import Embedded, embed
from training.default_model.scoring import scores
from training.default_model.settings import SEED
from training.default_model.training_sets import Pair
from training.hard_negatives.groups import Group, write_groups
from training.hard_negatives.sources import SOURCES, read_source
from training.program import add_backbone, add_training_sets, program

TASK = "retrieval"
NEGATIVES = 5  # of a group
DEPTH = 100  # neighbours that negatives are drawn from
MAX_TOKENS = 80

EXAMPLES = """example:
  python -m training.hard_negatives.mine BACKBONE_DIR ADAPTER_DIR --data TRAIN_DIR -o groups.jsonl.gz"""


class Teacher:
    """The retrieval adapter of the default model with its projector."""

    def __init__(self, backbone: Path, adapters: Path) -> None:
        """Load backbone, adapter and projector."""
        self.encoder = load_adapter(load_backbone(backbone, MAX_TOKENS), adapters, TASK)
        self.projector = load_projector(adapters)

    def embed(self, texts: list[str]) -> Embedded:
        """Compute single vectors and multi-vectors; bfloat16 is enough to choose negatives."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            embedded = embed(self.encoder, self.projector, TASK, texts)
        return Embedded(embedded.single.float(), [rows.half() for rows in embedded.multi])


def neighbours(similarity: Tensor, own: int, count: int, rng: random.Random) -> list[int]:
    """Indices of `count` neighbours of one query, at ranks drawn log-uniformly from the first DEPTH without its own."""
    ranked = [index for index in similarity.topk(min(DEPTH + 1, len(similarity))).indices.tolist() if index != own]
    picked: list[int] = []
    while len(picked) < min(count, len(ranked)):
        index = ranked[int(math.exp(rng.uniform(0.0, math.log(len(ranked)))) - 1)]
        if index not in picked:
            picked.append(index)
    return picked


def mine(name: str, pairs: list[Pair], teacher: Teacher, rng: random.Random) -> Iterator[Group]:
    """Groups of one source; the documents of its other pairs are the candidates."""
    queries = teacher.embed([PROMPTS.query + pair.query for pair in pairs])
    documents = teacher.embed([PROMPTS.passage + pair.passage for pair in pairs])
    similarity = scores(queries.single, documents.single, 384)
    for index, pair in enumerate(pairs):
        chosen = [index, *neighbours(similarity[index], index, NEGATIVES, rng)]
        tokens = States.padded([queries.multi[index].float()])
        late = maxsim(tokens, States.padded([documents.multi[each].float() for each in chosen]))[0]
        taught = (late / tokens.mask.sum() + similarity[index, chosen]) / 2
        rounded = [round(score, 4) for score in taught.tolist()]
        yield Group(name, pair.query, [pairs[each].passage for each in chosen], rounded)


def main() -> None:
    """Run the command line."""
    parser = program("hard_negatives.mine", __doc__, EXAMPLES)
    add_backbone(parser)
    parser.add_argument("adapters", type=Path, metavar="ADAPTER_DIR", help="folder of the default model's adapters")
    add_training_sets(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="file to write")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    teacher, rng = Teacher(options.backbone, options.adapters), random.Random(SEED)
    groups: list[Group] = []
    for source in SOURCES:
        groups += mine(source.name, read_source(source, options.data).train, teacher, rng)
        print(f"{source.name}: {len(groups)} groups so far", flush=True)
    write_groups(groups, options.out)


if __name__ == "__main__":
    main()
