"""Limits, markers, fills and skipped tokens of prompts: multi-vectors of sentence-transformers' MultiVectorEncoder."""

from __future__ import annotations

import json
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from embedpack import Embedder, InputError, MultiEmbeddings, PackError
from embedpack.cli.main import main
from embedpack.pack.input_recipes import Prompt
from embedpack.vectors.token_pooling import pool_rows
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import make_plan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.prompt_prefix import prefix_of
from embedpack_export.reference.torch.text_model import TextModel
from tests.helpers.exports import calibration_file, distance
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.token_projector import SIZE, TASKS, save_tasks

pytest.importorskip("sentence_transformers", minversion="6")

TEXTS = ["how do i reset the router?", "a", "the cat, sleeps: on the warm roof, while the rain is blue!", "..."]
TOKENS = ("[Q]", "[D]", "[MASK]")
LENGTH, DOCUMENT_LENGTH = 9, 20
FLAGS = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ExportSettings:
    """An exported checkpoint with a projector, and with tokens for markers and fills."""
    root = tmp_path_factory.mktemp("rules")
    folder = make_checkpoint(root / "checkpoint", vocab_size=300)
    content = json.loads((folder / "tokenizer.json").read_text())
    first = len(content["model"]["vocab"])
    content["added_tokens"] += [
        {"id": first + row, "content": token, "special": True, **FLAGS} for row, token in enumerate(TOKENS)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    adapter = save_tasks(folder, root / "adapters")
    made = ExportSettings(
        checkpoint=folder,
        output=root / "pack",
        adapters=dict.fromkeys(TASKS, adapter),
        weights=("fp32",),
        calibrate=calibration_file(root),
        reference="fp32 graph",
    )
    export(made)
    return made


@pytest.fixture
def edited(settings: ExportSettings, tmp_path: Path) -> Callable[..., Embedder]:
    """Opens the pack with other prompts of the task retrieval."""

    def open_with(**prompts: dict[str, Any]) -> Embedder:
        shutil.copytree(settings.output, tmp_path / "pack", dirs_exist_ok=True)
        manifest = json.loads((settings.output / "pack.json").read_text())
        manifest["tasks"]["retrieval"].update(prompts=prompts, default_prompt_name=None)
        (tmp_path / "pack" / "pack.json").write_text(json.dumps(manifest))
        return Embedder(tmp_path / "pack", task="retrieval")

    return open_with


def token_id(settings: ExportSettings, token: str) -> int:
    content = json.loads((settings.checkpoint / "tokenizer.json").read_text())
    added = {entry["content"]: entry["id"] for entry in content["added_tokens"]}
    return int(added.get(token, content["model"]["vocab"].get(token)))


def judge(settings: ExportSettings, **options: Any) -> Any:
    """The MultiVectorEncoder of the checkpoint with the unmerged adapter and its projector."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.sentence_transformer.modules import Normalize

    reference = TextModel.load(make_plan(settings), "retrieval")
    skip = options.pop("skip", [])
    transformer = Transformer(str(settings.checkpoint), **options)
    transformer.model = reference.model
    projection = Dense(32, SIZE, activation_function=torch.nn.Identity(), module_input_name="token_embeddings")
    projection.linear = cast("torch.nn.Linear", reference.model.multi_vector_projector)
    modules = [transformer, projection, MultiVectorMask(skiplist_words=skip), Normalize("token_embeddings")]
    return MultiVectorEncoder(modules=modules, prompts={"query": "[Q]", "document": "[D]"}, device="cpu")


def assert_equal(found: list[Any], expected: list[Any]) -> None:
    assert [len(vectors) for vectors in found] == [len(vectors) for vectors in expected]
    for one, other in zip(found, expected, strict=True):
        assert distance(one, np.asarray(other)) <= 1e-6


@pytest.mark.parametrize("attended", [True, False])
def test_queries(settings: ExportSettings, edited: Callable[..., Embedder], attended: bool) -> None:
    expansion = {"strategy": "fixed", "token": "[MASK]", "length": LENGTH, "attend": attended}
    expected = judge(settings, query_expansion=expansion).encode_query(TEXTS)
    fill = {"token": token_id(settings, "[MASK]"), "length": LENGTH, "attended": attended}
    model = edited(query={"marker": token_id(settings, "[Q]"), "max_tokens": LENGTH, "fill": fill})
    found = model.encode_multi(TEXTS, prompt_name="query").decode()
    assert [len(vectors) for vectors in found] == [LENGTH] * len(TEXTS)
    assert_equal(found, list(expected))
    # Alone, in another batch, pooled: the vectors of a text do not depend on other texts.
    alone = model.encode_multi(TEXTS[1], prompt_name="query").decode()
    assert distance(alone[0], found[1]) <= 1e-6
    pooled = model.encode_multi(TEXTS[1], prompt_name="query", pool_factor=4).decode()
    assert_equal(pooled, alone)


@pytest.mark.parametrize("punctuation", [True, False])
def test_documents(settings: ExportSettings, edited: Callable[..., Embedder], punctuation: bool) -> None:
    words = [] if punctuation else list(string.punctuation)
    expected = judge(settings, document_length=DOCUMENT_LENGTH, skip=words).encode_document(TEXTS)
    marker, skip = token_id(settings, "[D]"), [token_id(settings, word) for word in words]
    model = edited(document={"marker": marker, "max_tokens": DOCUMENT_LENGTH, "skip": skip})
    found = model.encode_multi(TEXTS, prompt_name="document").decode()
    assert_equal(found, list(expected))
    assert len(found[3]) == (6 if punctuation else 3)
    # Pooling merges like tokens among those that are left; special tokens keep their own vectors.
    (item,) = model._encoder.processor.process(
        model._encoder.processor.items([TEXTS[2]]), model.pack.manifest.tasks["retrieval"].prompts["document"]
    )
    (pooled,) = model.encode_multi(TEXTS[2], prompt_name="document", pool_factor=2).decode()
    expected_rows = pool_rows(found[2], item.of_multi_vector(item.unpooled), 2)
    assert item.of_multi_vector(item.unpooled).sum() == 3
    assert distance(pooled, expected_rows) <= 1e-6
    assert len(pooled) < len(found[2])


def test_marker_limit_and_skipped_tokens_by_hand(settings: ExportSettings, edited: Callable[..., Embedder]) -> None:
    """Ids put together in numpy, and run without any rule."""
    marker, comma = token_id(settings, "[D]"), token_id(settings, ",")
    model = edited(document={"prefix": "find: ", "marker": marker, "max_tokens": 8, "skip": [comma, 5]}, plain={})
    text = "the cat, sleeps, on a roof"
    plain = TextModel.load(make_plan(settings), "retrieval")
    processor = model._encoder.processor
    (whole,) = processor.process(processor.items([text]), "find: ")
    start, *inner, end = whole.ids.tolist()
    ids = [start, marker, *inner[: 8 - 3], end]
    with torch.inference_mode():
        vectors = plain._token_vectors(plain._hidden_states(np.array([ids]))[0])
    expected = vectors[[number not in (comma, 5) for number in ids]]
    (found,) = model.encode_multi(text, prompt_name="document").decode()
    assert distance(found, expected) <= 1e-6
    assert len(model.encode_multi(text, prompt_name="plain").decode()[0]) == len(whole.ids) - 2


def test_texts_beyond_the_limit_of_a_prompt(
    settings: ExportSettings, edited: Callable[..., Embedder], caplog: pytest.LogCaptureFixture
) -> None:
    model = edited(query={"marker": token_id(settings, "[Q]"), "max_tokens": 6}, document={})
    fits, long = "the cat sleeps", "the cat sleeps on"
    assert len(model.encode_multi([fits], prompt_name="query", on_long="error").decode()[0]) == 6
    with pytest.raises(InputError, match=r"^text 1 has more than the 6 tokens of the prompt; split it, or pass "):
        model.encode_multi([fits, long], prompt_name="query", on_long="error")
    model.encode_multi([long], prompt_name="document", on_long="error")
    model.encode_multi([fits, long, long], prompt_name="query")
    message = "Truncated 2 of 3 texts to 6 tokens: 1, 2 (on_long='error' stops instead)"
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [message]


def test_the_command_line(settings: ExportSettings, edited: Callable[..., Embedder], tmp_path: Path) -> None:
    fill = {"token": token_id(settings, "[MASK]"), "length": 6, "attended": False}
    document = {"max_tokens": 8, "skip": [token_id(settings, ",")]}
    model = edited(query={"marker": token_id(settings, "[Q]"), "max_tokens": 6, "fill": fill}, document=document)
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    out, summary = tmp_path / "out.npz", tmp_path / "summary.json"
    command = ["embed", str(model.pack.folder), str(tmp_path / "texts.txt"), "--task", "retrieval", "--multi"]
    for name, limit, cut in (("query", 6, ["1", "3"]), ("document", 8, ["1", "3"])):
        options = ["--prompt-name", name, "-o", str(out), "--json", str(summary), "--overwrite"]
        assert main([*command, *options]) == 0
        assert_equal(MultiEmbeddings.load(out).decode(), model.encode_multi(TEXTS, prompt_name=name).decode())
        assert json.loads(summary.read_text())["truncated"] == {"count": 2, "max_tokens": limit, "ids": cut}


def test_a_text_whose_tokens_are_all_skipped(settings: ExportSettings, edited: Callable[..., Embedder]) -> None:
    model = edited(document={"skip": list(range(300))})
    message = r"^text 0 has no vector: its prompt leaves out all of its tokens; leave it out"
    with pytest.raises(InputError, match=message):
        model.encode_multi(["a cat"], prompt_name="document")


def test_a_prefix_alone_has_no_other_rules() -> None:
    assert prefix_of(Prompt(prefix="see: ")) == prefix_of("see: ") == "see: "
    with pytest.raises(InputError, match="takes text prefixes alone, and the prompt has a limit, a marker, a fill or"):
        prefix_of(Prompt(prefix="find: ", marker=5))


def test_a_limit_without_room_for_a_text(edited: Callable[..., Embedder]) -> None:
    with pytest.raises(PackError, match="max_tokens of a prompt is 3, but 3 special tokens are added to a text"):
        edited(query={"marker": 5, "max_tokens": 3})
