"""Causal decoders (Qwen2, Llama) against transformers: values, batches, spellings, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpack.engine.loading import open_encoder
from embedpack.engine.options import EncodeOptions
from embedpack.engine.session import GraphSession
from embedpack.errors import CheckpointError
from embedpack.inputs.batching import pad
from embedpack.pack.folder import Pack, read_pack
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import make_plan
from tests.helpers.exports import distance, edit_json, edit_tensors, exactly, pooled, quick
from tests.helpers.peft_oracle import last_hidden_states, load_model, merged_by_peft, save_adapter
from tests.helpers.tiny_decoder import Spelling, make_decoder
from tests.helpers.tiny_families import FAMILIES as TINY_FAMILIES
from tests.helpers.tiny_families import families_of

FAMILIES = families_of("decoder")
TOLERANCE = 1e-6
LENGTHS = (1, 2, 3, 17, 64, 95, 96, 128, 299, 300)
TEXTS = ("how do i reset a router?", "a", "Die Katze schläft auf dem Dach. 猫 😀", "print every label twice; " * 9)
ROWS = [np.random.default_rng(length).integers(2, 260, length) for length in LENGTHS]


@dataclass(frozen=True)
class Exported:
    """A decoder's packs with pooling last and mean, and its reference."""

    checkpoint: Path
    last: Path
    mean: Path
    reference: Any

    def graph(self, pooling: str, weights: str) -> GraphSession:
        folder = self.last if pooling == "last" else self.mean
        return GraphSession(folder / f"default-{weights}.onnx", 1)

    def expected(self, rows: Sequence[npt.NDArray[np.int64]], pooling: str) -> npt.NDArray[np.float64]:
        feeds = pad(rows, 0)
        return pooled(last_hidden_states(self.reference, **feeds), feeds["attention_mask"], pooling)


@pytest.fixture(scope="module", params=FAMILIES)
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("decoder")
    checkpoint = make_decoder(folder / "toy", request.param)
    export(quick(checkpoint, folder / "last", pooling="last"))
    export(quick(checkpoint, folder / "mean", pooling="mean"))
    return Exported(checkpoint, folder / "last", folder / "mean", load_model(checkpoint))


def vectors(session: GraphSession, rows: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
    return session.run(["sentence_embedding"], pad(rows, 0))[0]


def encoded(pack: Path, texts: Sequence[str], variant: str = "default-fp32", **options: Any) -> npt.NDArray[np.float32]:
    opened = read_pack(pack)
    encoder = open_encoder(opened, opened.manifest.variants[variant], 1)
    return encoder.run(list(encoder.processor.items(texts)), "sentence_embedding", EncodeOptions(**options))


# --- against transformers


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_fp32_equals_transformers(decoder: Exported, pooling: str) -> None:
    """Alone, in ragged batches, one token, long texts."""
    session = decoder.graph(pooling, "fp32")
    for chosen in ((0,), (4,), (7,), (7, 0, 3, 7), (1, 6, 2, 0), tuple(range(8))):
        rows = [ROWS[index] for index in chosen]
        found = vectors(session, rows)
        assert distance(found, decoder.expected(rows, pooling)) <= TOLERANCE
        np.testing.assert_allclose(np.linalg.norm(found.astype(np.float64), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_int8_is_close_to_transformers(decoder: Exported, pooling: str) -> None:
    assert distance(vectors(decoder.graph(pooling, "int8"), ROWS), decoder.expected(ROWS, pooling)) <= 0.01


def test_texts_equal_transformers(decoder: Exported) -> None:
    """With the tokenizer's own last token, which pooling takes."""
    plan = make_plan(quick(decoder.checkpoint, decoder.checkpoint.parent / "unused", pooling="last"))
    rows = [item.ids for item in plan.processor.process(plan.processor.items(TEXTS), "Query: ")]
    assert all(row[-1] == 0 for row in rows)
    found = encoded(decoder.last, TEXTS, prompt="Query: ")
    assert distance(found, decoder.expected(rows, "last")) <= TOLERANCE


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize(
    "changes",
    [
        {"rope_theta": 500.0},
        {"rms_norm_eps": 0.1},
        {"num_key_value_heads": 1},
        {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": None},
        {"num_hidden_layers": 1, "intermediate_size": 50},
        {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    ],
    ids=str,
)
def test_values_of_config_reach_the_graph(tmp_path: Path, model_type: str, changes: dict[str, Any]) -> None:
    """`rope_parameters` is how transformers 5 writes it."""
    checkpoint = make_decoder(tmp_path / "toy", model_type, **changes)
    export(quick(checkpoint, tmp_path / "pack", pooling="mean", weights=("fp32",)))
    rows = [ROWS[index] for index in (4, 0, 3)]
    found = vectors(GraphSession(tmp_path / "pack" / "default-fp32.onnx", 1), rows)
    feeds = pad(rows, 0)
    expected = pooled(last_hidden_states(load_model(checkpoint), **feeds), feeds["attention_mask"], "mean")
    assert distance(found, expected) <= TOLERANCE


def test_a_checkpoint_that_transformers_saved(tmp_path: Path, decoder: Exported) -> None:
    decoder.reference.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer.json").write_bytes((decoder.checkpoint / "tokenizer.json").read_bytes())
    export(quick(tmp_path / "saved", tmp_path / "pack", pooling="last", weights=("fp32",)))
    np.testing.assert_array_equal(encoded(tmp_path / "pack", TEXTS), encoded(decoder.last, TEXTS))


# --- a vector is its own


@pytest.mark.parametrize("weights", ["fp32", "int8"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_vector_does_not_depend_on_its_batch(decoder: Exported, pooling: str, weights: str) -> None:
    session = decoder.graph(pooling, weights)
    alone = np.concatenate([vectors(session, [row]) for row in ROWS])

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(st.lists(st.integers(0, len(ROWS) - 1), min_size=1, max_size=6), st.integers(0, 9))
    def check(chosen: list[int], surplus: int) -> None:
        feeds = pad([ROWS[index] for index in chosen], 0)
        wider = {name: np.pad(values, ((0, 0), (0, surplus))) for name, values in feeds.items()}
        (found,) = session.run(["sentence_embedding"], wider)
        assert distance(found, alone[chosen]) <= TOLERANCE

    check()


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_what_stands_in_the_padding_does_not_matter(decoder: Exported, weights: str) -> None:
    session = decoder.graph("mean", weights)
    feeds = pad(ROWS, 0)
    other = {**feeds, "input_ids": np.where(feeds["attention_mask"] == 1, feeds["input_ids"], 77)}
    (found,), (changed,) = (session.run(["sentence_embedding"], given) for given in (feeds, other))
    np.testing.assert_array_equal(found, changed)


def test_later_tokens_do_not_touch_earlier_ones(decoder: Exported) -> None:
    """Causal attention: tokens after a token do not change its vector."""
    session = decoder.graph("last", "fp32")
    long = ROWS[LENGTHS.index(128)]
    feeds = pad([long], 0)
    short = {"input_ids": feeds["input_ids"], "attention_mask": (np.arange(128) < 60).astype(np.int64)[None]}
    assert distance(session.run(["sentence_embedding"], short)[0], vectors(session, [long[:60]])) <= TOLERANCE


# --- adapters


def adapter_of(checkpoint: Path, folder: Path) -> Path:
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return save_adapter(checkpoint, folder, target_modules=modules)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_an_adapter_equals_peft_merged_and_switchable(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_decoder(tmp_path / "toy", model_type)
    adapter = adapter_of(checkpoint, tmp_path / "adapter")
    modes = ("merged", "switchable")
    export(quick(checkpoint, tmp_path / "pack", pooling="last", adapters={"code": adapter}, adapter_modes=modes))
    judge = load_model(checkpoint)
    judge.load_state_dict({name: torch_of(value) for name, value in merged_by_peft(checkpoint, adapter).items()})
    plan = make_plan(quick(checkpoint, tmp_path / "unused", pooling="last"))
    feeds = pad([item.ids for item in plan.processor.process(plan.processor.items(TEXTS), "")], 0)
    expected = pooled(last_hidden_states(judge, **feeds), feeds["attention_mask"], "last")
    assert distance(encoded(tmp_path / "pack", TEXTS, "code-fp32"), expected) <= TOLERANCE
    assert distance(encoded(tmp_path / "pack", TEXTS, "switchable-fp32", adapter="code"), expected) <= 1e-4
    assert distance(encoded(tmp_path / "pack", TEXTS, "code-int8"), expected) <= 0.01
    assert distance(encoded(tmp_path / "pack", TEXTS, "switchable-int8", adapter="code"), expected) <= 0.01


def torch_of(values: npt.NDArray[np.float32]) -> Any:
    import torch

    return torch.from_numpy(values)


# --- names of tensors


@pytest.mark.parametrize("spelling", ["model", "bare"])
@pytest.mark.parametrize("head", [False, True])
def test_heads_and_prefixes_change_nothing(tmp_path: Path, decoder: Exported, spelling: Spelling, head: bool) -> None:
    model_type = json.loads((decoder.checkpoint / "config.json").read_text())["model_type"]
    checkpoint = make_decoder(tmp_path / "toy", model_type, spelling=spelling, head=head)
    export(quick(checkpoint, tmp_path / "pack", pooling="last", weights=("fp32",)))
    np.testing.assert_array_equal(encoded(tmp_path / "pack", TEXTS), encoded(decoder.last, TEXTS))


def test_buffers_of_old_files_are_no_obstacle(tmp_path: Path) -> None:
    checkpoint = make_decoder(tmp_path / "toy", "llama")
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit_tensors(checkpoint / "model.safetensors", lambda tensors: tensors.update({name: np.ones(4, np.float32)}))
    assert export(quick(checkpoint, tmp_path / "pack", pooling="last", weights=("fp32",))).family == "llama"


def test_the_manifest_of_a_decoder(decoder: Exported) -> None:
    pack: Pack = read_pack(decoder.last)
    manifest = pack.manifest
    assert manifest.single is not None
    assert (manifest.single.pooling, manifest.text.max_tokens, manifest.image) == ("last", 512, None)
    assert (manifest.vision, manifest.multi) == ({}, None)
    # That of <|endoftext|>, where config.json names no padding.
    config = TINY_FAMILIES[manifest.family].config
    assert manifest.text.pad_token_id == config.get("pad_token_id", config["eos_token_id"])


# --- what is refused


def refuse(checkpoint: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=exactly(message)):
        export(quick(checkpoint, checkpoint.parent / "pack", pooling="last"))
    assert not (checkpoint.parent / "pack").exists()


SWITCHED_OFF = "supported: false, null; export a checkpoint without it"


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; supported: silu; export a checkpoint without it"),
        ({"num_hidden_layers": 0}, "Expected `int` >= 1 - at `$.num_hidden_layers`"),
        ({"rope_theta": "1e6"}, "Expected `float`, got `str` - at `$.rope_theta`"),
    ],
    ids=str,
)
def test_what_the_graph_does_not_do(tmp_path: Path, model_type: str, changes: dict[str, Any], reason: str) -> None:
    checkpoint = make_decoder(tmp_path / "toy", model_type)
    edit_json(checkpoint / "config.json", **changes)
    refuse(checkpoint, f"{checkpoint / 'config.json'}: {reason}")


@pytest.mark.parametrize("name", ["attention_bias", "mlp_bias"])
def test_biases_that_llama_seldom_has(tmp_path: Path, name: str) -> None:
    checkpoint = make_decoder(tmp_path / "toy", "llama")
    edit_json(checkpoint / "config.json", **{name: True})
    refuse(checkpoint, f"{checkpoint / 'config.json'}: {name} is True; {SWITCHED_OFF}")


@pytest.mark.parametrize(("heads", "size"), [(16, 4), (5, 12), (64, 1)])
def test_heads_that_the_kernel_does_not_take(tmp_path: Path, heads: int, size: int) -> None:
    checkpoint = make_decoder(tmp_path / "toy")
    edit_json(checkpoint / "config.json", num_attention_heads=heads, num_key_value_heads=1)
    refuse(checkpoint, f"config.json: head size {size}; it must be a multiple of 8, others cannot be exported")


@pytest.mark.parametrize("model_type", FAMILIES)
def test_heads_that_cannot_be_shared(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_decoder(tmp_path / "toy", model_type)
    heads = TINY_FAMILIES[model_type].config["num_attention_heads"]
    edit_json(checkpoint / "config.json", num_key_value_heads=5)
    refuse(
        checkpoint,
        f"config.json: {heads} heads cannot share 5 key and value heads; restore the config.json of the model",
    )


def test_more_key_heads_than_the_tensors_have(tmp_path: Path) -> None:
    checkpoint = make_decoder(tmp_path / "toy")
    edit_json(checkpoint / "config.json", num_key_value_heads=4)
    with pytest.raises(CheckpointError, match=r"k_proj\.\w+ has the shape \[32.*\], config\.json needs \[64"):
        export(quick(checkpoint, tmp_path / "pack", pooling="last"))


def test_a_missing_bias(tmp_path: Path) -> None:
    checkpoint = make_decoder(tmp_path / "toy")
    name = "model.layers.1.self_attn.k_proj.bias"
    edit_tensors(checkpoint / "model.safetensors", lambda tensors: tensors.pop(name))
    shown = name.removeprefix("model.")
    refuse(checkpoint, f"{checkpoint}: tensor {shown!r} is missing; is a shard or a file incomplete?")


def test_norms_of_queries_that_another_family_has(tmp_path: Path) -> None:
    checkpoint = make_decoder(tmp_path / "toy")
    name = "model.layers.1.self_attn.q_norm.weight"
    edit_tensors(checkpoint / "model.safetensors", lambda tensors: tensors.update({name: np.ones(16, np.float32)}))
    shown = name.removeprefix("model.")
    refuse(checkpoint, f"{checkpoint}: unused tensors: {shown}; is it another architecture?")


def test_pooling_has_to_be_known(tmp_path: Path) -> None:
    checkpoint = make_decoder(tmp_path / "toy")
    with pytest.raises(CheckpointError, match=r"the pooling of the tokens is unknown.*--pooling mean\|cls\|last"):
        export(quick(checkpoint, tmp_path / "pack"))
