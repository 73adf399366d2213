"""`Embedder` on a pack that reads images, has several tasks and multi-vectors."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from embedpack import Embedder, Embeddings, InputError, MultiEmbeddings, maxsim, pdf_pages, similarity
from embedpack.pack.input_recipes import QwenImage
from embedpack.pack.strict import AdapterMode
from embedpack.server.served_packs import ServedPacks
from embedpack.server.settings import PackSettings, ServeSettings
from embedpack.vectors.codebook import LOW_BIT
from tests.helpers.asgi import get, post
from tests.helpers.documents import python_blocks
from tests.helpers.server import Running, start_app

LIMIT = 20_000


@pytest.fixture(scope="module")
def merged(v4: Path) -> Embedder:
    return Embedder(v4, task="retrieval", threads=1)


@pytest.fixture(scope="module")
def switchable(v4: Path) -> Embedder:
    return Embedder(v4, adapters="switchable", threads=1)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


def test_merged_is_the_default_and_a_task_opens_its_variant(v4: Path) -> None:
    assert Embedder(v4, task="code", threads=1).variant == "code-int8"
    assert Embedder(v4, task="code", adapters="switchable", threads=1).variant == "switchable-int8"
    assert Embedder(v4, task="code", adapters="switchable", threads=1).task == "code"
    assert Embedder(v4, variant="switchable-int8", threads=1).task is None


def test_the_settings_of_images_are_among_the_files_a_pack_was_made_of(merged: Embedder) -> None:
    """Other sizes or means give other vectors, which must not pass for comparable ones."""
    assert "preprocessor_config.json" in merged.pack.manifest.source.files


def test_pages_of_a_pdf_give_what_their_list_gives(merged: Embedder, files: Path) -> None:
    report = files / "report.pdf"
    pages = list(pdf_pages(report))
    assert len(pages) == 10
    single = merged.encode(pdf_pages(report), max_pixels=LIMIT)
    assert isinstance(single, Embeddings)
    assert (len(single), single.max_pixels) == (10, LIMIT)
    assert similarity(single, merged.encode(pages, max_pixels=LIMIT)).diagonal().min() > 0.9999
    multi = merged.encode_multi(pdf_pages(report), max_pixels=LIMIT, precision="float16")
    assert isinstance(multi, MultiEmbeddings)
    listed = merged.encode_multi(pages, max_pixels=LIMIT, precision="float16")
    assert (multi.max_pixels, multi.precision) == (LIMIT, "float16")
    assert np.array_equal(multi.offsets, listed.offsets)
    assert (maxsim(multi, listed).argmax(axis=1) == np.arange(10)).all()


def test_the_code_of_the_guide_runs(v4: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *_, code, _ = python_blocks("docs/guide.md")
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs" / "v4").symlink_to(v4)
    (tmp_path / "report.pdf").symlink_to(files / "report.pdf")
    monkeypatch.chdir(tmp_path)
    found: dict[str, np.ndarray] = {}
    exec(code.replace("print(", "scores = ("), found)
    assert found["scores"].shape == (1, 10)


def test_fewer_pixels_make_fewer_tokens(merged: Embedder, files: Path) -> None:
    full, small = (merged.encode_multi(files / "first.png", max_pixels=limit) for limit in (None, 3136))
    assert (full.max_pixels, small.max_pixels) == (None, 3136)
    assert full.counts[0] > small.counts[0]


def test_each_input_has_its_own_task(switchable: Embedder, files: Path) -> None:
    inputs: list[str | Path] = ["a cat", files / "first.png", "def double(x): return 2 * x", "where is it"]
    tasks = ["retrieval", "code", "code", "retrieval"]
    together = switchable.encode(inputs, task=tasks)
    assert together.space == "+".join(switchable.pack.manifest.space(task) for task in ("code", "retrieval"))
    for row, (item, task) in enumerate(zip(inputs, tasks, strict=True)):
        alone = switchable.encode(item, task=task)
        assert alone.space == switchable.pack.manifest.space(task)
        assert (together.decode()[row] @ alone.decode()[0]) > 0.9999
    assert together.decode()[0] @ switchable.encode("a cat", task="code").decode()[0] < 0.9999


@pytest.mark.parametrize("precision", LOW_BIT)
def test_tasks_with_codebooks_of_their_own_are_not_mixed(switchable: Embedder, precision: str) -> None:
    tasks = ["retrieval", "code"]
    message = (
        "the tasks retrieval, code have codebooks of their own, so one result cannot hold "
        f"{precision} codes of them; encode them in a call each, or as float32, float16 or int8"
    )
    assert refusal(lambda: switchable.encode(["a cat", "x = 1"], task=tasks, precision=precision)) == message
    assert refusal(lambda: switchable.encode_multi(["a cat", "x = 1"], task=tasks, precision=precision)) == message
    assert len(switchable.encode(["a cat", "x = 1"], task="code", precision=precision)) == 2


@pytest.mark.parametrize("precision", LOW_BIT)
def test_merged_and_switchable_variants_share_the_codebooks(
    merged: Embedder, switchable: Embedder, precision: str
) -> None:
    single = [merged.encode("a cat", precision=precision)]
    single.append(switchable.encode("a cat", task="retrieval", precision=precision))
    multi = [merged.encode_multi("a cat", precision=precision)]
    multi.append(switchable.encode_multi("a cat", task="retrieval", precision=precision))
    for found in (single, multi):
        assert [item.codebook and item.codebook.id for item in found] == [
            found[0].codebook and found[0].codebook.id
        ] * 2
    assert similarity(*single)[0, 0] > 0.9
    assert (single[0].codebook and single[0].codebook.dimensions) == merged.dimensions
    assert merged.pack.manifest.multi is not None
    assert (multi[0].codebook and multi[0].codebook.dimensions) == merged.pack.manifest.multi.dimensions


def test_inputs_of_several_tasks_are_counted_together(switchable: Embedder, files: Path) -> None:
    tasks = ["retrieval", "code", "retrieval", "code"]
    inputs = ["a cat", "x = 1", "a house", ""]
    message = "text 3 is empty; leave it out, or pass on_empty='skip'"
    assert refusal(lambda: switchable.encode(inputs, task=tasks)) == message
    broken: list[str | Path] = ["a cat", "x = 1", files / "empty.png", "y = 2"]
    assert refusal(lambda: switchable.encode(broken, task=tasks)).startswith("image 2 (")


def test_tasks_that_cannot_be_used(merged: Embedder, switchable: Embedder) -> None:
    assert refusal(lambda: switchable.encode("a cat")) == "pass task=, one of: retrieval, code"
    assert refusal(lambda: switchable.encode("a cat", task="cod")).startswith("unknown task 'cod'; ")
    message = (
        "this variant, retrieval-int8, is merged for the task 'retrieval'; open another for 'code', or the pack with "
        "adapters='switchable'"
    )
    assert refusal(lambda: merged.encode("a cat", task="code")) == message
    assert len(merged.encode("a cat", task="retrieval")) == 1


def test_pooled_rows_are_those_of_the_float32_vectors_in_every_precision(merged: Embedder, files: Path) -> None:
    items: list[str | Path] = [files / "first.png", "a long text: " + "where did I leave my keys? " * 12]
    whole = merged.encode_multi(items, max_pixels=LIMIT)
    pooled = merged.encode_multi(items, max_pixels=LIMIT, pool_factor=3)
    image = merged.pack.manifest.image
    assert isinstance(image, QwenImage)
    around = len(image.tokens_before) + len(image.tokens_after)
    patches = int(whole.counts[0]) - around
    # The rows around an image stay; a group of rows is not pooled below 8 rows.
    assert pooled.counts[0] == around + max(-(-patches // 3), min(patches, 8))
    assert pooled.counts[1] == -(-int(whole.counts[1]) // 3)
    before = len(image.tokens_before)
    np.testing.assert_allclose(pooled.decode()[0][:before], whole.decode()[0][:before], atol=1e-5)
    for precision in ("int8", "binary"):
        coded = merged.encode_multi(items, max_pixels=LIMIT, pool_factor=3, precision=precision)
        assert np.array_equal(coded.offsets, pooled.offsets)
        cosines = (np.concatenate(coded.decode()) * np.concatenate(pooled.decode())).sum(axis=1)
        assert cosines.mean() > (0.999 if precision == "int8" else 0.7)


@pytest.mark.parametrize("factor", [0, -1, 1.5, "3"])
def test_a_pool_factor_is_a_whole_number(merged: Embedder, factor: object) -> None:
    message = refusal(lambda: merged.encode_multi("a cat", pool_factor=factor))  # type: ignore[arg-type]
    assert message == f"pool_factor is {factor!r}; it must be a whole number of at least 1"


def test_empty_texts_of_several_tasks(v4: Path) -> None:
    model = Embedder(v4, adapters="switchable")
    texts, tasks = ["a cat", "", "a dog", " "], ["retrieval", "code", "code", "retrieval"]
    expected = model.encode(["a cat", "a dog"], task=["retrieval", "code"]).codes
    skipped = model.encode(texts, task=tasks, on_empty="skip")
    assert skipped.ids == ("0", "2")
    np.testing.assert_allclose(skipped.codes, expected, atol=1e-6)
    zero = model.encode(texts, task=tasks, on_empty="zero").codes
    np.testing.assert_allclose(zero[[0, 2]], expected, atol=1e-6)
    assert not zero[[1, 3]].any()
    assert model.encode_multi(texts, task=tasks, on_empty="zero").counts.tolist()[1::2] == [1, 1]


@pytest.fixture(scope="module")
def served(v4: Path) -> Iterator[Running]:
    """The pack twice, once in each adapter mode."""
    modes: tuple[AdapterMode, ...] = ("merged", "switchable")
    settings = ServeSettings(
        packs=tuple(PackSettings(name=mode, folder=v4, adapters=mode) for mode in modes), threads=1
    )
    packs = ServedPacks.open(settings)
    running = start_app(settings, packs, packs.load, None)
    yield running
    running.engine.stop()


@pytest.mark.parametrize("encoding", ["float", "base64", "int8", "ubinary"])
@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize(("mode", "task"), [("merged", "retrieval"), ("merged", "code"), ("switchable", "code")])
def test_vectors_over_http_are_those_of_embedder(
    served: Running, v4: Path, files: Path, mode: AdapterMode, task: str, multi: bool, encoding: str
) -> None:
    image = (files / "first.png").read_bytes()
    in_base64 = base64.b64encode(image).decode()
    inputs = ["a cat sleeps", {"image": in_base64}, {"text": "where"}, f"data:image/png;base64,{in_base64}"]
    fields = {"model": mode, "task": f"{task}.query", "embedding_type": encoding, "return_multivector": multi}
    answer = post(served.app, {**fields, "input": inputs})
    assert answer.status == 200, answer.body
    key = "embeddings" if multi else "embedding"
    assert {item["object"] for item in answer.json["data"]} == {key}
    precision = {"int8": "int8", "ubinary": "binary"}.get(encoding, "float32")
    embedder = Embedder(v4, task=task, adapters=mode, threads=1)
    encode = embedder.encode_multi if multi else embedder.encode
    expected = encode(["a cat sleeps", image, "where", image], prompt_name="query", precision=precision)
    for item, vectors in zip(answer.json["data"], expected, strict=True):
        rows = item[key] if multi else [item[key]]
        if encoding == "base64":
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        assert np.array_equal(np.array(rows, vectors.codes.dtype), vectors.codes)


@pytest.mark.parametrize("multi", [False, True])
def test_a_pdf_over_http_has_the_vectors_of_its_pages(served: Running, v4: Path, tmp_path: Path, multi: bool) -> None:
    path = tmp_path / "two.pdf"
    first, second = (PIL.Image.new("RGB", (60, 90), color) for color in ("red", "blue"))
    first.save(path, save_all=True, append_images=[second])
    pdf = {"pdf": "data:application/pdf;base64," + base64.b64encode(path.read_bytes()).decode()}
    fields = {"model": "merged", "task": "retrieval.passage", "input": pdf, "return_multivector": multi}
    answer = post(served.app, fields)
    assert answer.status == 200, answer.body
    embedder = Embedder(v4, task="retrieval", threads=1)
    encode = embedder.encode_multi if multi else embedder.encode
    expected = encode(list(pdf_pages(path)), prompt_name="passage")
    for item, vectors in zip(answer.json["data"], expected, strict=True):
        rows = item["embeddings"] if multi else [item["embedding"]]
        assert np.array_equal(np.array(rows, np.float32), vectors.codes)
    assert b'stage_seconds_count{stage="render"}' in get(served.app, "/metrics").body


def test_multi_vectors_have_the_dimensions_of_their_head_over_http(served: Running) -> None:
    fields = {"model": "merged", "task": "code.query", "input": "a cat", "return_multivector": True}
    assert post(served.app, {**fields, "dimensions": 8}).json["errors"][0]["field"] == "dimensions"
    assert post(served.app, {**fields, "dimensions": 16}).status == 200
    assert post(served.app, {**fields, "task": "retrieval.query"}).status == 200


def test_models_are_listed_with_their_tasks(served: Running) -> None:
    models = get(served.app, "/v1/models").json["data"]
    assert [model["id"] for model in models] == ["merged", "switchable"]
    assert {"retrieval.query", "code.passage"} <= set(models[0]["tasks"])
    assert models[0]["input_modalities"] == ["text", "image"]
