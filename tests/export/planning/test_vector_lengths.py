"""Models without Normalize: vectors keep their lengths, and are compared by the cosine or dot product of the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from embedpack import Embedder, Embeddings, InputError, search, similarity
from embedpack.cli.main import main
from embedpack.errors import OptionError
from embedpack.pack.folder import read_pack
from embedpack.pack.task_codec import TaskCodec
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codes import PRECISIONS, Precision
from embedpack.vectors.metric import UNIT, Metric
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import make_plan
from embedpack_export.reference.torch.text_model import TextModel
from tests.helpers.exports import calibration_file, distance, edit_json, quick
from tests.helpers.module_folders import TEXTS, dense, oracle, pooling, save_modules, save_on
from tests.helpers.peft_oracle import save_adapter
from tests.helpers.plans import plan, refuse
from tests.helpers.tiny_checkpoint import WORDS, make_checkpoint
from tests.helpers.tiny_decoder import make_decoder
from tests.helpers.tiny_families import FAMILIES

DIMENSIONS = 24


@dataclass(frozen=True)
class Case:
    folder: Path
    pack: Path
    expected: Float32  # vectors of sentence-transformers


def made(folder: Path, similarity_fn: str) -> Case:
    head = [pooling("mean_sqrt_len_tokens"), dense(32, DIMENSIONS, torch.nn.GELU())]
    checkpoint = save_modules(folder / "checkpoint", *head, similarity_fn_name=similarity_fn)
    edit_json(checkpoint / "config_sentence_transformers.json", matryoshka_dims=[8])
    export(replace(quick(checkpoint, folder / "pack"), calibrate=calibration_file(folder, TEXTS)))
    return Case(checkpoint, folder / "pack", oracle(checkpoint, prompt=""))


@pytest.fixture(scope="module")
def cosine(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made(tmp_path_factory.mktemp("cosine"), "cosine")


@pytest.fixture(scope="module")
def dot(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made(tmp_path_factory.mktemp("dot"), "dot")


@pytest.fixture(params=["cosine", "dot"])
def case(request: pytest.FixtureRequest) -> Case:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Case)
    return found


def encode(case: Case, precision: Precision = "float32", weights: str = "fp32") -> Embeddings:
    return Embedder(case.pack, weights=weights).encode(list(TEXTS), prompt_name="", precision=precision)


def lengths(vectors: Float32) -> Float32:
    return np.asarray(np.linalg.norm(vectors, axis=1), np.float32)


def directions(vectors: Float32) -> Float32:
    return vectors / lengths(vectors)[:, None]


def test_vectors_are_those_of_sentence_transformers_with_their_lengths(case: Case) -> None:
    found = encode(case)
    assert np.ptp(np.linalg.norm(case.expected, axis=1)) > 0.1
    np.testing.assert_allclose(found.codes, case.expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.decode(), found.codes)
    assert distance(found.codes, case.expected) <= 1e-6
    head = read_pack(case.pack).manifest.single
    assert head is not None
    assert (head.normalized, head.dimensions) == (False, DIMENSIONS)
    reference = TextModel.load(make_plan(quick(case.folder, case.pack)), None)
    np.testing.assert_allclose(reference.encode(list(TEXTS)), case.expected, rtol=1e-5, atol=1e-5)
    assert distance(encode(case, weights="int8").codes, case.expected) <= 0.02


def test_inspect_names_lengths_and_similarity(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(case.pack)]) == 0
    printed = capsys.readouterr().out
    head = plan(case.folder).single
    is_dot = head is not None and head.similarity == "dot"
    assert f"lengths of their own, compared by {'dot product' if is_dot else 'cosine'}" in printed
    assert ("precision   binary" in printed) is not is_dot


def test_similarity_is_that_of_the_model(case: Case) -> None:
    model = SentenceTransformer(str(case.folder), device="cpu")
    expected = model.similarity(torch.from_numpy(case.expected), torch.from_numpy(case.expected)).numpy()
    found = encode(case)
    np.testing.assert_allclose(similarity(found, found), expected, rtol=1e-5, atol=1e-5)
    hits = search(found, found, k=len(TEXTS))
    np.testing.assert_array_equal(hits.indices, np.argsort(-expected, axis=1, kind="stable"))
    np.testing.assert_allclose(hits.scores, -np.sort(-expected, axis=1), rtol=1e-5, atol=1e-5)


def test_the_two_similarities_rank_these_texts_differently(cosine: Case, dot: Case) -> None:
    one, other = (search(encode(case), encode(case), k=len(TEXTS)).indices for case in (cosine, dot))
    assert (one != other).any()


def test_truncated_vectors_keep_their_first_values(case: Case) -> None:
    whole = encode(case)
    cut = Embedder(case.pack, weights="fp32").encode(list(TEXTS), prompt_name="", truncate_dim=8)
    np.testing.assert_array_equal(cut.codes, whole.codes[:, :8])
    np.testing.assert_array_equal(whole.truncate(8).codes, cut.codes)
    assert whole.truncate(8).metric == whole.metric


def test_codes_of_a_cosine_model_are_those_of_its_directions(cosine: Case) -> None:
    expected = directions(cosine.expected)
    codec = TaskCodec.open(read_pack(cosine.pack), "default")
    for precision in PRECISIONS:
        found = encode(cosine, precision)
        again = codec.single(encode(cosine), precision, DIMENSIONS)
        np.testing.assert_array_equal(found.codes, again.codes)
        assert found.metric == Metric(normalized=False)
        if precision not in ("float32", "float16"):
            np.testing.assert_allclose(np.linalg.norm(found.decode(), axis=1), 1, atol=1e-5)
        if precision in ("float16", "int8"):
            assert distance(found.directions(), expected) <= 1e-4
        np.testing.assert_allclose(
            similarity(encode(cosine), found), directions(cosine.expected) @ found.directions().T, atol=1e-5
        )


def test_int8_codes_of_a_dot_model_keep_the_lengths(dot: Case) -> None:
    found = encode(dot, "int8")
    scale = found.metric.int8_scale
    assert scale is not None
    assert np.abs(found.decode() - dot.expected).max() <= 0.51 * scale
    assert np.abs(found.truncate(8).decode() - dot.expected[:, :8]).max() <= 0.51 * scale
    np.testing.assert_allclose(similarity(found, found), found.decode() @ found.decode().T, rtol=1e-5)


@pytest.mark.parametrize("precision", ["4bit", "2bit", "ternary", "binary"])
def test_low_bit_codes_of_a_dot_model_are_refused(dot: Case, precision: Precision) -> None:
    message = f"{precision} codes keep the direction of a vector, and not its length, which the dot product"
    with pytest.raises(OptionError, match=message):
        encode(dot, precision)


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_files_keep_lengths_and_similarity(case: Case, ending: str, tmp_path: Path) -> None:
    for precision in ("float32", "float16", "int8"):
        found = encode(case, precision)
        found.save(tmp_path / f"vectors.{ending}")
        loaded = Embeddings.load(tmp_path / f"vectors.{ending}")
        assert loaded.metric == found.metric
        np.testing.assert_array_equal(loaded.decode(), found.decode())


def test_vectors_of_two_metrics_are_not_compared(dot: Case) -> None:
    found = encode(dot)
    other = Embeddings(directions(found.codes), "float32", DIMENSIONS, found.space, metric=UNIT)
    with pytest.raises(InputError, match="vectors with other lengths or another similarity: Metric"):
        similarity(found, other)


@pytest.mark.parametrize("name", ["euclidean", "manhattan"])
def test_another_similarity_is_refused_by_name(dot: Case, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    save_modules(folder, pooling(), similarity_fn_name=name)
    refuse(
        folder,
        f"{folder / 'config_sentence_transformers.json'}: similarity_fn_name is {name!r}; supported: cosine, dot; "
        "vectors of this model are not ranked that way. Take one of these, if that ranking is wanted",
    )


def test_lengths_and_similarity_are_part_of_the_fingerprint(cosine: Case, dot: Case) -> None:
    one, other = plan(cosine.folder), plan(dot.folder)
    similarities = [found.single.similarity for found in (one, other) if found.single is not None]
    assert similarities == ["cosine", "dot"]
    assert one.fingerprint != other.fingerprint


def test_an_export_that_is_compared_with_torch_ranks_as_the_model_does(dot: Case, tmp_path: Path) -> None:
    texts = tuple(f"{start} {word}" for start in ("the cat", "a router", "list files") for word in WORDS[30:38])
    settings = replace(
        quick(dot.folder, tmp_path / "pack", weights=("fp32", "int8"), reference="torch"),
        calibrate=calibration_file(tmp_path, texts),
    )
    manifest = export(settings)
    for variant in manifest.variants.values():
        check = variant.checks["default"]
        assert check.outcome == "within budget"
        assert check.texts == len(texts)


@pytest.mark.parametrize("similarity_fn", ["cosine", "dot"])
def test_switchable_adapters_have_the_lengths_of_merged_ones(tmp_path: Path, similarity_fn: str) -> None:
    checkpoint = save_modules(tmp_path / "checkpoint", pooling("cls"), similarity_fn_name=similarity_fn)
    adapters = {
        name: save_adapter(checkpoint, tmp_path / name, seed=seed) for seed, name in enumerate(("code", "text"))
    }
    settings = replace(
        quick(checkpoint, tmp_path / "pack", weights=("fp32",)),
        adapters=adapters,
        adapter_modes=("merged", "switchable"),
        code_center="none",
    )
    export(settings)
    for task in adapters:
        merged, switchable = (Embedder(settings.output, task=task, adapters=mode) for mode in ("merged", "switchable"))
        expected = TextModel.load(make_plan(settings), task).encode(list(TEXTS))
        for model in (merged, switchable):
            found = model.encode(list(TEXTS), prompt_name="")
            # The adapters of switchable packs are stored in float16.
            assert distance(found.codes, expected) <= 1e-6
            np.testing.assert_allclose(lengths(found.codes), lengths(expected), rtol=1e-3)
            for precision in ("int8",) if similarity_fn == "dot" else ("int8", "binary"):
                codes = model.encode(list(TEXTS), prompt_name="", precision=precision)
                assert distance(codes.directions(), expected) <= (1e-3 if precision == "int8" else 0.6)


@pytest.mark.parametrize("family", ["qwen2", "distilbert"])
def test_heads_do_not_depend_on_the_family(tmp_path: Path, family: str) -> None:
    make = make_decoder if FAMILIES[family].tower == "decoder" else make_checkpoint
    size = FAMILIES[family].config[FAMILIES[family].key("hidden_size")]
    plain = make(tmp_path / "plain", family)
    head = [Pooling(size, pooling_mode="weightedmean"), dense(size, DIMENSIONS, torch.nn.Tanh())]
    checkpoint = save_on(plain, tmp_path / "checkpoint", *head)
    export(quick(checkpoint, tmp_path / "pack", weights=("fp32",)))
    found = Embedder(tmp_path / "pack").encode(list(TEXTS), prompt_name="")
    np.testing.assert_allclose(found.codes, oracle(checkpoint, prompt=""), rtol=1e-5, atol=1e-5)
