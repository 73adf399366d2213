"""Encoders with rotary positions (ModernBERT, GTE, NomicBERT, EuroBERT) against transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from embedpack import Embedder
from embedpack.engine.session import GraphSession
from embedpack.errors import CheckpointError, EmbedpackError
from embedpack.inputs.batching import pad
from embedpack.storage.safetensors import write_safetensors
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import make_plan
from tests.helpers.exports import (
    Arrays,
    distance,
    edit_json,
    edit_tensors,
    pooled,
    quick,
    read_tensors,
    write_adapter,
)
from tests.helpers.fp32_graph import write_fp32_graph
from tests.helpers.older_spellings import older_gte, older_nomic
from tests.helpers.peft_oracle import last_hidden_states, load_model, save_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_families import families_of

FAMILIES = families_of("rotary encoder")
TOLERANCE = 1e-6
# Beyond the windows of 4 tokens on each side, and around the length of one block.
LENGTHS = (1, 2, 5, 9, 40, 300, 1024, 1025, 1100)
ROWS = [np.random.default_rng(length).integers(4, 200, length) for length in LENGTHS]
TEXTS = ("how do i reset a router ?", "list files", "the cat sleeps on a warm roof in the rain ; " * 2)
OLDER: dict[str, Callable[[Path], None]] = {"gte": older_gte, "nomic_bert": older_nomic}


@dataclass(frozen=True)
class Exported:
    """A pack with its checkpoint and its reference."""

    checkpoint: Path
    pack: Path
    reference: Any

    def graph(self, weights: str = "fp32") -> GraphSession:
        return GraphSession(self.pack / f"default-{weights}.onnx", 1)

    def expected(self, rows: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
        return expected_vectors(self.reference, rows)


@pytest.fixture(scope="module", params=FAMILIES)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("encoder")
    checkpoint = make_checkpoint(folder / "toy", request.param)
    export(quick(checkpoint, folder / "pack"))
    return Exported(checkpoint, folder / "pack", load_model(checkpoint))


def vectors(session: GraphSession, rows: Sequence[npt.NDArray[np.int64]], surplus: int = 0) -> npt.NDArray[np.float32]:
    feeds = {name: np.pad(values, ((0, 0), (0, surplus))) for name, values in pad(rows, 0).items()}
    return session.run(["sentence_embedding"], feeds)[0]


def expected_vectors(model: Any, rows: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
    feeds = pad(rows, 0)
    return pooled(last_hidden_states(model, **feeds), feeds["attention_mask"], "mean")


def fp32_vectors(checkpoint: Path, rows: Sequence[npt.NDArray[np.int64]], **options: Any) -> npt.NDArray[np.float32]:
    """Vectors of the fp32 graph of a checkpoint."""
    graph = write_fp32_graph(quick(checkpoint, checkpoint.parent / f"{checkpoint.name}-graph", **options))
    return vectors(GraphSession(graph, 1), rows)


# --- against transformers


@pytest.mark.parametrize("chosen", [(0,), (3,), (4, 0, 2, 3), (5, 1), (6, 4), (7,), (8, 6, 5)], ids=str)
def test_fp32_equals_transformers(encoder: Exported, chosen: tuple[int, ...]) -> None:
    """Alone and in ragged batches, with a text of one token, of one block and of many."""
    rows = [ROWS[index] for index in chosen]
    found = vectors(encoder.graph(), rows)
    assert distance(found, encoder.expected(rows)) <= TOLERANCE
    np.testing.assert_allclose(np.linalg.norm(found.astype(np.float64), axis=1), 1, atol=1e-6)


def test_int8_is_close_to_transformers(encoder: Exported) -> None:
    rows = ROWS[2:6]
    assert distance(vectors(encoder.graph("int8"), rows), encoder.expected(rows)) <= 0.01


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_a_vector_does_not_depend_on_its_batch(encoder: Exported, weights: str) -> None:
    session = encoder.graph(weights)
    alone = np.concatenate([vectors(session, [row]) for row in ROWS])

    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(st.lists(st.integers(0, len(ROWS) - 1), min_size=1, max_size=4), st.integers(0, 9))
    def check(chosen: list[int], surplus: int) -> None:
        assert distance(vectors(session, [ROWS[index] for index in chosen], surplus), alone[chosen]) <= TOLERANCE

    check()


def test_the_ids_of_padding_do_not_matter(encoder: Exported) -> None:
    feeds = pad([ROWS[7], ROWS[4]], 0)
    other = {**feeds, "input_ids": np.where(feeds["attention_mask"] == 1, feeds["input_ids"], 77)}
    found, changed = (encoder.graph().run(["sentence_embedding"], batch)[0] for batch in (feeds, other))
    np.testing.assert_array_equal(found, changed)


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("modernbert", {"norm_bias": True, "attention_bias": True, "mlp_bias": True}),
        ("modernbert", {"norm_eps": 0.1, "hidden_activation": "gelu_new"}),
        ("modernbert", {"local_attention": 2, "global_attn_every_n_layers": 2}),
        ("modernbert", {"local_attention": 5}),
        ("modernbert", {"global_rope_theta": 300.0, "local_rope_theta": 20.0}),
        (
            "modernbert",
            {
                "layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"],
                "rope_parameters": {
                    "full_attention": {"rope_type": "default", "rope_theta": 500.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
                },
            },
        ),
        ("gte", {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}, "layer_norm_eps": 0.1}),
        ("gte", {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 300.0}}),
        ("gte", {"rope_parameters": None, "hidden_act": "gelu_pytorch_tanh"}),
        ("gte", {"type_vocab_size": 0}),
        ("nomic_bert", {"rope_parameters": None, "type_vocab_size": 1, "layer_norm_eps": 0.1}),
        ("eurobert", {"attention_bias": True, "mlp_bias": True, "rms_norm_eps": 0.1}),
        ("eurobert", {"num_key_value_heads": None, "rope_theta": 500.0}),
        ("eurobert", {"num_key_value_heads": 1, "max_position_embeddings": 512}),
    ],
    ids=str,
)
def test_values_of_config_reach_the_graph(tmp_path: Path, model_type: str, changes: dict[str, Any]) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type, **changes)
    edit_json(checkpoint / "config.json", **{key: value for key, value in changes.items() if value is None})
    rows, plain = [ROWS[index] for index in (4, 0, 5)], make_checkpoint(tmp_path / "plain", model_type)
    assert distance(fp32_vectors(checkpoint, rows), expected_vectors(load_model(checkpoint), rows)) <= TOLERANCE
    if read_tensors(checkpoint / "model.safetensors").keys() == read_tensors(plain / "model.safetensors").keys():
        assert (
            distance(expected_vectors(load_model(plain), rows), expected_vectors(load_model(checkpoint), rows)) > 1e-9
        )


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_checkpoint_that_transformers_saved(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type)
    load_model(checkpoint).save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer.json").write_bytes((checkpoint / "tokenizer.json").read_bytes())
    rows = [ROWS[4]]
    found = fp32_vectors(tmp_path / "saved", rows, pooling="mean")
    np.testing.assert_array_equal(found, fp32_vectors(checkpoint, rows))


def test_texts_equal_sentence_transformers(encoder: Exported) -> None:
    model = SentenceTransformer(str(encoder.checkpoint), device="cpu")
    found = Embedder(encoder.pack, weights="fp32", threads=1).encode(list(TEXTS), prompt_name="query").decode()
    assert distance(found, model.encode(list(TEXTS), prompt_name="query")) <= TOLERANCE


# --- the spelling of the older code


@pytest.mark.parametrize("model_type", OLDER)
def test_the_older_spelling_equals_transformers(tmp_path: Path, model_type: str) -> None:
    """Compared with the torch reference by the export, and with transformers' model here."""
    checkpoint = make_checkpoint(tmp_path / "toy", model_type)
    model = load_model(checkpoint)
    if model_type == "gte":
        # Type ntk, factor 8: base 20000 x 8, frequencies divided by 8^(2 / 8).
        exponents = torch.arange(0, 8, 2).float() / 8
        model.rotary_emb.inv_freq = 1 / (160_000.0**exponents) / 8 ** (2 / 8)
    OLDER[model_type](checkpoint)
    rows = [ROWS[index] for index in (5, 0, 3)]
    export(quick(checkpoint, tmp_path / "pack", weights=("fp32",), reference="torch"))
    found = vectors(GraphSession(tmp_path / "pack" / "default-fp32.onnx", 1), rows)
    assert distance(found, expected_vectors(model, rows)) <= TOLERANCE


def test_the_older_code_under_the_newer_model_type(tmp_path: Path) -> None:
    """As in snowflake-arctic-embed-m-v2.0, with the names of the older code."""
    older, renamed = make_checkpoint(tmp_path / "older", "gte"), make_checkpoint(tmp_path / "renamed", "gte")
    code = {"AutoConfig": "configuration_gte.GteConfig", "AutoModel": "modeling_gte.GteModel"}
    for checkpoint in (older, renamed):
        older_gte(checkpoint)
    edit_json(renamed / "config.json", model_type="gte", architectures=["GteModel"], auto_map=code)
    np.testing.assert_array_equal(fp32_vectors(renamed, ROWS[3:5]), fp32_vectors(older, ROWS[3:5]))


def test_both_spellings_of_nomic_together(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "nomic", "nomic_bert")
    newer, expected = (
        json.loads((checkpoint / "config.json").read_text()),
        expected_vectors(load_model(checkpoint), ROWS[3:4]),
    )
    older_nomic(checkpoint)
    edit_json(checkpoint / "config.json", **newer)
    assert distance(fp32_vectors(checkpoint, ROWS[3:4]), expected) <= TOLERANCE
    edit_json(checkpoint / "config.json", n_embd=64)
    with pytest.raises(CheckpointError, match=r"hidden_size is 32, n_embd is 64; both are the same value"):
        make_plan(quick(checkpoint, tmp_path / "unused"))


# --- adapters of fused layers; tests/export/sources/test_peft_options.py has those of transformers' classes

FUSED = {"modernbert": ("attn.Wqkv", "mlp.Wi"), "gte": ("qkv_proj", "up_gate_proj"), "nomic_bert": ("Wqkv", "fc11")}


def respell(checkpoint: Path, model_type: str) -> Path:
    if model_type in OLDER:
        OLDER[model_type](checkpoint)
    return checkpoint


@pytest.mark.parametrize("model_type", FUSED)
def test_an_adapter_of_fused_layers_is_added_to_their_rows(tmp_path: Path, model_type: str) -> None:
    """Equal to a checkpoint whose fused tensors have the products of the factors added."""
    checkpoint = respell(make_checkpoint(tmp_path / "toy", model_type), model_type)
    merged = respell(make_checkpoint(tmp_path / "merged", model_type), model_type)
    tensors, rng = read_tensors(merged / "model.safetensors"), np.random.default_rng(3)
    factors: Arrays = {}
    for name in [name for name in tensors if name.endswith(tuple(f"{ending}.weight" for ending in FUSED[model_type]))]:
        outputs, inputs = tensors[name].shape
        a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, inputs), (outputs, 2)))
        key = f"base_model.model.{name.removesuffix('.weight')}"
        factors |= {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}
        tensors[name] = tensors[name] + 2 * b @ a
    assert len(factors) >= 8
    write_safetensors(merged / "model.safetensors", tensors, {"format": "pt"})
    adapter = write_adapter(tmp_path / "adapter", factors, r=2, lora_alpha=4, target_modules=list(FUSED[model_type]))
    expected = fp32_vectors(merged, ROWS[2:5])
    assert distance(fp32_vectors(checkpoint, ROWS[2:5], adapters={"code": adapter}), expected) <= TOLERANCE


@pytest.mark.parametrize("model_type", OLDER)
def test_an_adapter_of_the_class_fits_a_checkpoint_of_the_older_code(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type)
    adapter = save_adapter(checkpoint, tmp_path / "adapter", target_modules=["q_proj", "v_proj", "up_proj", "o_proj"])
    older = make_checkpoint(tmp_path / "older", model_type)
    OLDER[model_type](older)
    edit_json(older / "config.json", rope_scaling=None)
    expected = fp32_vectors(checkpoint, ROWS[2:5], adapters={"code": adapter})
    found = fp32_vectors(older, ROWS[2:5], adapters={"code": adapter})
    np.testing.assert_array_equal(found, expected)


# --- what is refused

FUSED_OR_PLAIN = {
    "modernbert": "layers.1.attn.Wqkv", "gte": "layers.1.self_attn.k_proj", "nomic_bert": "layers.1.mlp.up_proj",
    "eurobert": "layers.1.self_attn.k_proj",
}  # fmt: skip


def refused(checkpoint: Path, message: str) -> None:
    with pytest.raises(EmbedpackError, match=re.escape(message)):
        write_fp32_graph(quick(checkpoint, checkpoint.parent / "graph"))


@pytest.mark.parametrize(("model_type", "module"), FUSED_OR_PLAIN.items())
def test_missing_misshapen_and_unused_tensors(tmp_path: Path, model_type: str, module: str) -> None:
    name = f"{module}.weight"
    changes: dict[str, Callable[[Arrays], object]] = {
        "is missing; is a shard or a file incomplete?": lambda tensors: tensors.pop(name),
        "has the shape": lambda tensors: tensors.update({name: tensors[name][:, :-1]}),
        "unused tensors: layers.1.extra.weight; is it another architecture?": lambda tensors: tensors.update(
            {"layers.1.extra.weight": tensors[name]}
        ),
    }
    for index, (message, change) in enumerate(changes.items()):
        checkpoint = make_checkpoint(tmp_path / str(index) / "toy", model_type)
        edit_tensors(checkpoint / "model.safetensors", change)
        refused(checkpoint, message)


def test_rows_that_are_no_equal_blocks(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", "modernbert")
    name = "layers.0.attn.Wqkv.weight"
    edit_tensors(checkpoint / "model.safetensors", lambda tensors: tensors.update({name: tensors[name][:-1]}))
    refused(checkpoint, f"{name} has the shape [95, 32], whose rows are no 3 equal blocks")


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("modernbert", {"layer_types": ["full_attention"]}, "layer_types has 1 entries, num_hidden_layers is 4"),
        ("modernbert", {"layer_types": ["sliding"] * 4}, "Invalid enum value 'sliding'"),
        ("modernbert", {"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling is {'type': 'linear'"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "supported: for full_attention"),
        ("modernbert", {"hidden_activation": "silu"}, "hidden_activation is 'silu'; supported: gelu"),
        ("gte", {"position_embedding_type": "absolute"}, "position_embedding_type is 'absolute'; supported: rope"),
        ("gte", {"layer_norm_type": "rms_norm"}, "layer_norm_type is 'rms_norm'"),
        ("gte", {"logn_attention_scale": True}, "logn_attention_scale is True"),
        ("gte", {"rope_scaling": {"type": "ntk", "factor": 2, "mixed_b": 0.5}}, "and no other key"),
        ("gte", {"auto_map": {"AutoModel": "modeling.OtherModel"}}, "AutoModel is 'modeling.OtherModel'"),
        ("nomic_bert", {"rotary_emb_fraction": 0.5}, "rotary_emb_fraction is 0.5; supported: 1"),
        ("nomic_bert", {"rotary_scaling_factor": 2}, "rotary_scaling_factor is 2"),
        ("nomic_bert", {"prenorm": True}, "prenorm is True"),
        ("nomic_bert", {"num_experts": 8}, "unknown key 'num_experts'"),
        ("nomic_bert", {"head_dim": 16}, "head_dim is 16; supported: 8"),
        ("eurobert", {"head_dim": 16}, "head_dim is 16; supported: 8"),
        ("eurobert", {"num_key_value_heads": 3}, "4 heads cannot share 3 key and value heads"),
        ("eurobert", {"num_attention_heads": 8, "num_key_value_heads": 8}, "head size 4; it must be a multiple of 8"),
        ("eurobert", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; supported: silu"),
    ],
    ids=str,
)
def test_unsupported_values_are_refused(tmp_path: Path, model_type: str, changes: dict[str, Any], message: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type)
    edit_json(checkpoint / "config.json", **changes)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        make_plan(quick(checkpoint, tmp_path / "unused"))


def test_the_older_gte_needs_its_base(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", "gte")
    older_gte(checkpoint)
    edit_json(checkpoint / "config.json", rope_theta=None)
    with pytest.raises(CheckpointError, match=r"rope_theta is missing; restore the config\.json"):
        make_plan(quick(checkpoint, tmp_path / "unused"))
