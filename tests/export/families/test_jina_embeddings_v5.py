"""jina-embeddings-v5-text against transformers and PEFT: every task, prompt and truncation, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedpack import Embedder
from embedpack.cli.main import main
from embedpack.errors import CheckpointError
from embedpack_export.families import find_family
from embedpack_export.pipeline import export
from embedpack_export.sources.checkpoint import read_checkpoint
from tests.helpers.exports import Arrays, distance, edit_json, edit_tensors, exactly, quick, tree
from tests.helpers.fp32_graph import write_fp32_graph
from tests.helpers.peft_oracle import adapted_by_peft, last_hidden_states
from tests.helpers.plans import plan, refuse
from tests.helpers.tiny_jina_v5 import BACKBONES, HIDDEN, PROMPTS, TASKS, Size, as_backbone, make_jina_v5, make_merged

SIZES: tuple[Size, ...] = ("small", "nano")
FAMILY = "jina_embeddings_v5"
TOLERANCE = 1e-6
TRUNCATIONS = (32, 64, HIDDEN)
# Prefixes by prompt name; None: a call without one.
NAMED: dict[str | None, str] = {"query": PROMPTS["query"], "document": PROMPTS["document"], None: PROMPTS["document"]}
TEXTS = ("how do i reset a router?", "a", "Die Katze schläft auf dem Dach. 猫 😀", "print every label twice; " * 9)
FILE = "model.safetensors"


@dataclass(frozen=True)
class Case:
    """A checkpoint with its fp32 pack of both adapter modes, and PEFT's model of each task."""

    size: Size
    checkpoint: Path
    pack: Path
    models: dict[str, Any]

    def expected(self, task: str, prefix: str, truncate_dim: int | None) -> npt.NDArray[np.float64]:
        """Unit vectors of each text alone: the state of its last token, cut before it is brought to length 1."""
        encode = Tokenizer.from_file(str(self.checkpoint / "tokenizer.json")).encode
        rows = []
        for text in TEXTS:
            ids = np.asarray([encode(prefix + text).ids], np.int64)
            rows.append(last_hidden_states(self.models[task], ids, np.ones_like(ids))[0, -1, :truncate_dim])
        vectors = np.stack(rows).astype(np.float64)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def peft_models(checkpoint: Path, size: Size) -> dict[str, Any]:
    backbone = as_backbone(checkpoint, checkpoint.with_name(f"{checkpoint.name}-backbone"), size)
    return {task: adapted_by_peft(backbone, checkpoint / "adapters" / task) for task in TASKS}


@pytest.fixture(scope="module", params=SIZES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder, size = tmp_path_factory.mktemp("v5"), request.param
    checkpoint = make_jina_v5(folder / "toy", size)
    export(quick(checkpoint, folder / "pack", weights=("fp32",), adapter_modes=("merged", "switchable")))
    return Case(size, checkpoint, folder / "pack", peft_models(checkpoint, size))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[Size, Path]:
    """Checkpoints to copy and damage."""
    folder = tmp_path_factory.mktemp("plain")
    return {size: make_jina_v5(folder / size, size) for size in SIZES}


def copied(plain: dict[Size, Path], size: Size, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain[size], tmp_path / "toy"))


# --- against PEFT


@pytest.mark.parametrize("adapters", ["merged", "switchable"])
def test_every_task_prompt_and_truncation_equals_peft(case: Case, adapters: Any) -> None:
    for task in TASKS:
        with Embedder(case.pack, task=task, weights="fp32", adapters=adapters, threads=1) as model:
            for name, prefix in NAMED.items():
                for size in TRUNCATIONS:
                    found = model.encode(list(TEXTS), prompt_name=name, truncate_dim=size).decode()
                    assert distance(found, case.expected(task, prefix, size)) <= TOLERANCE, (task, name, size)


def test_tasks_and_prompts_have_vectors_of_their_own(case: Case) -> None:
    """Else a wrong task or prompt would be equal to PEFT too."""
    vectors = [case.expected(task, prefix, None) for task in TASKS for prefix in ("", *PROMPTS.values())]
    pairs = [(one, other) for index, one in enumerate(vectors) for other in vectors[:index]]
    assert min(distance(one, other) for one, other in pairs) > 100 * TOLERANCE


@pytest.mark.parametrize("adapters", ["merged", "switchable"])
def test_a_vector_does_not_depend_on_its_batch(case: Case, adapters: Any) -> None:
    with Embedder(case.pack, task="clustering", weights="fp32", adapters=adapters, threads=1) as model:
        alone = np.concatenate([model.encode([text]).decode() for text in TEXTS])

        @settings(max_examples=10, deadline=None, derandomize=True)
        @given(st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=6))
        def check(chosen: list[int]) -> None:
            found = model.encode([TEXTS[index] for index in chosen]).decode()
            assert distance(found, alone[chosen]) <= TOLERANCE

        check()


@pytest.mark.parametrize("size", SIZES)
def test_the_export_compares_itself_with_torch(plain: dict[Size, Path], tmp_path: Path, size: Size) -> None:
    """With unmerged adapters, and the token ids of transformers, under a tokenizer that ends texts with a token."""
    checkpoint = make_jina_v5(tmp_path / "toy", size, end=True)
    manifest = export(quick(checkpoint, tmp_path / "pack", tasks=("text-matching",), reference="torch"))
    assert (manifest.family, list(manifest.tasks)) == (FAMILY, ["text-matching"])
    model = peft_models(checkpoint, size)["text-matching"]
    expected = Case(size, checkpoint, tmp_path / "pack", {"": model}).expected("", PROMPTS["document"], None)
    for weights, bound in (("fp32", TOLERANCE), ("int8", 0.01)):
        pack = Embedder(tmp_path / "pack", weights=weights, threads=1)
        found = pack.encode(list(TEXTS)).decode()
        assert distance(found, expected) <= bound
        alone = np.concatenate([pack.encode([text]).decode() for text in TEXTS])
        assert distance(found, alone) <= TOLERANCE


def test_the_manifest(case: Case) -> None:
    planned = plan(case.checkpoint)
    assert list(planned.tasks) == list(TASKS)
    assert (planned.pooling, planned.dimensions, planned.truncate_dims) == ("last", HIDDEN, TRUNCATIONS)
    assert planned.max_tokens == {"small": 512, "nano": 2048}[case.size]
    for task in planned.tasks.values():
        assert (dict(task.prompts), task.default_prompt_name) == (PROMPTS, "document")
    assert [name for name in planned.files if name.startswith("adapters/")] == [
        f"adapters/{task}/adapter_{file}" for task in sorted(TASKS) for file in ("config.json", "model.safetensors")
    ]


def test_inspect_states_the_pooled_token_and_the_prompts(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(case.pack)]) == 0
    printed = capsys.readouterr().out
    assert "last pooling of the last token of prompt and text; the tokenizer adds none there\n" in printed
    assert printed.count("  prompts   default document, queries query, documents and files document\n") == len(TASKS)


# --- spellings


@pytest.mark.parametrize("size", SIZES)
def test_a_prefix_of_the_tensors_changes_nothing(plain: dict[Size, Path], tmp_path: Path, size: Size) -> None:
    checkpoint = copied(plain, size, tmp_path)
    edit_tensors(checkpoint / FILE, _with_prefix)
    write_fp32_graph(quick(checkpoint, tmp_path / "prefixed", tasks=("retrieval",)))
    write_fp32_graph(quick(plain[size], tmp_path / "bare", tasks=("retrieval",)))
    assert tree(tmp_path / "prefixed") == tree(tmp_path / "bare")


def _with_prefix(tensors: Arrays) -> None:
    for name in list(tensors):
        tensors[f"model.{name}"] = tensors.pop(name)


@pytest.mark.parametrize("size", SIZES)
def test_files_without_prompts_have_those_of_the_code(plain: dict[Size, Path], tmp_path: Path, size: Size) -> None:
    checkpoint = copied(plain, size, tmp_path)
    (checkpoint / "config_sentence_transformers.json").unlink()
    (checkpoint / "modules.json").unlink()
    for task in plan(checkpoint).tasks.values():
        assert (dict(task.prompts), task.default_prompt_name) == (PROMPTS, "document")


@pytest.mark.parametrize("size", SIZES)
def test_the_base_of_the_positions_in_the_newer_spelling(plain: dict[Size, Path], tmp_path: Path, size: Size) -> None:
    checkpoint = copied(plain, size, tmp_path)
    before = plan(checkpoint).model.config_of_class
    assert before is not None
    newer = {"rope_type": "default", "rope_theta": before["rope_theta"]}
    edit_json(checkpoint / "config.json", rope_theta=None, rope_scaling=None, rope_parameters=newer)
    write_fp32_graph(quick(checkpoint, tmp_path / "newer", tasks=("retrieval",)))
    write_fp32_graph(quick(plain[size], tmp_path / "older", tasks=("retrieval",)))
    assert (tmp_path / "newer/graph.onnx").read_bytes() == (tmp_path / "older/graph.onnx").read_bytes()


@pytest.mark.parametrize("task", ["retrieval", "classification"])
def test_the_repository_of_one_task_has_the_vectors_of_that_task(case: Case, tmp_path: Path, task: str) -> None:
    """Its weights are merged, and its class and its modules are those of transformers and sentence-transformers."""
    merged = make_merged(tmp_path / "merged", case.size, case.checkpoint, task)
    assert find_family(read_checkpoint(merged)).name == BACKBONES[case.size]
    export(quick(merged, tmp_path / "pack", weights=("fp32",), tasks=(task,), truncate_dims=(32, 64)))
    model = Embedder(tmp_path / "pack", threads=1)
    for name, prefix in PROMPTS.items():
        for size in TRUNCATIONS:
            found = model.encode(list(TEXTS), prompt_name=name, truncate_dim=size).decode()
            assert distance(found, case.expected(task, prefix, size)) <= TOLERANCE


# --- what is refused

LOST: dict[str, Callable[[Arrays], object]] = {
    "tensor 'layers.1.mlp.up_proj.weight' is missing; is a shard or a file incomplete?": lambda tensors: tensors.pop(
        "layers.1.mlp.up_proj.weight"
    ),
    "norm.weight has the shape [95], config.json needs [96]": lambda tensors: tensors.update(
        {"norm.weight": tensors["norm.weight"][:-1]}
    ),
    "unused tensors: layers.2.mlp.up_proj.weight; is it another architecture?": lambda tensors: tensors.update(
        {"layers.2.mlp.up_proj.weight": tensors["layers.1.mlp.up_proj.weight"]}
    ),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("message", LOST)
def test_missing_misshapen_and_unused_tensors(
    plain: dict[Size, Path], tmp_path: Path, size: Size, message: str
) -> None:
    checkpoint = copied(plain, size, tmp_path)
    edit_tensors(checkpoint / FILE, LOST[message])
    with pytest.raises(CheckpointError) as caught:
        write_fp32_graph(quick(checkpoint, tmp_path / "graph", tasks=("retrieval",)))
    assert message in str(caught.value)


def test_a_missing_norm_of_queries_is_named(plain: dict[Size, Path], tmp_path: Path) -> None:
    checkpoint = copied(plain, "small", tmp_path)
    name = "layers.0.self_attn.q_norm.weight"
    edit_tensors(checkpoint / FILE, lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match=f"tensor {name!r} is missing"):
        write_fp32_graph(quick(checkpoint, tmp_path / "graph", tasks=("retrieval",)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", ["task_names", "rope_theta", "rms_norm_eps", "num_hidden_layers"])
def test_a_configuration_without_a_needed_key(plain: dict[Size, Path], tmp_path: Path, size: Size, key: str) -> None:
    checkpoint = copied(plain, size, tmp_path)
    edit_json(checkpoint / "config.json", **{key: None})
    refuse(checkpoint, f"{checkpoint / 'config.json'}: Object missing required field `{key}`")


WRONG: tuple[tuple[Size, dict[str, Any], str], ...] = (
    (
        "nano",
        {"is_decoder": None},
        "is_decoder is None, the tensors are those of eurobert, without self_attn.q_norm; restore the config.json of "
        "the model",
    ),
    (
        "small",
        {"is_decoder": False},
        "is_decoder is False, the tensors are those of qwen3, with self_attn.q_norm; restore the config.json of the "
        "model",
    ),
    ("nano", {"task_names": []}, "Expected `array` of length >= 1 - at `$.task_names`"),
    (
        "small",
        {"auto_map": {"AutoModel": "modeling_other.OtherModel"}},
        "auto_map is {'AutoModel': 'modeling_other.OtherModel'}; AutoModel is 'modeling_other.OtherModel', code of "
        "the checkpoint that is not run; if the model is of the architecture in model_type without it, remove the key",
    ),
    (
        "nano",
        {"mean_pooling": True},
        "unknown key 'mean_pooling' with the value True; did you mean 'clf_pooling'? Remove it if vectors cannot "
        "depend on it, else report it",
    ),
)


@pytest.mark.parametrize(("size", "changes", "message"), WRONG, ids=str)
def test_a_configuration_of_another_model(
    plain: dict[Size, Path], tmp_path: Path, size: Size, changes: dict[str, Any], message: str
) -> None:
    checkpoint = copied(plain, size, tmp_path)
    edit_json(checkpoint / "config.json", **changes)
    refuse(checkpoint, f"{checkpoint / 'config.json'}: {message}")


def without_folder(adapters: Path) -> None:
    shutil.rmtree(adapters / "clustering")


def renamed(adapters: Path) -> None:
    (adapters / "clustering").rename(adapters / "grouping")


def one_more(adapters: Path) -> None:
    shutil.copytree(adapters / "clustering", adapters / "code")


ALL = ", ".join(TASKS)
FOLDERS: dict[Callable[[Path], None], str] = {
    without_folder: "classification, retrieval, text-matching",
    renamed: "classification, grouping, retrieval, text-matching",
    one_more: "classification, clustering, code, retrieval, text-matching",
}


@pytest.mark.parametrize("change", FOLDERS)
def test_folders_of_other_tasks_than_the_configuration(
    plain: dict[Size, Path], tmp_path: Path, change: Callable[[Path], None]
) -> None:
    checkpoint = copied(plain, "nano", tmp_path)
    adapters = checkpoint / "adapters"
    change(adapters)
    refuse(
        checkpoint,
        f"{adapters}: has the tasks {FOLDERS[change]}, task_names of config.json are {ALL}; are both of one model, and "
        "complete?",
    )


def test_a_checkpoint_without_its_adapters(plain: dict[Size, Path], tmp_path: Path) -> None:
    checkpoint = copied(plain, "small", tmp_path)
    shutil.rmtree(checkpoint / "adapters")
    refuse(
        checkpoint,
        f"{checkpoint / 'adapters'}: no folder in it has an adapter_config.json; download the adapters of the model "
        "again",
    )


def test_an_adapter_that_leaves_a_module_unchanged(plain: dict[Size, Path], tmp_path: Path) -> None:
    checkpoint = copied(plain, "nano", tmp_path)
    folder = checkpoint / "adapters" / "clustering"
    names = [f"base_model.model.layers.1.mlp.down_proj.lora_{factor}.weight" for factor in "AB"]
    edit_tensors(folder / "adapter_model.safetensors", lambda tensors: [tensors.pop(name) for name in names])
    refuse(
        checkpoint,
        f"{folder}: the adapter of 'clustering' changes 13 modules, not all 14; layers.1.mlp.down_proj is missing: is "
        "the file complete?",
    )


def test_a_module_of_other_code(plain: dict[Size, Path], tmp_path: Path) -> None:
    checkpoint = copied(plain, "small", tmp_path)
    path = checkpoint / "modules.json"
    path.write_text(path.read_text().replace("custom_st.Transformer", "other.Transformer"))
    with pytest.raises(CheckpointError, match=exactly(
        f"{path}: type is 'other.Transformer', code of the checkpoint that is not run; if sentence-transformers' "
        "module does the same, make it sentence_transformers.models.Transformer"
    )):  # fmt: skip
        plan(checkpoint)
