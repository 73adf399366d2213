"""Whatever PEFT saves, of any model form and with any options of LoRA, equals PEFT's own unmerged computation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from embedpack.errors import CheckpointError
from embedpack_export.graph.lora_branches import check_switchable
from embedpack_export.planning.plan import make_plan
from embedpack_export.reference.torch_reference import TorchReference
from embedpack_export.sources.weights import Weights
from tests.helpers.adapted_graph import graph_vectors
from tests.helpers.exports import distance, quick
from tests.helpers.peft_training import Trained, TrainedModel
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_decoder import make_decoder
from tests.helpers.tiny_families import FAMILIES

TEXTS = ("how do i reset a router ?", "the cat sleeps on a warm roof in the rain", "list files")
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Names:
    """Names of the modules of a backbone."""

    layers: str  # name of the list of layers
    linears: tuple[str, ...]  # last parts of the names of linear layers
    whole: str  # name of a linear layer of layer 0
    embedding: str  # last part of the name of the table of words
    norm: str  # last part of the name of a norm

    @classmethod
    def of(cls, backbone: Any) -> Names:
        """Read the names from a transformers model."""
        modules = dict(backbone.named_modules())
        layers = next(name for name, module in modules.items() if isinstance(module, torch.nn.ModuleList))
        linears = [name for name, module in modules.items() if isinstance(module, torch.nn.Linear)]
        in_layers = [name for name in linears if name.startswith(f"{layers}.0.")]
        words = backbone.get_input_embeddings()
        return cls(
            layers=layers,
            linears=tuple(sorted({_last(name) for name in in_layers})),
            whole=in_layers[0],
            embedding=next(_last(name) for name, module in modules.items() if module is words),
            norm=next(_last(name) for name in modules if "norm" in _last(name).lower()),
        )


def _last(name: str) -> str:
    return name.rpartition(".")[2]


# Families for which transformers has no class for question answering, and those that PEFT does not adapt within a
# SentenceTransformer: it looks for the names of their older code there.
IMPOSSIBLE: Mapping[Trained, tuple[str, ...]] = {
    "question answering": ("gte", "nomic_bert", "eurobert"),
    "SentenceTransformer": ("gte", "nomic_bert"),
}
HEADS = ("lm_head", "classifier", "score", "qa_outputs")


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options") / request.param
    if FAMILIES[request.param].tower == "decoder":
        return make_decoder(folder, request.param, pad_token_id=1)
    return make_checkpoint(folder, request.param)


@st.composite
def options(draw: st.DrawFn, names: Names, prefix: str, head: str | None) -> dict[str, Any]:
    """Options of LoraConfig for a model whose backbone has this prefix and which has this head."""
    kind = draw(st.sampled_from(["LoRA", "rsLoRA", "DoRA", "lora_bias"]))
    linears = draw(st.lists(st.sampled_from(names.linears), min_size=1, unique=True))
    with_embedding = kind != "lora_bias" and draw(st.integers(0, 3)) == 0
    targets = [*linears, *([names.embedding] if with_embedding else [])]
    full, last = f"{prefix}{names.whole}", _last(names.whole)
    config: dict[str, Any] = {
        "r": draw(st.integers(1, 5)),
        "lora_alpha": draw(st.integers(1, 16)),
        "use_rslora": kind == "rsLoRA",
        "use_dora": kind == "DoRA",
        "lora_bias": kind == "lora_bias",
        "bias": draw(st.sampled_from(["none", "all", "lora_only"])),
        "modules_to_save": draw(st.sampled_from([None, [names.norm], *([[head]] if head else [])])),
        **draw(_choices(names, prefix, full, targets)),
    }
    for pattern, values in (("rank_pattern", st.integers(1, 6)), ("alpha_pattern", st.integers(1, 40))):
        # One key: the first that matches counts, and PEFT sorts them when it saves them.
        key = draw(st.sampled_from([None, last, full, rf"{re.escape(prefix)}.*\.{linears[0]}"]))
        config[pattern] = {} if key is None else {key: draw(values)}
    return config


@st.composite
def tokens(draw: st.DrawFn, names: Names) -> object:
    """Tokens whose rows are trained, if there are any."""
    indices = draw(st.none() | st.lists(st.integers(0, 50), min_size=1, max_size=3, unique=True))
    return {names.embedding: indices} if indices is not None and draw(st.booleans()) else indices


@st.composite
def _choices(draw: st.DrawFn, names: Names, prefix: str, full: str, targets: list[str]) -> dict[str, Any]:
    """Options that choose modules."""
    form = draw(st.sampled_from(["ends", "layers", "expression", "full names", "excluded"]))
    if form == "layers":
        pattern = _last(names.layers)
        # Without a pattern PEFT does not find the layers of a model that they are the first part of.
        patterns = [pattern, [pattern], *([None] if prefix or "." in names.layers else [])]
        linears = [name for name in targets if name != names.embedding]
        return {
            "target_modules": linears,
            "layers_to_transform": draw(st.sampled_from([0, [1], [0, 1]])),
            "layers_pattern": draw(st.sampled_from(patterns)),
        }
    if form == "expression":
        return {"target_modules": rf"{re.escape(prefix)}.*\.({'|'.join(targets)})"}
    if form == "full names":
        return {"target_modules": [full]}
    excluded = rf"{re.escape(prefix)}.*\.1\..*" if form == "excluded" else None
    return {"target_modules": targets, "exclude_modules": excluded}


@pytest.mark.parametrize("trained", get_args(Trained))
@settings(max_examples=3, phases=[Phase.generate])
@given(data=st.data())
def test_merged_switchable_and_reference_equal_peft(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, trained: Trained, data: st.DataObject
) -> None:
    folder, model_type = tmp_path_factory.mktemp("adapter"), checkpoint.name
    if model_type in IMPOSSIBLE.get(trained, ()):
        pytest.skip("transformers or PEFT cannot make it")
    model = TrainedModel.load(checkpoint, model_type, trained)
    heads = [name for name, _ in model.model.named_children() if name in HEADS]
    names = Names.of(model.backbone)
    config = data.draw(options(names, model.prefix, heads[0] if heads else None))
    # PEFT asks the trained model for its table, which a SentenceTransformer does not answer, and refuses a table or a
    # head tied to it that is trained in another way too.
    others = f"{config['target_modules']} {config['modules_to_save']}"
    if trained != "SentenceTransformer" and names.embedding not in others and "lm_head" not in others:
        config["trainable_token_indices"] = data.draw(tokens(names))
    model.adapt(folder / "adapter", config)
    plan = make_plan(quick(checkpoint, folder / "pack", pooling="mean", adapters={"code": folder / "adapter"}))
    ids = [item.ids for item in plan.processor.process(plan.processor.items(TEXTS), "")]
    expected = np.stack([model.mean_vector(row) for row in ids])
    assert distance(graph_vectors(plan, folder, ids, switchable=False), expected) <= TOLERANCE
    assert distance(TorchReference(plan).single("code", TEXTS), expected) <= TOLERANCE
    adapter = plan.tasks["code"].adapter
    assert adapter is not None
    backbone = Weights(plan.checkpoint, None, plan.model.rules, plan.is_text_tensor)
    # PEFT saves the table as well where it is one of the targets.
    copies = {name for name in adapter.replacements if name.endswith(f"{names.embedding}.weight")}
    if adapter.replacements.keys() - copies or any(len(update.tensors) > 2 for update in adapter.updates.values()):
        with pytest.raises(CheckpointError, match="cannot be switched at run time; export it merged"):
            check_switchable(adapter, backbone)
        return
    check_switchable(adapter, backbone)
    if adapter.token_rows:  # test_replaced_rows_are_switched in test_peft_fields.py
        return
    assert distance(graph_vectors(plan, folder, ids, switchable=True), expected) <= TOLERANCE
