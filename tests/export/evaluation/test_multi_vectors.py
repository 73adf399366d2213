"""Packs with multi-vectors and images: MaxSim, pooling, codes of tokens, files of images, the torch reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.checkpoints.make_v4 import make_v4
from embedpack import Embedder, InputError
from embedpack.cli.main import main
from embedpack.pack.folder import read_pack
from embedpack.pack.task_codec import TaskCodec
from embedpack_export.evaluation.scoring.encoding import encode_multi, inspect_inputs, pooled
from embedpack_export.pipeline import export
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.opening import ReferenceSource, open_reference
from embedpack_export.reference.protocol import Input
from tests.helpers.evaluation_sets import write_lines, write_retrieval
from tests.helpers.exports import calibration_file, distance
from tests.helpers.tiny_pack import TINY_PACK


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the layout of jina-embeddings-v4 and its pack; tests only read them."""
    folder = tmp_path_factory.mktemp("multi")
    checkpoint = make_v4(folder / "v4")
    export(
        ExportSettings(
            checkpoint=checkpoint,
            output=folder / "pack",
            tasks=("retrieval",),
            weights=("fp32",),
            adapter_modes=("switchable",),
            calibrate=calibration_file(folder),
            allow_loss=100.0,
        )
    )
    return folder


@pytest.fixture
def visual(tmp_path: Path) -> Path:
    """Two pictures and a question about each."""
    folder = tmp_path / "data" / "visual"
    write_lines(folder / "corpus.jsonl", [{"id": f"d{row}", "image": f"images/{row}.png"} for row in range(2)])
    write_lines(folder / "queries.jsonl", [{"id": f"q{row}", "text": "a cat sleeps"} for row in range(2)])
    (folder / "qrels.tsv").write_text("q0\td0\t1\nq1\td1\t1\n")
    (folder / "images").mkdir()
    for row in range(2):
        pixels = np.random.default_rng(row).integers(0, 256, (240, 320, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{row}.png")
    return tmp_path / "data"


def test_pooled_codes_of_tokens_are_those_of_the_embedder(home: Path) -> None:
    model = Embedder(home / "pack", threads=1)
    texts = ["the cat sleeps on the warm roof and reads every label of the shelf", "rain"]
    whole = encode_multi(model, "retrieval", texts, "passage")
    infos = inspect_inputs(model.pack, "retrieval", texts, "passage")
    assert [info.tokens for info in infos] == whole.counts.tolist()
    codec = TaskCodec.open(model.pack, "retrieval")
    for precision in ("float32", "float16", "int8", "2bit", "binary"):
        for factor in (1, 2):
            made = codec.multi(pooled(whole, infos, factor), precision)
            expected = model.encode_multi(texts, prompt_name="passage", precision=precision, pool_factor=factor)
            assert (made.offsets == expected.offsets).all()
            assert (made.codes == expected.codes).mean() > (0.99 if precision == "int8" and factor == 1 else 0.9999)


def test_images_and_tokens_of_torch_and_of_the_graph_agree(home: Path, visual: Path) -> None:
    pack = read_pack(home / "pack")
    inputs: list[Input] = ["a cat sleeps", visual / "visual" / "images" / "0.png"]
    torch = open_reference(pack, ReferenceSource(home / "v4", {}, None), 1)
    graph = open_reference(pack, ReferenceSource(None, {}, None), 1)
    prompt = pack.manifest.tasks["retrieval"].prompt("passage").prefix
    one, other = (item.single("retrieval", inputs, prompt) for item in (torch, graph))
    assert distance(one, other) < 1e-5
    for first, second in zip(*(item.multi("retrieval", inputs, prompt) for item in (torch, graph)), strict=True):
        assert distance(first, second) < 1e-5


def test_multi_vectors_and_images_are_measured(home: Path, visual: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    options = ["--data", str(visual), "--no-cache", "--threads", "1", "--precision", "int8", "--json", str(path)]
    assert main(["bench", "accuracy", str(home / "pack"), *options]) == 1
    (task,) = json.loads(path.read_text())["accuracy"]["tasks"]
    assert task["sets"][0]["kind"] == "visual"
    assert "images" in task["cosines"][0]["lengths"]
    single, *multi = task["settings"]
    assert (single["setting"]["vectors"], single["decides_exit_status"]) == ("single", True)
    factors = [(row["setting"]["pool_factor"], row["decides_exit_status"]) for row in multi]
    assert factors == [(1, True), (2, False), (4, False)]
    assert multi[0]["sets"][0]["cosine"]["min"] > 0.99
    assert multi[1]["sets"][0]["cosine"] is None
    assert multi[2]["bytes"] < multi[1]["bytes"] < multi[0]["bytes"]


def test_multi_vectors_can_be_left_out(home: Path, visual: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    options = ["--data", str(visual), "--no-multi", "--threads", "1", "--precision", "int8", "--json", str(path)]
    assert main(["bench", "accuracy", str(home / "pack"), *options]) == 1
    (task,) = json.loads(path.read_text())["accuracy"]["tasks"]
    assert [item["setting"]["vectors"] for item in task["settings"]] == ["single"]


def test_sets_of_images_are_left_out_of_packs_that_read_texts(visual: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "accuracy", str(TINY_PACK), "--data", str(visual)]) == 1
    assert "visual: its documents are images, and the pack reads texts only" in capsys.readouterr().err
    write_retrieval(visual / "words")
    options = ["--variant", "default-fp32", "--precision", "float32", "--max-loss", "9"]
    assert main(["bench", "accuracy", str(TINY_PACK), "--data", str(visual), *options]) == 0
    assert "skipped: visual: its documents are images" in capsys.readouterr().out


def test_a_text_only_torch_reference_refuses_images(visual: Path) -> None:
    from embedpack_export.reference.torch.text_model import texts_of

    with pytest.raises(InputError, match="reads texts only; leave out sets with images"):
        texts_of([visual / "visual" / "images" / "0.png"])
