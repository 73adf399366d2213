"""Difference of scores that a damaged head makes: the limits of the export's score check lie below it.

Differences are those of `embedpack_export.metrics.score_agreement`, over the standard deviation of the exact scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.default_reranker.cross_encoder import load_cross_encoder
from training.default_reranker.groups import read_groups
from training.default_reranker.settings import SETTINGS
from training.program import add_backbone, program

GROUPS = 60  # the first ones of the file

EXAMPLES = """example:
  python -m training.default_reranker.damaged_heads BACKBONE_DIR ADAPTER_DIR groups.jsonl.gz"""


def _without_bias(pooler: Any) -> None:
    torch.nn.init.zeros_(pooler.dense.bias)


def _with_activation(activation: torch.nn.Module) -> Callable[[Any], None]:
    def damage(pooler: Any) -> None:
        pooler.activation = activation

    return damage


DAMAGES: Mapping[str, Callable[[Any], None]] = {
    "no bias of the pooler": _without_bias,
    "no activation of the pooler": _with_activation(torch.nn.Identity()),
    "sigmoid as the activation": _with_activation(torch.nn.Sigmoid()),
}


@torch.no_grad()
def main() -> None:
    """Run the command line."""
    parser = program("default_reranker.damaged_heads", __doc__, EXAMPLES)
    add_backbone(parser)
    parser.add_argument("adapter", type=Path, metavar="ADAPTER_DIR", help="adapter folder of the cross-encoder")
    parser.add_argument("groups", type=Path, metavar="GROUPS", help="file of training.default_reranker.mine")
    options = parser.parse_args()

    torch.set_num_threads(1)
    pairs = [(group.query, document) for group in read_groups(options.groups)[:GROUPS] for document in group.documents]
    queries, documents = [query for query, _ in pairs], [document for _, document in pairs]

    def scores(damage: Callable[[Any], None] | None) -> Tensor:
        encoder = load_cross_encoder(options.backbone, options.adapter, SETTINGS.max_tokens)
        if damage is not None:
            pooler: Any = encoder.base.bert.pooler
            damage(pooler.modules_to_save["default"])
        return encoder(queries, documents)

    exact = scores(None)
    for name, damage in DAMAGES.items():
        difference = (scores(damage) - exact).square().mean().sqrt() / exact.std()
        print(f"{name}: {difference:.3f}", flush=True)


if __name__ == "__main__":
    main()
