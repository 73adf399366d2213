"""jina-embeddings-v3 against transformers: every task, prompt and truncation in both modes, and what is refused."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedpack import Embedder, InputError, similarity
from embedpack.cli.main import main
from embedpack.errors import CheckpointError
from embedpack.pack.folder import read_pack
from embedpack.pack.strict import AdapterMode
from embedpack.server.tasks import choose_task, task_names
from embedpack.vectors.codes import PRECISIONS, Precision
from embedpack_export.families import families, find_family
from embedpack_export.pipeline import export
from embedpack_export.planning.tasks import TaskPlan
from embedpack_export.reference.torch.own_reading import open_reading
from embedpack_export.sources.checkpoint import read_checkpoint
from tests.helpers.exports import Arrays, calibration_file, distance, edit_json, edit_tensors, exactly, quick
from tests.helpers.fp32_graph import write_fp32_graph
from tests.helpers.peft_oracle import last_hidden_states, load_model, mean_vectors
from tests.helpers.plans import plan, refuse
from tests.helpers.tiny_jina_v3 import (
    CONFIG,
    HIDDEN,
    INSTRUCTIONS,
    LAYERS,
    PARTS,
    RANK,
    TASKS,
    as_transformers,
    make_jina_v3,
)

FAMILY, FILE, BASE = "jina_embeddings_v3", "model.safetensors", "base"
ALL = (*TASKS, BASE)
MODES: tuple[AdapterMode, ...] = ("merged", "switchable")
TOLERANCE = 1e-6
TRUNCATIONS = (32, 48, HIDDEN)
TEXTS = ("find the cat on a roof", "a", "  white space around \n", "Stra\u00dfe? 42% " * 30)
# Prompt names and prefixes of each task; None: a call without one, which has the instruction of the task.
SIDES = {"retrieval.query": "query", "retrieval.passage": "passage"}
TABLE, FUSED = "roberta.embeddings.word_embeddings", "roberta.encoder.layers.1.mixer.Wqkv"


def prompts(task: str) -> dict[str | None, str]:
    instruction = INSTRUCTIONS.get(task, "")
    return {None: instruction, "": "", **({SIDES[task]: instruction} if task in SIDES else {})}


@dataclass(frozen=True)
class Case:
    """A checkpoint with its fp32 pack of both adapter modes, and transformers' model of each task."""

    checkpoint: Path
    pack: Path
    models: dict[str, Any]

    def expected(self, task: str, prefix: str) -> npt.NDArray[np.float64]:
        """Means of the hidden states, prompt and special tokens included; they have no length of 1."""
        texts = [prefix + text.strip() for text in TEXTS]
        return mean_vectors(self.models[task], self.checkpoint / "tokenizer.json", texts)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("v3")
    checkpoint = make_jina_v3(folder / "toy")
    export(quick(checkpoint, folder / "pack", weights=("fp32",), adapter_modes=MODES))
    models = {
        task: load_model(as_transformers(checkpoint, folder / task, None if task == BASE else task)) for task in ALL
    }
    return Case(checkpoint, folder / "pack", models)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint to copy and damage."""
    return make_jina_v3(tmp_path_factory.mktemp("plain") / "toy")


@pytest.fixture
def copied(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "toy"))


# --- against transformers


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", ALL)
def test_every_prompt_and_truncation_equals_transformers(case: Case, task: str, mode: AdapterMode) -> None:
    with Embedder(case.pack, task=task, weights="fp32", adapters=mode, threads=1) as model:
        for name, prefix in prompts(task).items():
            expected = case.expected(task, prefix)
            for size in TRUNCATIONS:
                found = model.encode(list(TEXTS), task=task, prompt_name=name, truncate_dim=size).decode()
                np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
                assert distance(found, expected[:, :size]) <= TOLERANCE, (name, size)


def test_tasks_and_prompts_have_vectors_of_their_own(case: Case) -> None:
    """Else a wrong task or prompt would be equal to transformers too."""
    vectors = [case.expected(task, prefix) for task in ALL for prefix in set(prompts(task).values())]
    pairs = [(one, other) for index, one in enumerate(vectors) for other in vectors[:index]]
    assert len(vectors) == len(ALL) + len(SIDES)
    assert min(distance(one, other) for one, other in pairs) > 100 * TOLERANCE


@pytest.mark.parametrize("mode", MODES)
def test_a_call_without_a_task_is_one_without_adapter_and_prompt(case: Case, mode: AdapterMode) -> None:
    with Embedder(case.pack, weights="fp32", adapters=mode, threads=1) as model:
        found = model.encode(list(TEXTS)).decode()
        np.testing.assert_array_equal(found, model.encode(list(TEXTS), task=BASE).decode())
    assert distance(found, case.expected(BASE, "")) <= TOLERANCE


@pytest.mark.parametrize("mode", MODES)
def test_a_vector_does_not_depend_on_its_batch(case: Case, mode: AdapterMode) -> None:
    with Embedder(case.pack, task="separation", weights="fp32", adapters=mode, threads=1) as model:
        alone = np.concatenate([model.encode([text], task="separation").decode() for text in TEXTS])

        @settings(max_examples=10, deadline=None, derandomize=True)
        @given(st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=6))
        def check(chosen: list[int]) -> None:
            found = model.encode([TEXTS[index] for index in chosen], task="separation").decode()
            assert distance(found, alone[chosen]) <= TOLERANCE

        check()


# --- spaces


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_queries_and_passages_compare(case: Case, mode: AdapterMode, precision: Precision) -> None:
    encoded = {}
    for task in SIDES:
        with Embedder(case.pack, task=task, weights="fp32", adapters=mode, threads=1) as model:
            encoded[task] = (
                model.encode(list(TEXTS), task=task), model.encode(list(TEXTS), task=task, precision=precision)
            )  # fmt: skip
    (query, coded), (_, documents) = encoded.values()
    assert query.space == coded.space == documents.space
    assert query.space.split("/")[1] == "retrieval"
    np.testing.assert_allclose(similarity(query, documents), query.decode() @ documents.decode().T, atol=2e-3)
    assert similarity(coded, documents).shape == (len(TEXTS), len(TEXTS))


def test_other_tasks_do_not_compare(case: Case) -> None:
    with Embedder(case.pack, weights="fp32", adapters="switchable", threads=1) as model:
        documents = model.encode(["a cat"], task="retrieval.passage")
        for task in (BASE, "text-matching"):
            with pytest.raises(InputError, match=f"toy/{task}/"):
                similarity(model.encode(["a cat"], task=task), documents)


# --- parts of documents, and the server


@pytest.mark.parametrize("mode", MODES)
def test_chunks_have_the_means_of_their_tokens_in_one_run(case: Case, mode: AdapterMode) -> None:
    """The first has the begin token and the instruction too, the last the end token."""
    task, chunks = "retrieval.passage", ["the cat on a roof", "find a query", "a roof"]
    encode = Tokenizer.from_file(str(case.checkpoint / "tokenizer.json")).encode
    starts = [INSTRUCTIONS[task] + " ".join(chunks[:count]) for count in (1, 2, 3)]
    # Words are tokenized alone, so the tokens of each beginning are those of the whole, but for the end token.
    *ends, last = [len(encode(text).ids) - 1 for text in starts]
    ids = np.asarray([encode(starts[-1]).ids], np.int64)
    states = last_hidden_states(case.models[task], ids, np.ones_like(ids))[0].astype(np.float64)
    bounds = [0, *ends, last + 1]
    expected = [states[start:stop].mean(0) for start, stop in itertools.pairwise(bounds)]
    with Embedder(case.pack, task=task, weights="fp32", adapters=mode, threads=1) as model:
        for size in (32, HIDDEN):
            found = model.encode_chunks(chunks, task=task, truncate_dim=size).decode()
            assert distance(found, np.stack(expected)[:, :size]) <= TOLERANCE


def test_requests_name_tasks_as_in_the_hosted_api(case: Case) -> None:
    manifest = read_pack(case.pack).manifest
    names = task_names(manifest.tasks)
    for task in (*TASKS, None):
        found = choose_task(names, task, manifest.unnamed_task)
        assert (found.task, found.prompt.prefix) == (task or BASE, INSTRUCTIONS.get(task or BASE, ""))
    assert [name for name in names if name.startswith("retrieval")] == list(SIDES)


# --- packs


def test_the_plan(case: Case) -> None:
    planned = plan(case.checkpoint)
    assert (planned.family, list(planned.tasks)) == (FAMILY, list(ALL))
    assert (planned.pooling, planned.dimensions, planned.truncate_dims) == ("mean", HIDDEN, TRUNCATIONS)
    assert planned.max_tokens == CONFIG["max_position_embeddings"]
    for task, found in planned.tasks.items():
        side = SIDES.get(task)
        assert dict(found.prompts) == ({} if side is None else {side: INSTRUCTIONS[task]})
        assert found.default_prompt_name == side
    assert planned.tasks_by_space == {
        "retrieval": list(SIDES),
        **{task: [task] for task in ("separation", "classification", "text-matching", BASE)},
    }
    manifest = read_pack(case.pack).manifest
    assert (manifest.default_task, manifest.text.strip, manifest.late_chunking) == (BASE, True, True)


def test_another_name_of_the_task_without_an_adapter(plain: Path) -> None:
    """It stays the one of calls that name none, and has no prompts of others."""
    planned = plan(plain, base_task="general")
    assert list(planned.tasks) == [*TASKS, "general"]
    assert (planned.model.default_task, planned.tasks["general"]) == ("general", TaskPlan(None, {}, None, "general"))
    assert plan(plain, base_task="general", tasks=("general",)).model.default_task == "general"
    with pytest.raises(CheckpointError, match=r"unknown task 'base'; known: .*, general"):
        plan(plain, base_task="general", tasks=("base",))


def test_several_tasks_are_switchable_by_default_and_one_is_merged(case: Case) -> None:
    assert plan(case.checkpoint).adapter_modes == ("switchable",)
    assert plan(case.checkpoint, adapter_modes=("merged",)).adapter_modes == ("merged",)
    for task in ALL:
        assert plan(case.checkpoint, tasks=(task,)).adapter_modes == ("merged",)


def test_the_command_exports_a_switchable_pack_by_default(plain: Path, tmp_path: Path) -> None:
    tasks = ["--task", "separation", "--task", BASE, "--calibrate", str(calibration_file(tmp_path))]
    given = ["export", str(plain), "-o", str(tmp_path / "pack"), "--weights", "fp32", "--reference", "graph"]
    assert main([*given, *tasks]) == 0
    manifest = read_pack(tmp_path / "pack").manifest
    assert (list(manifest.variants), list(manifest.tasks)) == (["switchable-fp32"], ["separation", BASE])
    assert manifest.export.settings["adapter_modes"] == ["switchable"]


def test_the_embedding_table_is_stored_once(case: Case) -> None:
    """Six tasks, each merged and all switchable."""
    table = read_checkpoint(case.checkpoint).tensors[f"{TABLE}{PARTS}.original"].raw().tobytes()
    found = [path.read_bytes().count(table) for path in case.pack.rglob("*") if path.is_file()]
    assert sum(found) == 1


def test_the_export_compares_itself_with_torch(plain: Path, tmp_path: Path) -> None:
    """With unmerged adapters, and the token ids of transformers."""
    tasks = ("retrieval.query", "text-matching", BASE)
    manifest = export(quick(plain, tmp_path / "pack", tasks=tasks, reference="torch"))
    assert list(manifest.variants) == ["switchable-fp32", "switchable-int8"]
    for task in tasks:
        model = load_model(as_transformers(plain, tmp_path / task, None if task == BASE else task))
        expected = Case(plain, tmp_path / "pack", {task: model}).expected(task, INSTRUCTIONS.get(task, ""))
        for weights, bound in (("fp32", TOLERANCE), ("int8", 0.01)):
            found = Embedder(tmp_path / "pack", weights=weights, threads=1).encode(list(TEXTS), task=task).decode()
            assert distance(found, expected) <= bound


def test_white_space_around_a_text_is_read_by_nobody(copied: Path) -> None:
    """With a tokenizer for which it is a token."""
    path = copied / "tokenizer.json"
    spaces = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    path.write_text(json.dumps({**json.loads(path.read_text()), "pre_tokenizer": spaces}))
    edit_json(copied / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    planned = plan(copied)
    reading, processor = open_reading(planned, "retrieval.query"), planned.processor
    plain, spaced = "the cat", "  the cat \n"
    expected = Tokenizer.from_file(str(path)).encode(f"find {plain}").ids
    for text in (plain, spaced):
        assert reading.ids(text, "find ").tolist() == expected
        assert processor.process(processor.items([text]), "find ")[0].ids.tolist() == expected
    assert Tokenizer.from_file(str(path)).encode(f"find {spaced}").ids != expected


def test_files_of_the_model_alone_are_enough(copied: Path) -> None:
    before = plan(copied)
    for name in ("modules.json", "config_sentence_transformers.json"):
        (copied / name).unlink()
    after = plan(copied)
    assert (after.pooling, dict(after.tasks["retrieval.query"].prompts)) == (
        before.pooling,
        dict(before.tasks["retrieval.query"].prompts),
    )


# --- claims


def names_of_claims(folder: Path) -> list[str]:
    checkpoint = read_checkpoint(folder)
    return [family.name for family in families().values() if family.claims(checkpoint)]


@pytest.mark.parametrize("key", ["lora_adaptations", "task_instructions", "rotary_emb_base"])
def test_a_checkpoint_without_a_key_is_claimed_all_the_same(copied: Path, key: str) -> None:
    edit_json(copied / "config.json", **{key: None})
    assert names_of_claims(copied) == [FAMILY]


def test_keys_or_tensors_alone_are_enough(copied: Path) -> None:
    checkpoint = read_checkpoint(copied)
    assert find_family(replace(checkpoint, tensors={})).name == FAMILY
    own = ("lora_adaptations", "task_instructions")
    others = {key: value for key, value in checkpoint.config.items() if key not in own}
    assert find_family(replace(checkpoint, config=others)).name == FAMILY


def test_a_checkpoint_that_the_code_has_saved(copied: Path) -> None:
    """It states the model type of XLM-RoBERTa, whose positions are absolute."""
    edit_json(copied / "config.json", model_type="xlm-roberta")
    assert names_of_claims(copied) == [FAMILY]
    assert plan(copied).family == FAMILY


def test_a_checkpoint_of_transformers_is_refused(copied: Path) -> None:
    edit_json(copied / "config.json", model_type=FAMILY)
    assert names_of_claims(copied) == [FAMILY]
    refuse(
        copied,
        f"{copied / 'config.json'}: model_type is 'jina_embeddings_v3', the form of transformers, whose weights have "
        "no adapters; export jinaai/jina-embeddings-v3, which has the same weights with all adapters",
    )


# --- what is refused


NEEDED = (
    "rotary_emb_base",
    "matryoshka_dimensions",
    "lora_adaptations",
    "lora_rank",
    "lora_alpha",
    "task_instructions",
    "position_embedding_type",
    "hidden_size",
    "max_position_embeddings",
)


@pytest.mark.parametrize("key", NEEDED)
def test_a_configuration_without_a_needed_key(copied: Path, key: str) -> None:
    edit_json(copied / "config.json", **{key: None})
    refuse(copied, f"{copied / 'config.json'}: Object missing required field `{key}`")


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"emb_pooler": "cls"}, "emb_pooler is 'cls'; supported: null; the model has mean pooling; export a checkpoint"),
    ({"truncate_dim": 32}, "truncate_dim is 32; supported: null; calls choose a truncation; remove it"),
    ({"position_embedding_type": "absolute"}, "position_embedding_type is 'absolute'; supported: rotary; "),
    ({"matryoshka_dims": [32]}, "matryoshka_dims is [32]; supported: null; truncations are in matryoshka_dimensions"),
    ({"rotary_emb_bases": 1e4}, "unknown key 'rotary_emb_bases' with the value 10000.0; did you mean"),
    ({"lora_alpha": 0}, "Expected `float` > 0.0 - at `$.lora_alpha`"),
    ({"lora_rank": 0}, "Expected `int` >= 1 - at `$.lora_rank`"),
    ({"lora_adaptations": []}, "Expected `array` of length >= 1 - at `$.lora_adaptations`"),
    ({"lora_adaptations": [*TASKS[:-1], "separation"]}, "lora_adaptations are retrieval.query, retrieval.passage, sep"),
    ({"task_instructions": {**INSTRUCTIONS, "code": ""}}, "lora_adaptations are retrieval.query, retrieval.passage, s"),
    ({"auto_map": {"AutoModel": "modeling_other.Other"}}, "auto_map is {'AutoModel': 'modeling_other.Other'}; "),
)


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=str)
def test_a_configuration_of_another_model(copied: Path, changes: dict[str, Any], message: str) -> None:
    edit_json(copied / "config.json", **changes)
    with pytest.raises(CheckpointError) as caught:
        plan(copied)
    assert str(caught.value).startswith(f"{copied / 'config.json'}: {message}")


def test_instructions_of_other_tasks_than_the_adapters(copied: Path) -> None:
    edit_json(copied / "config.json", task_instructions={task: "" for task in TASKS[1:]})
    refuse(
        copied,
        f"{copied / 'config.json'}: lora_adaptations are {', '.join(TASKS)}, task_instructions has "
        f"{', '.join(TASKS[1:])}; each task needs one adapter and one instruction: restore the config.json of "
        "the model",
    )


def test_pooling_of_the_files_that_is_not_that_of_the_model(copied: Path) -> None:
    path = copied / "1_Pooling/config.json"
    edit_json(path, pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    with pytest.raises(CheckpointError, match=exactly(
        f"{copied / 'modules.json'}: has cls pooling, the family of this model has mean; pass --pooling"
    )):  # fmt: skip
        plan(copied)
    assert plan(copied, pooling="cls").pooling == "cls"


Edit = Callable[[Arrays], object]


def drop(*names: str) -> Edit:
    return lambda tensors: [tensors.pop(name) for name in names]


def change(name: str, values: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], as_name: str = "") -> Edit:
    return lambda tensors: tensors.update({as_name or name: values(tensors[name])})


A, B = f"{FUSED}{PARTS}.0.lora_A", f"{FUSED}{PARTS}.0.lora_B"
ADAPTERS: dict[str, tuple[Edit, str]] = {
    "four adapters": (
        change(A, lambda values: values[:-1]),
        f"{{file}}: {A} has the shape [4, {RANK}, {HIDDEN}], not [5, ., .] for the tasks {', '.join(TASKS)} of "
        "config.json; are both of one model?",
    ),
    "an extra slice": (
        change(B, lambda values: np.concatenate([values, values[:1]])),
        f"{{file}}: {B} has the shape [6, {3 * HIDDEN}, {RANK}], not [5, ., .] for the tasks {', '.join(TASKS)} of "
        "config.json; are both of one model?",
    ),
    "half a pair": (
        drop(B),
        f"{{file}}: {A} is half of an adapter, the other factor is missing; download the checkpoint again",
    ),
    "another rank": (
        change(A, lambda values: values[:, :-1]),
        f"{{file}}: {A}[0] [{RANK - 1}, {HIDDEN}] and {B}[0] [{3 * HIDDEN}, {RANK}] are no factors of rank {RANK}, "
        "which config.json has; are both of one model?",
    ),
    "a module without adapters": (
        drop(A, B),
        f"{{folder}}: the adapter of 'retrieval.query' changes {4 * LAYERS + 1} modules, not all {4 * LAYERS + 2}; "
        "layers.1.self_attn.Wqkv is missing: is the file complete?",
    ),
}


@pytest.mark.parametrize(("edit", "message"), ADAPTERS.values(), ids=ADAPTERS)
def test_adapters_that_are_incomplete_or_too_many(copied: Path, edit: Edit, message: str) -> None:
    edit_tensors(copied / FILE, edit)
    refuse(copied, message.format(file=copied / FILE, folder=copied))


ORIGINAL = f"{FUSED}{PARTS}.original"
TENSORS: dict[str, tuple[Edit, str]] = {
    "missing": (drop(ORIGINAL), "tensor 'layers.1.self_attn.q_proj.weight' is missing; is a shard or a file"),
    "misshapen": (change(ORIGINAL, lambda values: values[:-3]), " has the shape [63, 64], config.json needs [64, 64]"),
    "no blocks": (change(ORIGINAL, lambda values: values[:-1]), ORIGINAL),
    "misshapen table": (
        change(f"{TABLE}{PARTS}.original", lambda values: values[:-1]), "has the shape [105, 64], config.json needs",
    ),
    "misshapen factor of the table": (
        change(f"{TABLE}{PARTS}.0.lora_A", lambda values: values[:, :-1]),
        "has the shape [105, 3], the model's matrix roberta.embeddings.word_embeddings needs [106, 3]",
    ),
    "left over": (
        change(ORIGINAL, np.copy, f"{FUSED}{PARTS}.1.original"),
        "unused tensors: layers.1.self_attn.Wqkv.parametrizations.weight.1.original; is it another architecture?",
    ),
    "another layer": (
        change("roberta.encoder.layers.1.norm1.weight", np.copy, "roberta.encoder.layers.2.norm1.weight"),
        "unused tensors: layers.2.post_attention_layernorm.weight; is it another architecture?",
    ),
    "two spellings": (
        change("roberta.emb_ln.weight", np.copy, "emb_ln.weight"),
        "two tensors are named 'embeddings.LayerNorm.weight'; one of them is 'emb_ln.weight'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), TENSORS.values(), ids=TENSORS)
def test_missing_misshapen_and_left_over_tensors(copied: Path, tmp_path: Path, edit: Edit, message: str) -> None:
    edit_tensors(copied / FILE, edit)
    with pytest.raises((CheckpointError, InputError)) as caught:
        write_fp32_graph(quick(copied, tmp_path / "graph", tasks=("separation",)))
    assert message in str(caught.value)


def test_a_module_of_other_code(copied: Path) -> None:
    path = copied / "modules.json"
    path.write_text(json.dumps([{**entry, "type": "other.Transformer"} for entry in json.loads(path.read_text())[:1]]))
    with pytest.raises(CheckpointError, match=r"type is 'other\.Transformer', code of the checkpoint that is not run"):
        plan(copied)
