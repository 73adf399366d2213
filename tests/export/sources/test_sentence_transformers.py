"""Files of sentence-transformers: pooling, prompts, lengths and truncations, and every value that is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from embedpack.errors import CheckpointError
from embedpack_export.families.heads import SingleHead
from embedpack_export.pipeline import export
from tests.helpers.exports import edit_json, query_update, quick, write_adapter
from tests.helpers.plans import plan, refuse
from tests.helpers.tiny_checkpoint import make_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "toy")


# --- files of sentence-transformers


def test_nothing_says_how_to_pool(checkpoint: Path) -> None:
    (checkpoint / "modules.json").unlink()
    refuse(
        checkpoint,
        f"{checkpoint}: no modules.json, so the pooling of the tokens is unknown; pass --pooling mean|cls|last",
    )
    assert plan(checkpoint, pooling="last").pooling == "last"


def test_a_module_that_the_graph_lacks(checkpoint: Path) -> None:
    path = checkpoint / "modules.json"
    router = {"idx": 2, "name": "2", "path": "2_Router", "type": "sentence_transformers.models.Router"}
    path.write_text(json.dumps([*json.loads(path.read_text())[:2], router]))
    refuse(
        checkpoint,
        f"{path}: unknown module 'Router'; known: Transformer, Pooling, Dense, LayerNorm, Normalize, Dropout, "
        "MultiVectorMask, LogitScore",
    )


@pytest.mark.parametrize("place", ["../other", "/etc", "a\nb", "a/../..", "\0"])
def test_modules_outside_of_the_folder_are_refused(checkpoint: Path, place: str) -> None:
    path = checkpoint / "modules.json"
    path.write_text(json.dumps([{"path": place, "type": "sentence_transformers.models.Transformer"}]))
    refuse(checkpoint, f"{path}: {place!r} is no path, or leads outside of the folder; correct it")


def test_several_poolings_need_a_choice(checkpoint: Path) -> None:
    path = checkpoint / "1_Pooling" / "config.json"
    edit_json(path, pooling_mode_cls_token=True)
    refuse(checkpoint, f"{path}: asks for 2 ways of pooling (mean, cls), one is possible; pass --pooling")
    assert plan(checkpoint, pooling="cls").pooling == "cls"


def test_pooling_without_any_flag_is_the_mean(checkpoint: Path) -> None:
    edit_json(checkpoint / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False)
    assert plan(checkpoint).pooling == "mean"


def test_an_old_flag_of_a_pooling_that_the_graph_lacks(checkpoint: Path) -> None:
    path = checkpoint / "1_Pooling" / "config.json"
    edit_json(path, pooling_mode_mean_tokens=False, pooling_mode_median_tokens=True)
    refuse(
        checkpoint,
        f"{path}: asks for pooling_mode_median_tokens; known: pooling_mode_mean_tokens, pooling_mode_cls_token, "
        "pooling_mode_lasttoken, pooling_mode_max_tokens, pooling_mode_weightedmean_tokens, "
        "pooling_mode_mean_sqrt_len_tokens",
    )


def test_a_new_name_of_a_pooling_that_the_graph_lacks(checkpoint: Path) -> None:
    path = checkpoint / "1_Pooling" / "config.json"
    path.write_text('{"pooling_mode": "median"}')
    known = "mean, cls, lasttoken, max, weightedmean, mean_sqrt_len_tokens"
    refuse(checkpoint, f"{path}: unknown pooling_mode 'median'; known: {known}; did you mean 'mean'?")


def test_pooling_without_the_prompt(checkpoint: Path) -> None:
    path = checkpoint / "1_Pooling" / "config.json"
    edit_json(path, include_prompt=False)
    refuse(
        checkpoint,
        f"{checkpoint}: include_prompt is false in the Pooling module, and there are prompts (query, passage); pooling "
        "without the prompt is not supported. Export a model that pools it",
    )
    edit_json(checkpoint / "config_sentence_transformers.json", prompts=None)
    assert plan(checkpoint).pooling == "mean"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode_weightedmean_tokens": True}, "weighted_mean"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": ["max"]}, "max"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["cls"]}, "cls"),
        ({"pooling_mode": "cls", "pooling_mode_max_tokens": True}, "cls"),
        ({"pooling_mode": "lasttoken", "include_prompt": True}, "last"),
    ],
)
def test_pooling_is_read(checkpoint: Path, content: dict[str, object], expected: str) -> None:
    (checkpoint / "1_Pooling" / "config.json").write_text(json.dumps(content))
    assert plan(checkpoint).pooling == expected


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("modules.json", {}, "Expected `array`, got `object`"),
        ("modules.json", [{"path": ""}], "Object missing required field `type` - at `$[0]`"),
        ("modules.json", [{"type": "a.Pooling", "path": 1}], "Expected `str`, got `int` - at `$[0].path`"),
        ("1_Pooling/config.json", [], "Expected `object`, got `array`"),
        (
            "sentence_bert_config.json",
            {"max_seq_length": "32"},
            "Expected `int | null`, got `str` - at `$.max_seq_length`",
        ),
        ("sentence_bert_config.json", [32], "Expected `object`, got `array`"),
        ("config_sentence_transformers.json", {"prompts": ["q"]}, "Expected `object`, got `array` - at `$.prompts`"),
        (
            "config_sentence_transformers.json",
            {"prompts": {"query": 1}},
            "Expected `str | null`, got `int` - at `$.prompts[...]`",
        ),
        (
            "config_sentence_transformers.json",
            {"matryoshka_dims": 8},
            "Expected `array`, got `int` - at `$.matryoshka_dims`",
        ),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": 1},
            "Expected `str | null`, got `int` - at `$.default_prompt_name`",
        ),
    ],
)  # fmt: skip
def test_values_of_a_wrong_type(checkpoint: Path, file: str, content: object, reason: str) -> None:
    (checkpoint / file).write_text(json.dumps(content))
    refuse(checkpoint, f"{checkpoint / file}: {reason}")


@pytest.mark.parametrize("file", ["modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"])
def test_files_that_are_not_json(checkpoint: Path, file: str) -> None:
    (checkpoint / file).write_text("")
    refuse(checkpoint, f"{checkpoint / file}: not valid JSON: Expecting value: line 1 column 1 (char 0)")


def test_the_maximum_length_is_read(checkpoint: Path) -> None:
    assert plan(checkpoint).max_tokens == 32
    assert plan(checkpoint, max_tokens=40).max_tokens == 40


@pytest.mark.parametrize(("model_type", "positions"), [("bert", 40), ("xlm-roberta", 38)])
def test_the_maximum_length_never_passes_the_positions(tmp_path: Path, model_type: str, positions: int) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type)
    edit_json(checkpoint / "sentence_bert_config.json", max_seq_length=8192)
    assert plan(checkpoint).max_tokens == positions
    (checkpoint / "sentence_bert_config.json").unlink()
    assert plan(checkpoint).max_tokens == positions


@pytest.mark.parametrize(("model_type", "positions"), [("bert", 40), ("xlm-roberta", 38)])
@pytest.mark.parametrize("length", [-1, 0, 2, 41, 512])
def test_a_maximum_length_that_the_model_cannot_take(
    tmp_path: Path, model_type: str, positions: int, length: int
) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type)
    message = f"--max-length {length} is not possible for this model; pass 3 to {positions} tokens"
    refuse(checkpoint, message, max_tokens=length)


@pytest.mark.parametrize("length", [-5, 0, 1, 2])
def test_a_stated_maximum_length_without_room_for_a_token(checkpoint: Path, length: int) -> None:
    """The tokenizer would not cut at all with room for 1 token, and cut all of the text with room for 2."""
    path = checkpoint / "sentence_bert_config.json"
    edit_json(path, max_seq_length=length)
    refuse(checkpoint, f"{path}: Expected `int` >= 3 - at `$.max_seq_length`")


@pytest.mark.parametrize(
    ("asked", "named"), [((64,), "[32, 64]"), ((8, 0), "[0, 8, 32]"), ((-8,), "[-8, 32]"), ((33,), "[32, 33]")]
)
def test_truncations_that_are_not_possible(checkpoint: Path, asked: tuple[int, ...], named: str) -> None:
    message = f"truncations {named} are not possible; the vectors have 32 dimensions"
    refuse(checkpoint, message, truncate_dims=asked)


def test_stated_truncations_that_are_not_possible(checkpoint: Path) -> None:
    edit_json(checkpoint / "config_sentence_transformers.json", matryoshka_dims=[16, 768])
    refuse(checkpoint, "truncations [16, 32, 768] are not possible; the vectors have 32 dimensions")


def test_prompts_and_truncations_are_read(checkpoint: Path) -> None:
    edit_json(checkpoint / "config_sentence_transformers.json", default_prompt_name="passage", matryoshka_dims=[16, 8])
    found = plan(checkpoint)
    (task,) = found.tasks.values()
    assert task.prompts == {"query": "query: ", "passage": "passage: "}
    assert task.default_prompt_name == "passage"
    assert found.truncate_dims == (8, 16, 32)


def test_asked_truncations_take_the_place_of_stated_ones(checkpoint: Path) -> None:
    assert plan(checkpoint, truncate_dims=(24,)).truncate_dims == (24, 32)


def test_truncations_of_config_json_are_read(checkpoint: Path) -> None:
    edit_json(checkpoint / "config_sentence_transformers.json", matryoshka_dims=None)
    edit_json(checkpoint / "config.json", matryoshka_dims=[8])
    assert plan(checkpoint).truncate_dims == (8, 32)


def test_a_checkpoint_without_sentence_transformers_has_no_prompts(checkpoint: Path) -> None:
    for file in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (checkpoint / file).unlink()
    found = plan(checkpoint, pooling="mean")
    (task,) = found.tasks.values()
    assert (dict(task.prompts), task.default_prompt_name, found.truncate_dims) == ({}, None, (32,))


def test_empty_prompts_are_left_out(checkpoint: Path) -> None:
    edit_json(checkpoint / "config_sentence_transformers.json", prompts={"query": "q: ", "document": None})
    (task,) = plan(checkpoint).tasks.values()
    assert task.prompts == {"query": "q: "}


@pytest.mark.parametrize("with_adapter", [False, True])
def test_a_default_prompt_that_does_not_exist(checkpoint: Path, with_adapter: bool) -> None:
    edit_json(checkpoint / "config_sentence_transformers.json", default_prompt_name="pasage")
    adapters = {"retrieval": write_adapter(checkpoint.parent / "adapter", query_update())} if with_adapter else {}
    refuse(
        checkpoint,
        "config_sentence_transformers.json: unknown prompt 'pasage'; known: query, passage; did you mean 'passage'?",
        adapters=adapters,
    )


def test_an_adapters_own_prompts_count_for_its_task(checkpoint: Path) -> None:
    adapters = {task: write_adapter(checkpoint.parent / task, query_update()) for task in ("code", "retrieval")}
    own = {"prompts": {"code": "Code: "}, "default_prompt_name": "code", "matryoshka_dims": [16]}
    (adapters["code"] / "config_sentence_transformers.json").write_text(json.dumps(own))
    found = plan(checkpoint, adapters=adapters)
    assert found.tasks["code"].prompts == {"code": "Code: "}
    assert found.tasks["code"].default_prompt_name == "code"
    assert found.tasks["retrieval"].prompts == {"query": "query: ", "passage": "passage: "}
    assert found.truncate_dims == (16, 32)


def pooled_adapter(folder: Path, pooling: str) -> Path:
    write_adapter(folder, query_update())
    shutil.copytree(folder.parent / "toy" / "1_Pooling", folder / "1_Pooling")
    shutil.copy(folder.parent / "toy" / "modules.json", folder)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling}))
    return folder


def test_pooling_is_read_from_any_adapter(checkpoint: Path) -> None:
    adapters = {
        "code": write_adapter(checkpoint.parent / "code", query_update()),
        "retrieval": pooled_adapter(checkpoint.parent / "retrieval", "cls"),
    }
    (checkpoint / "modules.json").unlink()
    (adapters["code"] / "modules.json").unlink(missing_ok=True)
    assert plan(checkpoint, adapters=adapters).pooling == "cls"


def test_poolings_that_contradict_each_other_need_a_choice(checkpoint: Path) -> None:
    adapters = {"retrieval": pooled_adapter(checkpoint.parent / "retrieval", "cls")}
    refuse(
        checkpoint,
        f"{checkpoint} has mean pooling, {adapters['retrieval']} has cls; pass --pooling",
        adapters=adapters,
    )
    assert plan(checkpoint, adapters=adapters, pooling="cls").pooling == "cls"


@pytest.mark.parametrize("task", ["../outside", "a/b", "", ".hidden", "two words", "nul\0"])
def test_a_task_whose_name_makes_no_file_name(checkpoint: Path, task: str) -> None:
    adapters = {task: write_adapter(checkpoint.parent / "adapter", query_update())}
    refuse(
        checkpoint,
        f"task {task!r}: a task is named with letters, digits, '.', '_' and '-', the first a letter or digit",
        adapters=adapters,
    )


# --- keys that make another model


MESSAGE = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


@pytest.mark.parametrize(
    ("file", "changes", "reason"),
    [
        ("sentence_bert_config.json", {"modality_config": {**MESSAGE, "message": {"format": "flat"}}},
         "modality_config is {'text': {'method': 'forward', 'method_output_name': 'last_hidden_state'}, 'm...; texts "
         "of this model go through its chat template"),
        ("sentence_bert_config.json", {"modality_config": {"text": {"method": "get_text_features"}}}, "modality_co"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task is 'fill-mask'; support"),
        ("sentence_bert_config.json", {"query_length": 8}, "query_length is 8; supported: null; one limit is possible"),
        ("sentence_bert_config.json", {"processor_kwargs": {"truncation_side": "left"}}, "processor_kwargs is {'trunc"),
        ("sentence_bert_config.json", {"model_args": {"is_causal": False}}, "model_args is {'is_causal': False}; s"),
        ("sentence_bert_config.json", {"max_seq_len": 8}, "unknown key 'max_seq_len' with the value 8; did you mea"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type is 'SparseEncoder'; sup"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "manhattan"}, "similarity_fn_name is 'manhatt"),
        ("config_sentence_transformers.json", {"prompt": "x"}, "unknown key 'prompt' with the value 'x'; did you m"),
        ("1_Pooling/config.json", {"pooling": "cls"}, "unknown key 'pooling' with the value 'cls'; "),
    ],
)  # fmt: skip
def test_keys_of_another_model_are_refused_by_name(
    checkpoint: Path, file: str, changes: dict[str, object], reason: str
) -> None:
    edit_json(checkpoint / file, **changes)
    with pytest.raises(CheckpointError) as caught:
        plan(checkpoint)
    assert str(caught.value).startswith(f"{checkpoint / file}: {reason}")


def test_files_of_current_sentence_transformers_are_accepted(checkpoint: Path) -> None:
    limits = {
        "transformer_task": "feature-extraction",
        "modality_config": MESSAGE,
        "module_output_name": "token_embeddings",
    }
    (checkpoint / "sentence_bert_config.json").write_text(json.dumps(limits))
    settings = {
        "model_type": "SentenceTransformer",
        "__version__": {"sentence_transformers": "6.2.0", "transformers": "5.23.0", "pytorch": "2.13.0"},
        "prompts": {"query": "", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
        "truncate_dim": 16,
    }
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps(settings))
    types = ("base.modules.transformer.Transformer", "sentence_transformer.modules.pooling.Pooling",
             "sentence_transformer.modules.dropout.Dropout", "base.modules.normalize.Normalize")  # fmt: skip
    modules = [
        {"idx": row, "name": str(row), "path": "" if not row else f"{row}_{name.rsplit('.')[-1]}", "kwargs": [],
         "type": f"sentence_transformers.{name}"}
        for row, name in enumerate(types)
    ]  # fmt: skip
    (checkpoint / "modules.json").write_text(json.dumps(modules))
    (checkpoint / "3_Normalize").mkdir()
    normalize = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    (checkpoint / "3_Normalize" / "config.json").write_text(json.dumps(normalize))
    assert plan(checkpoint).truncate_dims == (16, 32)


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_a_score_that_ranks_otherwise_than_cosine(checkpoint: Path, similarity: str) -> None:
    path = checkpoint / "config_sentence_transformers.json"
    edit_json(path, similarity_fn_name=similarity)
    # Vectors of length 1 have the same ranking.
    assert plan(checkpoint).single == SingleHead("mean")
    modules = json.loads((checkpoint / "modules.json").read_text())
    (checkpoint / "modules.json").write_text(json.dumps(modules[:2]))
    if similarity == "dot":
        assert plan(checkpoint).single == SingleHead("mean", normalize=False, similarity="dot")
        return
    refuse(
        checkpoint,
        f"{path}: similarity_fn_name is {similarity!r}; supported: cosine, dot; vectors of this model are not ranked "
        "that way. Take one of these, if that ranking is wanted",
    )


def test_a_model_in_a_folder_of_its_own(checkpoint: Path) -> None:
    inner = checkpoint / "0_Transformer"
    before = plan(checkpoint)
    expected = before.max_tokens, before.fingerprint
    inner.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "sentence_bert_config.json"):
        (checkpoint / name).rename(inner / name)
    modules = json.loads((checkpoint / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (checkpoint / "modules.json").write_text(json.dumps(modules))
    found = plan(checkpoint)
    assert (found.max_tokens, found.fingerprint) == expected
    manifest = export(quick(checkpoint, checkpoint.parent / "pack", weights=("fp32",)))
    assert manifest.license.id == "apache-2.0"


def test_modules_of_other_code(checkpoint: Path) -> None:
    path = checkpoint / "modules.json"
    modules = json.loads(path.read_text())
    modules[0]["type"] = "custom_st.Transformer"
    path.write_text(json.dumps(modules))
    refuse(
        checkpoint,
        f"{path}: type is 'custom_st.Transformer', code of the checkpoint that is not run; if sentence-transformers' "
        "module does the same, make it sentence_transformers.models.Transformer",
    )
    modules[0]["type"] = "sentence_transformers.models.Transformer"
    path.write_text(json.dumps([modules[0], modules[2], modules[1]]))
    refuse(
        checkpoint,
        f"{path}: modules in the order Transformer, Normalize, Pooling; supported: Transformer, Pooling, any number of "
        "Dense and LayerNorm, Normalize; or for multi-vectors Transformer, Dense, MultiVectorMask, Normalize; or "
        "for scores Transformer, LogitScore",
    )


def test_an_adapter_of_other_code(checkpoint: Path) -> None:
    mapping = {"base_model_class": "BiModel", "parent_library": "llm2vec.models"}
    folder = write_adapter(checkpoint.parent / "adapter", query_update(), auto_mapping=mapping)
    refuse(
        checkpoint,
        f"{folder / 'adapter_config.json'}: auto_mapping has BiModel of llm2vec.models, a class of other code that may "
        "compute otherwise than the checkpoint's; if it only wraps the checkpoint, set auto_mapping to null",
        adapters={"retrieval": folder},
    )
    mapping["parent_library"] = "transformers.models.bert.modeling_bert"
    edit_json(folder / "adapter_config.json", auto_mapping=mapping)
    assert list(plan(checkpoint, adapters={"retrieval": folder}).tasks) == ["retrieval"]
