"""Every field of the installed PEFT's LoraConfig: followed as PEFT does, or refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import LoraConfig
from peft.tuners.lora.config import MontecloraConfig, VeloraConfig

from embedpack_export.planning.plan import make_plan
from embedpack_export.reference.torch_reference import TorchReference
from embedpack_export.sources.adapter_keys import ADAPTER_CONFIG
from embedpack_export.sources.peft_adapter import read_adapter
from tests.helpers.adapted_graph import graph_vectors
from tests.helpers.exports import QUERY, Arrays, distance, edit_json, edit_tensors, query_update, quick, write_adapter
from tests.helpers.peft_oracle import adapted_by_peft, converted_adapter, load_model, mean_vectors, save_adapter
from tests.helpers.peft_training import TrainedModel
from tests.helpers.plans import refuse
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_decoder import make_decoder

TEXTS = ("how do i reset a router ?", "the cat sleeps on a warm roof in the rain", "list files")
TOLERANCE = 1e-6
MERGE_FIRST = "merge it with peft (merge_and_unload, save_pretrained) and export the merged model"
NO_PRODUCT = f"its updates are no products of A and B; {MERGE_FIRST}"


@dataclass(frozen=True)
class Exact:
    """An adapter that is computed as PEFT computes it."""

    config: Mapping[str, Any] = field(default_factory=dict)  # options of its training
    written: Mapping[str, Any] = field(default_factory=dict)  # values that its adapter_config.json is given afterwards


@dataclass(frozen=True)
class Refused:
    """A value of a field that is refused, and the remedy in the message."""

    value: Any
    remedy: str


FIELDS: Mapping[str, Exact | Refused] = {
    "task_type": Exact({"task_type": "FEATURE_EXTRACTION"}),
    "peft_type": Refused("LOHA", f"only LORA is read: {MERGE_FIRST}"),
    "auto_mapping": Exact(written={"auto_mapping": None}),
    "peft_version": Exact(written={"peft_version": "0.4.0"}),
    "base_model_name_or_path": Exact(written={"base_model_name_or_path": "another/name"}),
    "revision": Exact(written={"revision": "main"}),
    "inference_mode": Exact(written={"inference_mode": False}),
    "r": Exact({"r": 3}),
    "target_modules": Exact({"target_modules": r".*layer\.1\.attention.*(query|key|dense)"}),
    "exclude_modules": Exact({"target_modules": "all-linear", "exclude_modules": r".*layer\.1\..*|pooler.*"}),
    "lora_alpha": Exact({"lora_alpha": 31}),
    "lora_dropout": Exact({"lora_dropout": 0.5}),
    "fan_in_fan_out": Exact(written={"fan_in_fan_out": True}),
    "bias": Exact({"bias": "all"}),
    "use_rslora": Exact({"use_rslora": True}),
    "modules_to_save": Exact({"modules_to_save": ["intermediate.dense", "LayerNorm"]}),
    "init_lora_weights": Exact(written={"init_lora_weights": "eva", "eva_config": {"rho": 2.0}}),
    "layers_to_transform": Exact({"layers_to_transform": 1}),
    "layers_pattern": Exact({"layers_to_transform": [0], "layers_pattern": ["layer"]}),
    "rank_pattern": Exact({"rank_pattern": {r"layer\.0\..*": 2, "value": 5}}),
    "alpha_pattern": Exact({"alpha_pattern": {r"^encoder\.layer\.1\..*": 40, "query": 3}}),
    "megatron_config": Refused({"tensor_model_parallel_size": 2}, f"its layers are split by Megatron; {MERGE_FIRST}"),
    "megatron_core": Exact(written={"megatron_core": "megatron.core"}),
    "trainable_token_indices": Exact({"trainable_token_indices": [60, 5, 17]}),
    "loftq_config": Exact(written={"loftq_config": {"loftq_bits": 4}}),
    "eva_config": Exact(written={"eva_config": {"rho": 2.0}}),
    "corda_config": Exact(written={"corda_config": {"corda_method": "ipm"}}),
    "lora_ga_config": Exact(written={"lora_ga_config": {"direction": "ArB2r"}}),
    "use_dora": Exact({"use_dora": True}),
    "velora_config": Exact({"velora_config": VeloraConfig()}),
    "alora_invocation_tokens": Refused(
        [7], "it acts on the tokens behind these alone, which no merged weights do; train a LoRA without them"
    ),
    "use_qalora": Refused(True, "it reads averages of inputs of a quantized model; train a LoRA of the model in full"),
    "qalora_group_size": Exact(written={"qalora_group_size": 32}),
    "monteclora_config": Exact({"monteclora_config": MontecloraConfig()}),
    "layer_replication": Refused([[0, 2], [0, 2]], f"the model has other layers than the checkpoint; {MERGE_FIRST}"),
    "runtime_config": Exact(written={"runtime_config": {"ephemeral_gpu_offload": False}}),
    "lora_bias": Exact({"lora_bias": True}),
    "target_parameters": Refused(["query.weight"], NO_PRODUCT),
    "use_bdlora": Refused({"target_modules_bd_a": ["query"], "nblocks": 2}, NO_PRODUCT),
    "arrow_config": Refused({"top_k": 3}, "each token would choose among several adapters; export one of these"),
    "kasa_config": Refused({"beta": 0.1}, NO_PRODUCT),
    "ensure_weight_tying": Exact(written={"ensure_weight_tying": True}),
}
EXACT = {name: case for name, case in FIELDS.items() if isinstance(case, Exact)}
REFUSED = {name: case for name, case in FIELDS.items() if isinstance(case, Refused)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("fields") / "toy")


def test_there_is_a_rule_and_a_test_for_every_field() -> None:
    names = {each.name for each in dataclasses.fields(LoraConfig)}
    assert names == set(FIELDS)
    assert names <= set(ADAPTER_CONFIG.rules)


@pytest.mark.parametrize("case", EXACT.values(), ids=EXACT)
def test_a_followed_field_gives_the_vectors_of_peft(checkpoint: Path, tmp_path: Path, case: Exact) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter", **case.config)
    edit_json(adapter / "adapter_config.json", **case.written)
    assert_equals_peft(checkpoint, adapter)


def assert_equals_peft(checkpoint: Path, adapter: Path) -> None:
    """The graph, and the reference with unmerged adapters, give the vectors of PEFT's own model."""
    expected = mean_vectors(adapted_by_peft(checkpoint, adapter), checkpoint / "tokenizer.json", TEXTS)
    plan = make_plan(quick(checkpoint, adapter.parent / "pack", adapters={"code": adapter}))
    ids = [item.ids for item in plan.processor.process(plan.processor.items(TEXTS), "")]
    assert distance(graph_vectors(plan, adapter.parent, ids, switchable=False), expected) <= TOLERANCE
    assert distance(TorchReference(plan).single("code", TEXTS), expected) <= TOLERANCE


@pytest.mark.parametrize(("name", "case"), REFUSED.items(), ids=REFUSED)
def test_a_field_that_is_not_followed_is_refused(tmp_path: Path, name: str, case: Refused) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    adapter = write_adapter(tmp_path / "adapter", query_update(), **{name: case.value})
    message = f"{adapter / 'adapter_config.json'}: {name} is {case.value!r}; {case.remedy}"
    refuse(checkpoint, message, adapters={"code": adapter})


@pytest.mark.parametrize("name", sorted(REFUSED.keys() - {"peft_type"}))
@pytest.mark.parametrize("off", [None, False, [], {}], ids=str)
def test_a_field_that_is_off_is_no_obstacle(tmp_path: Path, name: str, off: object) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update(), **{name: off})
    assert list(read_adapter(adapter, "any").updates) == [QUERY]


@pytest.mark.parametrize("name", ["unsloth_fixed", "lora_dtype", "lorap_lr_ratio", "lorap_emb_lr", "merge_weights"])
def test_notes_of_training_tools_are_no_obstacle(tmp_path: Path, name: str) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update(), **{name: True})
    assert list(read_adapter(adapter, "any").updates) == [QUERY]


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora"])
def test_an_initialisation_that_changed_the_backbone_is_exact_when_it_was_converted(
    checkpoint: Path, tmp_path: Path, init: str
) -> None:
    trained = converted_adapter(checkpoint, tmp_path / "adapter", init)
    expected = mean_vectors(trained, checkpoint / "tokenizer.json", TEXTS)
    assert_equals_peft(checkpoint, tmp_path / "adapter")
    found = mean_vectors(adapted_by_peft(checkpoint, tmp_path / "adapter"), checkpoint / "tokenizer.json", TEXTS)
    assert distance(found, expected) <= 1e-5


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["lm_head", "q_proj"], "ensure_weight_tying": True},
        {"target_modules": ["lm_head", "q_proj"]},
        {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"], "ensure_weight_tying": True},
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [1, 2], "lm_head": [1, 2]}},
    ],
    ids=str,
)
def test_adapters_of_tables_with_tied_heads_equal_peft(tmp_path: Path, config: dict[str, Any]) -> None:
    checkpoint = make_decoder(tmp_path / "toy", "qwen2", pad_token_id=1, tie_word_embeddings=True)
    model = TrainedModel.load(checkpoint, "qwen2", "language model")
    model.adapt(tmp_path / "adapter", config)
    plan = make_plan(quick(checkpoint, tmp_path / "pack", pooling="mean", adapters={"code": tmp_path / "adapter"}))
    ids = [item.ids for item in plan.processor.process(plan.processor.items(TEXTS), "")]
    expected = np.stack([model.mean_vector(row) for row in ids])
    assert distance(graph_vectors(plan, tmp_path, ids, switchable=False), expected) <= TOLERANCE
    assert distance(TorchReference(plan).single("code", TEXTS), expected) <= TOLERANCE


# --- rows of embedding tables

ROWS = "base_model.model.embeddings.word_embeddings.token_adapter.trainable_tokens_delta"


def with_rows(folder: Path, indices: object, rows: int = 2, **config: object) -> Path:
    """An adapter by hand that replaces rows of the table of words."""
    tensors: Arrays = {**query_update(), ROWS: np.ones((rows, 32), np.float32)}
    return write_adapter(folder, tensors, trainable_token_indices=indices, **config)


@pytest.mark.parametrize("indices", [{"word_embeddings": [9, 4]}, {"embeddings.word_embeddings": [4, 9]}], ids=str)
def test_rows_of_a_table_that_is_named_are_replaced(checkpoint: Path, tmp_path: Path, indices: object) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter", trainable_token_indices=indices)
    assert_equals_peft(checkpoint, adapter)


def test_rows_of_the_table_of_positions_are_replaced(checkpoint: Path, tmp_path: Path) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter", trainable_token_indices={"position_embeddings": [3, 0]})
    assert_equals_peft(checkpoint, adapter)


def test_tables_of_many_chunks_get_their_rows(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter", trainable_token_indices=[4, 5, 7, 100, 10])
    monkeypatch.setattr("embedpack_export.arrays.CHUNK_ROWS", 5)
    assert_equals_peft(checkpoint, adapter)


WRONG_ROWS: Mapping[str, tuple[Callable[[Path], Path], str]] = {
    "no tokens": (
        lambda folder: with_rows(folder, None),
        "{file}: {rows} has rows of a table, trainable_token_indices of adapter_config.json has no tokens for it; are "
        "both from one training run?",
    ),
    "tokens of another table": (
        lambda folder: with_rows(folder, {"position_embeddings": [1, 2]}),
        "{file}: {rows} has rows of a table, trainable_token_indices of adapter_config.json has no tokens for it; are "
        "both from one training run?",
    ),
    "a token twice": (
        lambda folder: with_rows(folder, [3, 3]),
        "{file}: {rows} has rows of a table, trainable_token_indices of adapter_config.json has a token twice for it; "
        "are both from one training run?",
    ),
    "no rows": (
        lambda folder: write_adapter(folder, query_update(), trainable_token_indices=[3]),
        "{config}: trainable_token_indices has tokens, the file has no rows for them; are both from one training run?",
    ),
    "too many rows": (
        lambda folder: with_rows(folder, [3, 4], 3),
        "{file}: {rows} has the shape [3, 32], the 2 tokens of trainable_token_indices need [2, 32]",
    ),
    "a token beyond the table": (
        lambda folder: with_rows(folder, [3, 4000]),
        "{file}: {rows} replaces the row 4000 of embeddings.word_embeddings, which has 252; if the vocabulary was "
        "resized for the training, save the resized model as well (resize_token_embeddings, save_pretrained) and "
        "export that one",
    ),
    "a negative token": (
        lambda folder: with_rows(folder, {"word_embeddings": [3, -1]}),
        "{config}: Expected `int` >= 0 - at `$.trainable_token_indices[...][1]`",
    ),
}


@pytest.mark.parametrize(("make", "message"), WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_rows_that_do_not_fit_their_tokens_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    adapter = make(tmp_path / "adapter")
    names = {"file": adapter / "adapter_model.safetensors", "config": adapter / "adapter_config.json", "rows": ROWS}
    refuse(checkpoint, message.format(**names), adapters={"code": adapter})


def test_replaced_rows_are_switched(checkpoint: Path, tmp_path: Path) -> None:
    """Rows alone, which an adapter keeps exactly: other factors are rounded to float16."""
    adapter = save_adapter(checkpoint, tmp_path / "adapter", trainable_token_indices=[4, 5, 7, 100, 10])
    edit_tensors(
        adapter / "adapter_model.safetensors",
        lambda tensors: tensors.update({name: 0 * tensors[name] for name in list(tensors) if "lora_B" in name}),
    )
    planned = make_plan(quick(checkpoint, tmp_path / "pack", pooling="mean", adapters={"code": adapter}))
    ids = [item.ids for item in planned.processor.process(planned.processor.items(TEXTS), "")]
    expected = mean_vectors(adapted_by_peft(checkpoint, adapter), checkpoint / "tokenizer.json", TEXTS)
    plain = mean_vectors(load_model(checkpoint), checkpoint / "tokenizer.json", TEXTS)
    assert distance(plain, expected) > 1e-4
    assert distance(graph_vectors(planned, tmp_path, ids, switchable=True), expected) <= 1e-6


def test_rows_of_an_updated_table_cannot_be_switched(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    adapter = with_rows(tmp_path / "adapter", [3, 4])
    table = "base_model.model.embeddings.word_embeddings"
    update = {
        f"{table}.lora_embedding_A": np.ones((4, 252), np.float32),
        f"{table}.lora_embedding_B": np.ones((32, 4), np.float32),
    }
    edit_tensors(adapter / "adapter_model.safetensors", lambda tensors: tensors.update(update))
    edit_json(adapter / "adapter_config.json", target_modules=["query", "word_embeddings"])
    message = (
        f"{adapter}: replaces rows of embeddings.word_embeddings and updates it too, which cannot be switched at run "
        "time; export it merged"
    )
    refuse(checkpoint, message, adapters={"code": adapter}, adapter_modes=("switchable",))


def test_an_adapter_of_rows_alone_is_read(checkpoint: Path, tmp_path: Path) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter", trainable_token_indices=[8, 9], target_modules=["query"])
    edit_tensors(
        adapter / "adapter_model.safetensors",
        lambda tensors: [tensors.pop(name) for name in list(tensors) if "lora_" in name],
    )
    found = read_adapter(adapter, "any")
    assert not found.updates
    assert list(found.token_rows) == ["embeddings.word_embeddings"]


# --- modules that the configuration does not choose


@pytest.mark.parametrize(
    "choice",
    [
        {"target_modules": ["key"]},
        {"target_modules": r".*\.layer\.1\..*query"},
        {"target_modules": ["query"], "layers_to_transform": [1]},
        {"target_modules": ["query"], "layers_to_transform": 0, "layers_pattern": "blocks"},
        {"target_modules": ["query"], "exclude_modules": ["self.query"]},
        {"target_modules": "all-linear", "modules_to_save": ["attention"]},
    ],
    ids=str,
)
def test_updates_of_modules_that_peft_would_ignore_are_refused(tmp_path: Path, choice: dict[str, Any]) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    adapter = write_adapter(tmp_path / "adapter", query_update(), **choice)
    message = (
        f"{adapter / 'adapter_config.json'}: does not choose {QUERY}, which the file changes: are both of one run?"
    )
    refuse(checkpoint, message, adapters={"code": adapter})
