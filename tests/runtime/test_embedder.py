"""Users' assumptions on Embedder: a vector depends on its text alone, order is kept, nothing is silently ignored."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import string
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack import CapacityError, Embedder, InputError, PackError, similarity
from embedpack.engine.session import GraphSession
from embedpack.pack.codebooks import Codebooks, open_codebooks, write_codebooks
from embedpack.vectors.codebook import LOW_BIT
from embedpack.vectors.codes import PRECISIONS, Precision, code_width, quantize, unit
from tests.helpers.codebooks import codebook_of
from tests.helpers.tiny_pack import TINY_PACK

Open = Callable[[str], Embedder]
Edit = Callable[[Callable[[dict[str, Any]], object]], None]

FORMATS = ("fp32", "int8", "int4")
TOKENIZER = json.loads((TINY_PACK / "tokenizer.json").read_bytes())
WORDS = [word for word in TOKENIZER["model"]["vocab"] if not word.startswith("##")]
# Words in the vocabulary, special tokens among them, and some that are cut into pieces or unknown.
WORDS += ["zebra", "Kühlschrank", "猫", "😀"]
# 1 to 60 words: the longest are cut after 32 tokens.
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=60).map(" ".join)


def largest_distance(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """The largest 1 - cosine of two arrays of vectors, row by row, in float64."""
    first, second = np.asarray(left, np.float64), np.asarray(right, np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float((1 - (first * second).sum(axis=1) / lengths).max())


def option_name(value: object) -> str:
    """The name of a case: its options, without the message."""
    return ",".join(f"{key}={found!r}" for key, found in value.items()) if isinstance(value, dict) else ""


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


@pytest.fixture(params=FORMATS)
def model(request: pytest.FixtureRequest, embedder: Open) -> Embedder:
    """The tiny pack in each weights format."""
    return embedder(request.param)


@pytest.fixture
def fp32(embedder: Open) -> Embedder:
    return embedder("fp32")


# One text, one vector.


@pytest.mark.parametrize("weights", FORMATS)
@given(data=st.data())
def test_vector_is_the_same_alone_and_in_any_batch_and_order(embedder: Open, weights: str, data: st.DataObject) -> None:
    model = embedder(weights)
    texts = data.draw(st.lists(TEXTS, min_size=2, max_size=16))
    budget = data.draw(st.sampled_from([1, 40, 100, 512, 100_000]))
    order = data.draw(st.permutations(range(len(texts))))
    alone = np.concatenate([model.encode(text).codes for text in texts])
    with mock.patch("embedpack.engine.encoder.TOKEN_BUDGET", budget):
        together = model.encode([texts[index] for index in order])
    assert largest_distance(alone[order], together) <= 1e-6


def test_vector_is_the_same_beside_much_longer_texts(model: Embedder) -> None:
    short, long = "cat", "read every label " * 20
    with mock.patch("embedpack.engine.encoder.TOKEN_BUDGET", 100_000):
        together = model.encode([long] * 20 + [short] + [long] * 20)[20]
    assert largest_distance(model.encode(short), together) <= 1e-6


def test_order_is_kept_over_several_windows(fp32: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(WORDS[: 1 + index * 7 % 20]) for index in range(11)]
    expected = fp32.encode(texts)
    monkeypatch.setattr("embedpack.inputs.batching.WINDOW_ITEMS", 3)
    assert largest_distance(expected, fp32.encode(texts)) <= 1e-6


def test_same_text_twice_has_the_same_codes(model: Embedder) -> None:
    codes = model.encode(["a cat", "a house", "a cat"]).codes
    assert np.array_equal(codes[0], codes[2])


def test_other_text_has_another_vector(model: Embedder) -> None:
    assert largest_distance(model.encode("a cat sleeps"), model.encode("network error")) > 1e-3


def test_a_text_is_a_list_of_one(model: Embedder) -> None:
    single, listed = model.encode("a cat"), model.encode(["a cat"])
    assert len(single) == 1
    assert np.array_equal(single.codes, listed.codes)
    assert np.array_equal(single.codes, model.encode(("a cat",)).codes)


def test_number_of_threads_does_not_change_a_vector(tiny: Path, model: Embedder) -> None:
    other = Embedder(tiny, variant=model.variant, threads=3)
    texts = [" ".join(WORDS[:length]) for length in (1, 5, 30)]
    assert largest_distance(model.encode(texts), other.encode(texts)) <= 1e-6


def test_calls_from_several_threads_do_not_mix(model: Embedder) -> None:
    texts = [" ".join(WORDS[start : start + 5]) for start in range(20)]
    expected = [model.encode(text).codes for text in texts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: model.encode(text).codes, texts))
    assert largest_distance(np.concatenate(expected), np.concatenate(found)) <= 1e-6


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_quantized_weights_stay_near_fp32_on_this_cpu(embedder: Open, weights: str) -> None:
    texts = ["how do i reset the router?", "a cat sleeps on the warm roof", "network error: disk full"]
    assert largest_distance(embedder("fp32").encode(texts), embedder(weights).encode(texts)) < 0.005


def test_vectors_have_unit_length(model: Embedder) -> None:
    assert np.allclose(np.linalg.norm(model.encode(["a cat", "house"]).codes, axis=1), 1, atol=1e-6)


def test_embeddings_say_what_they_are(fp32: Embedder) -> None:
    embeddings = fp32.encode(["a cat", "a house"], truncate_dim=16, precision="int8")
    assert (embeddings.precision, embeddings.dimensions, embeddings.codes.shape) == ("int8", 16, (2, 16))
    assert embeddings.space == fp32.pack.manifest.space("default")


def test_vector_space_is_that_of_the_weights_source_not_of_the_variant(embedder: Open) -> None:
    assert len({embedder(weights).encode("a cat").space for weights in FORMATS}) == 1


# Prompts.


@pytest.mark.parametrize("name", ["query", "passage"])
def test_prompt_is_the_prefix_typed_by_hand(model: Embedder, name: str) -> None:
    with_prompt = model.encode("a warm cat", prompt_name=name)
    assert np.array_equal(with_prompt.codes, model.encode(f"{name}: a warm cat").codes)


def test_prompt_changes_the_vector(fp32: Embedder) -> None:
    plain, query, passage = (fp32.encode("a cat", prompt_name=name) for name in (None, "query", "passage"))
    assert min(largest_distance(plain, query), largest_distance(query, passage)) > 1e-3


def test_default_prompt_is_used_unless_another_is_named(pack: Path, edit: Edit, fp32: Embedder) -> None:
    edit(lambda manifest: manifest["tasks"]["default"].update(default_prompt_name="query"))
    model = Embedder(pack, weights="fp32", threads=1)
    assert np.array_equal(model.encode("a cat").codes, fp32.encode("query: a cat").codes)
    named = model.encode("a cat", prompt_name="passage")
    assert np.array_equal(model.encode("a cat", prompt_name="").codes, fp32.encode("a cat").codes)
    assert np.array_equal(named.codes, fp32.encode("passage: a cat").codes)


def test_empty_prompt_is_a_prompt(pack: Path, edit: Edit, fp32: Embedder) -> None:
    edit(lambda manifest: manifest["tasks"]["default"].update(prompts={"query": {"prefix": "query: "}, "none": {}}))
    model = Embedder(pack, weights="fp32", threads=1)
    assert np.array_equal(model.encode("a cat", prompt_name="none").codes, fp32.encode("a cat").codes)


def test_prompts_are_those_of_the_task(fp32: Embedder) -> None:
    assert fp32.prompts == {"query": "query: ", "passage": "passage: "}


# Precisions and truncation.


@given(texts=st.lists(TEXTS, min_size=1, max_size=8))
@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_codes_of_the_graph_are_those_of_the_definition(
    embedder: Open, weights: str, precision: Precision, texts: list[str]
) -> None:
    model = embedder(weights)
    codes = model.pack.manifest.codes("default").single
    assert codes is not None
    vectors, found = model.encode(texts).codes, model.encode(texts, precision=precision)
    assert (found.codebook is not None) == (precision in LOW_BIT)
    by = codes.int8_scale if precision == "int8" else found.codebook
    assert np.array_equal(found.codes, quantize(vectors, precision, by))


def test_codebook_is_that_of_the_pack(fp32: Embedder) -> None:
    stored = open_codebooks(fp32.pack, "default").single
    assert stored is not None
    for precision in LOW_BIT:
        codebook = fp32.encode("a cat", precision=precision).codebook
        assert codebook is not None
        assert codebook.id == stored.id


@pytest.mark.parametrize("precision", ["float32", "float16", "int8", *LOW_BIT])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_vector_without_a_direction_is_refused(fp32: Embedder, precision: str, value: float) -> None:
    """Vectors of zeros or NaN are errors in every precision: codes of them would be plausible."""

    def run(*arguments: Any, **options: Any) -> Any:
        found = original(*arguments, **options)
        for array in found:
            array[-1] = 0 if array.dtype == np.int8 else value
        return found

    original = GraphSession.run
    with mock.patch.object(GraphSession, "run", autospec=True, side_effect=run), pytest.raises(PackError) as caught:
        fp32.encode(["a cat", "a cat"], precision=precision)
    folder = fp32.pack.folder
    problem = "default-fp32 computed a vector that is zero, not finite or not of length 1"
    expected = f"{folder}: {problem}; run: embedpack verify {folder}"
    assert str(caught.value) == expected


@pytest.mark.parametrize("factor", [0.99, 2.0, 1e6])
@pytest.mark.parametrize("precision", ["float32", "float16", "binary"])
def test_vector_of_another_length_is_refused(fp32: Embedder, precision: str, factor: float) -> None:
    def run(*arguments: Any, **options: Any) -> Any:
        return [array * np.float32(factor) for array in original(*arguments, **options)]

    original = GraphSession.run
    with (
        mock.patch.object(GraphSession, "run", autospec=True, side_effect=run),
        pytest.raises(PackError, match="not of length 1"),
    ):
        fp32.encode("a cat", precision=precision)


def test_codebook_that_was_changed(pack: Path) -> None:
    path = pack / "calibration" / "default.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    model = Embedder(pack, weights="fp32", threads=1)
    assert model.encode("a cat").precision == "float32"
    with pytest.raises(PackError) as caught:
        model.encode("a cat", precision="2bit")
    assert str(caught.value).startswith(f"{path}: expected sha256 ")


def test_codebook_that_cannot_be_cut_as_the_pack_says(pack: Path, replace_file: Callable[[str, bytes], None]) -> None:
    name = "calibration/default.safetensors"
    write_codebooks(pack / name, Codebooks(codebook_of(0, (16, 16)), None))
    replace_file(name, (pack / name).read_bytes())
    model = Embedder(pack, weights="fp32", threads=1)
    with pytest.raises(PackError) as caught:
        model.encode("a cat", precision="binary")
    message = "the codebook's rotation can be truncated to 16, 32 dimensions, not to 8, one of its truncate_dims"
    assert str(caught.value) == f"{pack / name}: {message}"


@pytest.mark.parametrize("dimensions", [8, 16, 32])
@pytest.mark.parametrize("precision", ["int8", *LOW_BIT])
def test_truncated_codes_are_the_prefix_of_the_full_ones(
    model: Embedder, precision: Precision, dimensions: int
) -> None:
    texts = ["a cat", "how do i reset the router"]
    full = model.encode(texts, precision=precision)
    cut = model.encode(texts, precision=precision, truncate_dim=dimensions)
    if precision != "ternary":
        assert np.array_equal(cut.codes, full.codes[:, : code_width(precision, dimensions)])
    assert np.array_equal(cut.codes, full.truncate(dimensions).codes)
    assert cut.dimensions == dimensions


@pytest.mark.parametrize("dimensions", [8, 16, 32])
@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-6), ("float16", 1e-3)])
def test_truncated_floats_are_the_prefix_at_unit_length(
    model: Embedder, precision: Precision, error: float, dimensions: int
) -> None:
    texts = ["a cat", "how do i reset the router"]
    cut = model.encode(texts, precision=precision, truncate_dim=dimensions)
    assert cut.codes.dtype == precision
    assert np.allclose(np.linalg.norm(cut.codes.astype(np.float64), axis=1), 1, atol=error)
    assert np.allclose(cut.codes, unit(model.encode(texts).codes[:, :dimensions]), atol=error)


def test_binary_needs_whole_bytes(pack: Path, edit: Edit) -> None:
    edit(lambda manifest: manifest["single"].update(truncate_dims=[12, 32]))
    model = Embedder(pack, weights="fp32", threads=1)
    assert model.encode("a cat", precision="int8", truncate_dim=12).codes.shape == (1, 12)
    message = "binary codes need a multiple of 8 dimensions, not 12"
    assert refusal(lambda: model.encode("a cat", precision="binary", truncate_dim=12)) == message


# Choosing a variant.


def test_properties_say_what_is_open(fp32: Embedder) -> None:
    assert (fp32.variant, fp32.task, fp32.tasks) == ("default-fp32", "default", ("default",))
    assert (fp32.dimensions, fp32.truncate_dims) == (32, (8, 16, 32))


def test_int8_is_the_default(tiny: Path) -> None:
    assert Embedder(tiny, threads=1).variant == "default-int8"


def test_first_variant_is_the_default_where_there_is_no_int8(pack: Path, edit: Edit) -> None:
    edit(lambda manifest: manifest["variants"].pop("default-int8"))
    assert Embedder(pack, threads=1).variant == "default-fp32"


def test_variant_by_its_name_is_that_of_task_and_weights(tiny: Path) -> None:
    by_name = Embedder(tiny, variant="default-int4", threads=1)
    by_parts = Embedder(str(tiny), task="default", weights="int4", threads=1)
    assert by_name.variant == by_parts.variant == "default-int4"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "retrieval"}, "unknown task 'retrieval'; known: default"),
        ({"task": "defualt"}, "unknown task 'defualt'; known: default; did you mean 'default'?"),
        ({"task": ""}, "unknown task ''; known: default"),
        (
            {"weights": "int16"},
            "unknown weights 'int16'; known: fp32, int8, int4; did you mean 'int8'? (task 'default')",
        ),
        ({"weights": ""}, "unknown weights ''; known: fp32, int8, int4 (task 'default')"),
        (
            {"variant": "default-int9"},
            "unknown variant 'default-int9'; known: default-fp32, default-int8, default-int4; "
            "did you mean 'default-int8'?",
        ),
        ({"variant": "default-int8", "task": "default"}, "pass either variant, or task, weights and adapters"),
        ({"variant": "default-int8", "weights": "int8"}, "pass either variant, or task, weights and adapters"),
        ({"variant": "default-int8", "adapters": "merged"}, "pass either variant, or task, weights and adapters"),
        ({"adapters": "switchable"}, "unknown adapters 'switchable'; known: merged"),
        ({"adapters": ""}, "unknown adapters ''; known: merged"),
        ({"threads": 0}, "threads is 0; it must be a whole number from 1 to 1024"),
        ({"threads": -2}, "threads is -2; it must be a whole number from 1 to 1024"),
    ],
    ids=option_name,
)
def test_unknown_option_of_opening(tiny: Path, options: dict[str, Any], message: str) -> None:
    assert refusal(lambda: Embedder(tiny, **options)) == message


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_other_text_has_a_vector(embedder: Open, text: str) -> None:
    if text.isspace():
        text += "a"
    codes = embedder("fp32").encode(text).codes
    assert np.allclose(np.linalg.norm(codes), 1, atol=1e-6)


@given(prefix=TEXTS, ending=st.text(string.printable))
def test_text_after_the_limit_does_not_matter(embedder: Open, prefix: str, ending: str) -> None:
    model = embedder("fp32")
    text = f"{prefix} {'cat ' * 40}"
    assert np.array_equal(model.encode(text).codes, model.encode(text + ending).codes)


def test_very_long_text_is_cut_with_a_warning(fp32: Embedder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "embedpack"):
        embeddings = fp32.encode(["read every label " * 33_334, "a cat", "cat " * 31])
    assert len(embeddings) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "Truncated 2 of 3 texts to 32 tokens: 0, 2 (on_long='error' stops instead)"
    ]


def test_cut_texts_are_counted_over_all_windows(
    fp32: Embedder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedpack.inputs.batching.WINDOW_ITEMS", 2)
    with caplog.at_level(logging.WARNING, "embedpack"):
        fp32.encode(["cat " * 40, "cat", "cat", "cat " * 40, "cat"])
    assert [record.getMessage() for record in caplog.records] == [
        "Truncated 2 of 5 texts to 32 tokens: 0, 3 (on_long='error' stops instead)"
    ]


def test_text_at_the_limit_is_not_cut(fp32: Embedder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "embedpack"):
        fp32.encode("cat " * 30, on_long="error")
        fp32.encode("cat " * 30)
    assert not caplog.records


def test_prompt_counts_towards_the_limit(fp32: Embedder) -> None:
    fp32.encode("cat " * 28, prompt_name="query", on_long="error")
    refusal(lambda: fp32.encode("cat " * 29, prompt_name="query", on_long="error"))


def test_long_text_is_refused_where_asked(fp32: Embedder) -> None:
    message = "text 1 has more than the 32 tokens of the model; split it, or pass on_long='truncate'"
    assert refusal(lambda: fp32.encode(["a cat", "read every label " * 33_334], on_long="error")) == message


def test_embeddings_of_a_pack_are_comparable(embedder: Open) -> None:
    texts = ["a cat sleeps", "network error"]
    queries = embedder("fp32").encode(texts)
    scores = similarity(queries, embedder("int8").encode(texts, precision="binary"))
    assert scores.shape == (2, 2)
    assert (scores.diagonal() > 0.5).all()


def test_closed_embedder(tiny: Path) -> None:
    with Embedder(tiny, weights="fp32", threads=1) as model:
        parts = model.encode_iter(["a cat", "the dog"], batch_size=1)
        assert len(next(parts)) == 1
    model.close()
    message = f"{tiny}: this Embedder is closed; open the pack again"
    actions: list[Callable[[], object]] = [
        lambda: model.encode("a cat"),
        lambda: model.encode_iter("a cat"),
        lambda: next(parts),
    ]
    for action in actions:
        assert refusal(action) == message
    assert model.dimensions == 32


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_embedder_is_neither_pickled_nor_copied(fp32: Embedder, copied: Callable[[Embedder], object]) -> None:
    with pytest.raises(TypeError) as caught:
        copied(fp32)
    assert str(caught.value) == (
        "this Embedder cannot be pickled or copied, as its graphs are loaded in this process; "
        f"open the pack in each process: Embedder({str(fp32.pack.folder)!r})"
    )


@pytest.mark.parametrize("method", ["encode", "encode_iter"])
def test_full_memory_is_a_capacity_error(fp32: Embedder, method: str) -> None:
    with mock.patch.object(GraphSession, "run", side_effect=MemoryError), pytest.raises(CapacityError) as caught:
        list(getattr(fp32, method)(["a cat"]))
    assert str(caught.value) == "the memory is full; free some, or pass fewer or smaller inputs at a time"


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**10, 1.5, "2"])
def test_number_of_threads(tiny: Path, threads: Any) -> None:
    message = f"threads is {threads!r}; it must be a whole number from 1 to 1024"
    assert refusal(lambda: Embedder(tiny, threads=threads)) == message
