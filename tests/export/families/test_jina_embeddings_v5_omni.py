"""Texts of jina-embeddings-v5-omni against transformers and PEFT: every task, prompt and truncation, and refusals."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import Tokenizer

from embedpack import Embedder
from embedpack.errors import CheckpointError
from embedpack.vectors.arrays import Float32
from embedpack_export.pipeline import export
from embedpack_export.sources.checkpoint import read_json
from tests.helpers.exports import Arrays, distance, edit_json, edit_tensors, quick, read_tensors
from tests.helpers.fp32_graph import write_fp32_graph
from tests.helpers.peft_oracle import adapted_by_peft, last_hidden_states
from tests.helpers.plans import plan, refuse
from tests.helpers.tiny_jina_v5 import HIDDEN, PROMPTS, SETTINGS_FILE, TASKS, Size, as_backbone, make_jina_v5
from tests.helpers.tiny_jina_v5_omni import TABLE, make_omni, rows_name, rows_of

SIZES: tuple[Size, ...] = ("small", "nano")
FAMILY = "jina_embeddings_v5_omni"
TOLERANCE = 1e-6
TRUNCATIONS = (32, 64, HIDDEN)
NAMED: dict[str | None, str] = {"query": PROMPTS["query"], "document": PROMPTS["document"], None: PROMPTS["document"]}
TEXTS = ("how do i reset a router?", "a", "Die Katze schläft auf dem Dach. 猫 😀", "print every label twice; " * 9)
FILE = "model.safetensors"


@dataclass(frozen=True)
class Case:
    """A checkpoint, and what PEFT computes on a backbone with the rows of a task."""

    size: Size
    checkpoint: Path
    states: dict[tuple[str, str], Float32]  # state of the last token of each text, by task and prefix

    def expected(self, task: str, prefix: str, truncate_dim: int | None) -> npt.NDArray[np.float64]:
        """Unit vectors of each text alone: the state of its last token, cut before it is brought to length 1."""
        vectors = self.states[task, prefix][:, :truncate_dim].astype(np.float64)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[Size, Case]:
    folder = tmp_path_factory.mktemp("omni")
    return {size: make_case(folder / size, size) for size in SIZES}


def make_case(folder: Path, size: Size) -> Case:
    text = make_jina_v5(folder / "text", size, end=True)
    omni = make_omni(Path(shutil.copytree(text, folder / "toy")), size)
    states: dict[tuple[str, str], Float32] = {}
    for task in TASKS:
        backbone = with_rows(as_backbone(text, folder / f"backbone-{task}", size), rows_of(omni, task))
        model = adapted_by_peft(backbone, text / "adapters" / task)
        states |= {(task, prefix): last_states(text, model, prefix) for prefix in PROMPTS.values()}
    return Case(size, omni, states)


def last_states(checkpoint: Path, model: Any, prefix: str) -> Float32:
    encode = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode
    rows = [np.asarray([encode(prefix + text).ids], np.int64) for text in TEXTS]
    return np.stack([last_hidden_states(model, ids, np.ones_like(ids))[0, -1] for ids in rows])


def with_rows(backbone: Path, rows: Mapping[int, Float32]) -> Path:
    def put(tensors: Arrays) -> None:
        table = np.array(tensors["embed_tokens.weight"])
        table[[*rows]] = [*rows.values()]
        tensors["embed_tokens.weight"] = table

    edit_tensors(backbone / FILE, put)
    return backbone


@pytest.fixture(scope="module")
def packs(cases: dict[Size, Case], tmp_path_factory: pytest.TempPathFactory) -> dict[Size, Path]:
    folder = tmp_path_factory.mktemp("packs")
    for size, case in cases.items():
        settings = quick(case.checkpoint, folder / size, weights=("fp32",), adapter_modes=("merged", "switchable"))
        assert export(settings).family == FAMILY
    return {size: folder / size for size in cases}


def copied(cases: dict[Size, Case], size: Size, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cases[size].checkpoint, tmp_path / "toy"))


# --- against PEFT


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("adapters", ["merged", "switchable"])
def test_every_task_prompt_and_truncation_equals_peft(
    cases: dict[Size, Case], packs: dict[Size, Path], size: Size, adapters: Any
) -> None:
    for task in TASKS:
        with Embedder(packs[size], task=task, weights="fp32", adapters=adapters, threads=1) as model:
            for name, prefix in NAMED.items():
                for truncation in TRUNCATIONS:
                    found = model.encode(list(TEXTS), prompt_name=name, truncate_dim=truncation).decode()
                    assert distance(found, cases[size].expected(task, prefix, truncation)) <= TOLERANCE, (task, name)


@pytest.mark.parametrize("size", SIZES)
def test_rows_of_special_tokens_decide_vectors(cases: dict[Size, Case], tmp_path: Path, size: Size) -> None:
    """Else rows in another order, or none, would be equal to PEFT too."""
    case = cases[size]
    text = case.checkpoint.parent / "text"
    rows = rows_of(case.checkpoint, "retrieval")
    others = dict(zip(rows, [*rows.values()][1:] + [*rows.values()][:1], strict=True))
    backbone = with_rows(as_backbone(text, tmp_path / "other", size), others)
    model = adapted_by_peft(backbone, text / "adapters" / "retrieval")
    prefix = PROMPTS["query"]
    other = Case(size, case.checkpoint, {("retrieval", prefix): last_states(text, model, prefix)})
    assert distance(other.expected("retrieval", prefix, None), case.expected("retrieval", prefix, None)) > 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_the_embedding_table_is_stored_once(cases: dict[Size, Case], packs: dict[Size, Path], size: Size) -> None:
    """Though each task replaces rows of it, in the graphs of single tasks and in the switchable one."""
    table = read_tensors(cases[size].checkpoint / FILE)[TABLE].tobytes()
    assert sum(path.read_bytes().count(table) for path in packs[size].rglob("*") if path.is_file()) == 1


@pytest.mark.parametrize("size", SIZES)
def test_the_export_compares_itself_with_torch(cases: dict[Size, Case], tmp_path: Path, size: Size) -> None:
    case = cases[size]
    export(quick(case.checkpoint, tmp_path / "pack", tasks=("clustering",), weights=("fp32",), reference="torch"))
    with Embedder(tmp_path / "pack", threads=1) as model:
        expected = case.expected("clustering", PROMPTS["document"], None)
        assert distance(model.encode(list(TEXTS)).decode(), expected) <= TOLERANCE


@pytest.mark.parametrize("size", SIZES)
def test_prompts_are_those_of_the_files(cases: dict[Size, Case], tmp_path: Path, size: Size) -> None:
    """Variants of the model were trained without prefixes."""
    checkpoint = copied(cases, size, tmp_path)
    edit_json(checkpoint / SETTINGS_FILE, prompts={"query": "", "document": "Text: "}, default_prompt_name="query")
    for task in plan(checkpoint).tasks.values():
        assert (dict(task.prompts), task.default_prompt_name) == ({"query": "", "document": "Text: "}, "query")


@pytest.mark.parametrize("size", SIZES)
def test_parts_of_images_and_sounds_are_left_out_and_named(
    cases: dict[Size, Case], caplog: pytest.LogCaptureFixture, size: Size
) -> None:
    with caplog.at_level(logging.INFO, "embedpack"):
        planned = plan(cases[size].checkpoint)
    tower = {"small": "visual", "nano": "vision_tower"}[size]
    parts = ", ".join(sorted(("audio_projectors", "audio_tower", "mergers", tower)))
    assert f"{cases[size].checkpoint}: left out, because only texts are exported: {parts}" in caplog.messages
    assert (planned.pooling, planned.truncate_dims, planned.model.vision) == ("last", TRUNCATIONS, None)


# --- what is refused

LOST: dict[str, Callable[[Arrays], object]] = {
    "tensor 'layers.1.mlp.up_proj.weight' is missing; is a shard or a file incomplete?": lambda tensors: tensors.pop(
        "language_model.layers.1.mlp.up_proj.weight"
    ),
    "norm.weight has the shape [95], config.json needs [96]": lambda tensors: tensors.update(
        {"language_model.norm.weight": tensors["language_model.norm.weight"][:-1]}
    ),
    "unused tensors: layers.2.mlp.up_proj.weight; is it another architecture?": lambda tensors: tensors.update(
        {"language_model.layers.2.mlp.up_proj.weight": tensors["language_model.layers.1.mlp.up_proj.weight"]}
    ),
    "unused tensors: video_tower.weight; is it another architecture?": lambda tensors: tensors.update(
        {"video_tower.weight": tensors[TABLE]}
    ),
    "unused tensors: task_token_embeddings.code; is it another architecture?": lambda tensors: tensors.update(
        {"task_token_embeddings.code": tensors[rows_name("retrieval")]}
    ),
    "tensor 'task_token_embeddings.text_matching' is missing, the rows of special_token_ids under the task "
    "'text-matching'; is a shard or a file incomplete?": lambda tensors: tensors.pop(rows_name("text-matching")),
    "task_token_embeddings.retrieval has the shape [2, 96], the 3 tokens of special_token_ids need [3, 96]": (
        lambda tensors: tensors.update({rows_name("retrieval"): tensors[rows_name("retrieval")][1:]})
    ),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("message", LOST)
def test_missing_misshapen_and_left_over_tensors(
    cases: dict[Size, Case], tmp_path: Path, size: Size, message: str
) -> None:
    checkpoint = copied(cases, size, tmp_path)
    edit_tensors(checkpoint / FILE, LOST[message])
    with pytest.raises(CheckpointError) as caught:
        write_fp32_graph(quick(checkpoint, tmp_path / "graph", tasks=("retrieval",)))
    assert message in str(caught.value)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no tasks": ({"task_names": None}, "Object missing required field `task_names`"),
    "no tokens": ({"special_token_ids": None}, "Object missing required field `special_token_ids`"),
    "a token twice": (
        {"special_token_ids": [0, 3, 0]},
        "special_token_ids has a token twice: [0, 3, 0]; restore the config.json of the model",
    ),
    "a task": ({"task": "retrieval"}, "task is 'retrieval'; supported: null; calls choose a task; remove it"),
    "an unknown key": (
        {"mean_pooling": True},
        "unknown key 'mean_pooling' with the value True; Remove it if vectors cannot depend on it, else report it",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_configuration_of_another_model(cases: dict[Size, Case], tmp_path: Path, case: str) -> None:
    checkpoint, (changes, message) = copied(cases, "nano", tmp_path), WRONG[case]
    edit_json(checkpoint / "config.json", **changes)
    refuse(checkpoint, f"{checkpoint / 'config.json'}: {message}")


WRONG_TEXTS: dict[str, tuple[Size, dict[str, Any], str]] = {
    "no base": ("small", {"rope_parameters": None}, "text_config: Object missing required field `rope_parameters`"),
    "no epsilon": ("nano", {"rms_norm_eps": None}, "text_config: Object missing required field `rms_norm_eps`"),
    "scaling": (
        "small",
        {"rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 1e6}},
        "text_config.rope_parameters is {'rope_type': 'linear', 'factor': 2, 'rope_theta': 1000000.0}; supported: an "
        "object with rope_theta, without scaling; export a checkpoint without it",
    ),
    "another backbone": (
        "nano",
        {"model_type": "qwen3"},
        "text_config.model_type is 'qwen3', the tensors are those of eurobert; supported: eurobert, llama",
    ),
}


@pytest.mark.parametrize("case", WRONG_TEXTS)
def test_a_text_path_of_another_model(cases: dict[Size, Case], tmp_path: Path, case: str) -> None:
    size, changes, message = WRONG_TEXTS[case]
    checkpoint = copied(cases, size, tmp_path)
    text = {**read_text_config(checkpoint), **changes}
    edit_json(checkpoint / "config.json", text_config={key: value for key, value in text.items() if value is not None})
    refuse(checkpoint, f"{checkpoint / 'config.json'}: {message}")


def read_text_config(checkpoint: Path) -> dict[str, Any]:
    return dict(read_json(checkpoint / "config.json", dict[str, Any])["text_config"])


@pytest.mark.parametrize("changes", [None, {"prompts": {}}], ids=["no file", "no prompts"])
def test_files_without_prompts_are_refused(
    cases: dict[Size, Case], tmp_path: Path, changes: dict[str, Any] | None
) -> None:
    checkpoint = copied(cases, "small", tmp_path)
    path = checkpoint / SETTINGS_FILE
    if changes is None:
        path.unlink()
    else:
        edit_json(path, **changes)
    refuse(
        checkpoint,
        f"{path}: no prompts; variants of this model were trained with other prefixes, so the file decides: download "
        "it with the model",
    )


def test_an_adapter_that_replaces_rows_too(cases: dict[Size, Case], tmp_path: Path) -> None:
    checkpoint = copied(cases, "nano", tmp_path)
    folder = checkpoint / "adapters" / "retrieval"
    key = "base_model.model.language_model.embed_tokens.token_adapter.trainable_tokens_delta"
    edit_tensors(
        folder / "adapter_model.safetensors", lambda tensors: tensors.update({key: np.ones((1, HIDDEN), np.float32)})
    )
    edit_json(folder / "adapter_config.json", trainable_token_indices=[4])
    refuse(
        checkpoint,
        f"{folder}: replaces rows of language_model.embed_tokens, as task_token_embeddings.retrieval of the checkpoint "
        "does; export a checkpoint with one of them",
    )
