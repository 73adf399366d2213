"""jina-reranker-m0: texts and images are scored as by its code in torch; prompts, cuts, special tokens, refusals."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import PIL.Image
import pytest
from tokenizers import Tokenizer

from embedpack import InputError, Reranker
from embedpack.cli.main import main
from embedpack.engine.graph_scores import open_reader
from embedpack.engine.loading import open_processor
from embedpack.engine.options import ScoreSettings
from embedpack.inputs.pair_texts import Document
from embedpack.inputs.processor import ModelInput
from embedpack.pack.score_recipes import PairScores
from embedpack.server.served_packs import ServedPacks
from embedpack.server.settings import PackSettings, ServeSettings
from embedpack_export.pipeline import export
from embedpack_export.planning.source_reading import read_model_source
from embedpack_export.planning.text_inputs import TextOptions
from embedpack_export.reference.torch.text_image_pairs import TextAndImagePairs
from tests.helpers.asgi import Answer, call
from tests.helpers.exports import edit_json, edit_tensors, quick
from tests.helpers.plans import refuse
from tests.helpers.server import start_app
from tests.helpers.tiny_jina_m0 import HIDDEN, literal, make_m0

QUERY = "how do i reset a router ?"
PICTURES = [np.random.default_rng(seed).integers(0, 256, (90 + 20 * seed, 140, 3), np.uint8) for seed in range(2)]
DOCUMENTS: list[Document] = [
    "reset the router", PICTURES[0], "the cat sleeps on a warm roof", "\n\n a", PICTURES[1], "list files " * 9
]  # fmt: skip
# A document keeps 512 of them, a pair loses the end of the query.
LIMIT = 600
LONG = "the cat sleeps on " * 300


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_m0(tmp_path_factory.mktemp("m0") / "jina-reranker-m0")


@pytest.fixture(scope="module")
def pack(checkpoint: Path) -> Path:
    """The pack, whose export compares its prompts and scores with torch."""
    export(quick(checkpoint, checkpoint.parent / "pack", weights=("fp32", "int8"), reference="torch"))
    return checkpoint.parent / "pack"


@pytest.fixture(scope="module")
def model(pack: Path) -> Reranker:
    return Reranker(pack, weights="fp32", threads=1)


def read(model: Reranker, query: str, document: Document) -> ModelInput:
    scores = model.pack.manifest.score
    assert isinstance(scores, PairScores)
    reader = open_reader(model.pack.folder, scores, open_processor(model.pack))
    (found,) = reader.read(query, [document], ScoreSettings()).inputs
    return found


def judged(
    checkpoint: Path, query: str, documents: list[Document], limit: int | None = None
) -> npt.NDArray[np.float32]:
    source = read_model_source(checkpoint, adapters={}, texts=TextOptions(limit))
    return TextAndImagePairs(source).scores(query, documents)


def test_scores_of_texts_and_images_are_those_of_the_code(model: Reranker, checkpoint: Path) -> None:
    found, expected = model.score(QUERY, DOCUMENTS), judged(checkpoint, QUERY, DOCUMENTS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.argsort(found).tolist() == np.argsort(expected).tolist()
    assert np.diff(np.sort(expected)).min() > 1e-4
    alone = np.concatenate([model.score(QUERY, [document]) for document in DOCUMENTS])
    np.testing.assert_allclose(alone, found, rtol=0, atol=1e-6)
    manifest = model.pack.manifest
    assert (manifest.family, manifest.kind, manifest.text.after) == ("jina_reranker_m0", "reranker", (100,))


def test_prompts_are_the_literal_ones(model: Reranker, checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    for document in DOCUMENTS:
        found = read(model, QUERY, document)
        tokens = 0
        if not isinstance(document, str):
            assert found.image is not None
            tokens = found.image.grid[0] * found.image.grid[1] // 4
        text = document if isinstance(document, str) else f"<|vision_start|>{'<|image_pad|>' * tokens}<|vision_end|>"
        assert found.ids.tolist() == [*tokenizer.encode(literal(QUERY, text)).ids, 100]
        image = found.ids[found.image_start : found.image_start + tokens]
        assert set(image.tolist()) <= {tokenizer.token_to_id("<|image_pad|>")}


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|vision_start|>", "<|im_end|>", "<|endoftext|>"])
def test_forged_special_tokens_are_text(model: Reranker, checkpoint: Path, token: str) -> None:
    number = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).token_to_id(token)
    assert number not in read(model, f"{QUERY}{token}", f"{token}cat{token}").ids
    with_image = read(model, f"{QUERY}{token}", PICTURES[0])
    assert (with_image.ids == number).sum() == (read(model, QUERY, PICTURES[0]).ids == number).sum()


def test_cuts_are_those_of_the_code_and_counted(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    export(quick(checkpoint, tmp_path / "pack", weights=("fp32",), max_tokens=LIMIT))
    model = Reranker(tmp_path / "pack", threads=1)
    documents: list[Document] = ["cat", LONG, PICTURES[0]]
    for query in (QUERY, LONG):
        found = model.score(query, documents)
        np.testing.assert_allclose(found, judged(checkpoint, query, documents, LIMIT), rtol=0, atol=1e-5)
    # The end of the whole is lost, and the token behind it is not.
    for document in documents:
        assert (read(model, LONG, document).ids[-1], len(read(model, LONG, document).ids)) == (100, LIMIT)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        model.score(QUERY, documents)
    assert caplog.messages == ["Truncated 1 of 3 texts to 600 tokens: 1 (on_long='error' stops instead)"]
    with pytest.raises(InputError, match=r"^document 1 and the query have more than the 600 tokens of a pair"):
        model.score(QUERY, documents, on_long="error")
    with pytest.raises(InputError, match=r"^document 2 cannot be read: image 2: "):
        model.score(QUERY, ["cat", "roof", np.zeros((2, 900, 3), np.uint8)])


def test_int8_keeps_the_head_exact(pack: Path, model: Reranker) -> None:
    with Reranker(pack, weights="int8", threads=1) as int8:
        np.testing.assert_allclose(int8.score(QUERY, DOCUMENTS), model.score(QUERY, DOCUMENTS), rtol=0, atol=0.1)
    graph = onnx.load(pack / "default-int8.onnx", load_external_data=False).graph
    heads = [each for each in graph.initializer if each.name.startswith("score.")]
    assert {each.data_type for each in heads} == {onnx.TensorProto.FLOAT}
    assert max(max(each.dims) for each in heads) == HIDDEN
    for variant in model.pack.manifest.variants.values():
        (check,) = variant.checks.values()
        assert (check.reference, check.outcome) == ("torch", "within budget")


def test_commands(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("reset the router\nthe cat sleeps\n")
    assert main(["verify", str(pack)]) == 0
    assert main(["inspect", str(pack)]) == 0
    assert "scores      pairs of up to 10240 tokens, from 0 to 1\n" in capsys.readouterr().out
    assert main(["rerank", str(pack), QUERY, str(texts)]) == 0


def test_a_pack_of_texts_alone(checkpoint: Path, tmp_path: Path, model: Reranker) -> None:
    export(quick(checkpoint, tmp_path / "pack", weights=("fp32",), modality="text"))
    alone = Reranker(tmp_path / "pack", threads=1)
    texts = [document for document in DOCUMENTS if isinstance(document, str)]
    np.testing.assert_allclose(alone.score(QUERY, texts), model.score(QUERY, texts), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=r"^document 1 is an image; this pack scores texts only$"):
        alone.score(QUERY, DOCUMENTS)
    with pytest.raises(InputError, match=r"^the query is an image; this pack scores texts only$"):
        model.score(PICTURES[0], DOCUMENTS)  # type: ignore[arg-type]


def test_images_over_http(pack: Path, model: Reranker) -> None:
    settings = ServeSettings(packs=(PackSettings(name="m0", folder=pack, weights="fp32"),), threads=1)
    packs = ServedPacks.open(settings)
    running = start_app(settings, packs, packs.load, None)
    stream = io.BytesIO()
    PIL.Image.fromarray(PICTURES[0]).save(stream, "PNG")
    image = base64.b64encode(stream.getvalue()).decode()

    def rerank(*documents: object) -> Answer:
        body = {"model": "m0", "query": QUERY, "documents": documents}
        return asyncio.run(call(running.app, "POST", "/v1/rerank", json.dumps(body).encode()))

    try:
        answer = rerank("reset the router", {"image": image}, {"image": f"data:image/png;base64,{image}"})
        broken, address = rerank("cat", {"image": "aGk="}), rerank({"image": "https://example.org/cat.png"})
    finally:
        running.engine.stop()
    found = {each["index"]: each["relevance_score"] for each in answer.json["results"]}
    expected = model.score(QUERY, ["reset the router", PICTURES[0], PICTURES[0]])
    np.testing.assert_allclose([found[row] for row in range(3)], expected, rtol=0, atol=1e-6)
    assert [each for each in answer.json["results"] if "document" in each] == [
        each for each in answer.json["results"] if each["index"] == 0
    ]
    assert (broken.status, broken.json["errors"][0]["field"]) == (422, "documents[1]")
    assert (address.status, address.json["errors"][0]["field"]) == (422, "documents[0].image")


def _narrow(folder: Path) -> None:
    def change(tensors: dict[str, Any]) -> None:
        tensors["score.2.weight"] = np.ascontiguousarray(tensors["score.2.weight"][:, :-1])

    edit_tensors(folder / "model.safetensors", change)


def _without(name: str) -> Callable[[Path], object]:
    return lambda folder: edit_tensors(folder / "model.safetensors", lambda tensors: tensors.pop(name))


def _without_patch(folder: Path) -> None:
    vision = json.loads((folder / "config.json").read_text())["vision_config"]
    del vision["patch_size"]
    edit_json(folder / "config.json", vision_config=vision)


MISSING = "is missing; is a shard or a file incomplete?"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no head": (_without("score.0.bias"), f"{{folder}}: tensor 'score.0.bias' {MISSING}"),
    "a narrow head": (
        _narrow,
        "{folder}/model.safetensors: score.2.weight has the shape [1, 63], the model's code makes it [1, 64]; restore "
        "the file",
    ),
    "no norm of the vision tower": (
        _without("visual.blocks.1.norm2.bias"), f"{{folder}}: tensor 'visual.blocks.1.norm2.bias' {MISSING}"
    ),
    "a tensor of another model": (
        lambda folder: edit_tensors(
            folder / "model.safetensors", lambda tensors: tensors.update({"other.weight": np.zeros(3, np.float32)})
        ),
        "{folder}: unused tensors: other.weight; is it another architecture?",
    ),
    "a tensor of another vision tower": (
        lambda folder: edit_tensors(
            folder / "model.safetensors",
            lambda tensors: tensors.update({"visual.blocks.0.mlp.gate_proj.bias": np.zeros(3, np.float32)}),
        ),
        "{folder}: unused tensors: visual.blocks.0.mlp.gate_proj.bias; is it another architecture?",
    ),
    "no base of the positions": (
        lambda folder: edit_json(folder / "config.json", rope_theta=None),
        "{folder}/config.json: Object missing required field `rope_theta`",
    ),
    "no image token": (
        lambda folder: edit_json(folder / "config.json", image_token_id=None),
        "{folder}/config.json: Object missing required field `image_token_id`",
    ),
    "no patch size": (
        _without_patch, "{folder}/config.json: vision_config: Object missing required field `patch_size`"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_files_of_no_such_model(tmp_path: Path, name: str) -> None:
    folder = make_m0(tmp_path / "checkpoint")
    change, message = BROKEN[name]
    change(folder)
    refuse(folder, message.format(folder=folder), weights=("fp32",))
