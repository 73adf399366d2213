"""Late chunking of exported packs against slices of one run of transformers, in one window and in several."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedpack import Embedder, InputError
from embedpack.errors import OptionError
from embedpack.vectors.codes import PRECISIONS
from embedpack_export.pipeline import export
from tests.helpers.exports import exactly, quick
from tests.helpers.peft_oracle import last_hidden_states, load_model
from tests.helpers.slice_means import chunk_of_tokens, slice_means, states_in_windows
from tests.helpers.tiny_checkpoint import WORDS, make_checkpoint

TOLERANCE = 1e-6
LIMIT = 32
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
# Up to 60 words: up to three windows of 32 tokens.
CHUNKS = st.lists(TEXTS, min_size=1, max_size=10)
SHORT = ("the cat sleeps", "on a warm roof", "in the rain : read every label")


@dataclass(frozen=True, eq=False)
class Exported:
    """A pack with its model in transformers."""

    pack: Path
    tokenizer: Tokenizer
    reference: Any

    def model(self, weights: str = "fp32") -> Embedder:
        return Embedder(self.pack, weights=weights, threads=1)

    def hidden(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return last_hidden_states(self.reference, ids[None], np.ones_like(ids)[None])[0]

    def expected(self, chunks: Sequence[str], prompt: str = "") -> npt.NDArray[np.float64]:
        encoding = self.tokenizer.encode(prompt + " ".join(chunks))
        head = 1 + len(self.tokenizer.encode(prompt, add_special_tokens=False).ids)
        if len(encoding.ids) > LIMIT:
            states = states_in_windows(self.hidden, encoding.ids, range(head, len(encoding.ids) - 1), LIMIT)
        else:
            states = self.hidden(np.array(encoding.ids))
        return slice_means(states, chunk_of_tokens(encoding, prompt, chunks))


@pytest.fixture(scope="module", params=["bert", "xlm-roberta"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    checkpoint = make_checkpoint(tmp_path_factory.mktemp("chunks") / "toy", request.param)
    pack = checkpoint.parent / "pack"
    assert export(quick(checkpoint, pack, weights=("fp32", "int8"))).late_chunking
    return Exported(pack, Tokenizer.from_file(str(checkpoint / "tokenizer.json")), load_model(checkpoint))


@given(documents=st.lists(CHUNKS, min_size=1, max_size=3), prompt=st.sampled_from(["", "passage"]))
def test_chunks_are_slices_of_one_run(made: Exported, documents: list[list[str]], prompt: str) -> None:
    found = made.model().encode_chunks(documents, prompt_name=prompt).codes
    prefix = f"{prompt}: " if prompt else ""
    expected = np.concatenate([made.expected(chunks, prefix) for chunks in documents])
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_a_document_in_three_windows_is_a_slice_of_them(made: Exported) -> None:
    """One chunk longer than a window, and single words."""
    chunks = ["the cat sleeps on a warm roof " * 6, *WORDS[:20], "read every label twice"]
    assert len(made.tokenizer.encode(" ".join(chunks)).ids) > 2 * LIMIT
    np.testing.assert_allclose(made.model().encode_chunks(chunks).codes, made.expected(chunks), atol=TOLERANCE)


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_one_chunk_has_the_vector_of_its_text(made: Exported, weights: str) -> None:
    """The correction of the mean error of int8 included."""
    model = made.model(weights)
    for prompt in ("", "query"):
        found = model.encode_chunks([[text] for text in SHORT], prompt_name=prompt).codes
        np.testing.assert_allclose(found, model.encode(SHORT, prompt_name=prompt).codes, atol=TOLERANCE)


@settings(max_examples=10)
@given(documents=st.lists(CHUNKS, min_size=2, max_size=6), data=st.data())
def test_documents_do_not_change_each_other(made: Exported, documents: list[list[str]], data: st.DataObject) -> None:
    model = made.model()
    order = data.draw(st.permutations(range(len(documents))))
    together = model.encode_chunks([documents[row] for row in order]).codes
    alone = [model.encode_chunks(documents[row]).codes for row in order]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=TOLERANCE)


def test_a_chunk_depends_on_the_others_of_its_document(made: Exported) -> None:
    model = made.model()
    one, other = (model.encode_chunks([first, "on a warm roof"]).codes[1] for first in ("the cat", "a blue door"))
    assert one @ other < 1 - 1e-3


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dimensions", [8, 32])
def test_codes_are_those_of_the_float_vectors(made: Exported, precision: str, dimensions: int) -> None:
    """One chunk has the codes of its text but for values on a threshold."""
    model = made.model()
    found = model.encode_chunks([[text] for text in SHORT], precision=precision, truncate_dim=dimensions)
    expected = model.encode(SHORT, precision=precision, truncate_dim=dimensions)
    assert (found.precision, found.dimensions, found.space) == (precision, dimensions, expected.space)
    assert found.codes.dtype == expected.codes.dtype
    difference = np.abs(found.codes.astype(np.float64) - expected.codes)
    assert (difference > (1e-3 if precision == "float16" else TOLERANCE)).mean() < 0.05


def test_packs_that_cannot_are_refused_with_the_reason(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    for pooling in ("cls", "last"):
        export(quick(checkpoint, tmp_path / pooling, weights=("fp32",), pooling=pooling))
        message = (
            f"{tmp_path / pooling}: no late chunking: the pooling of this model is {pooling}, and only a mean of "
            "tokens can be taken for each chunk; embed the chunks one by one"
        )
        with pytest.raises(InputError, match=exactly(message)):
            Embedder(tmp_path / pooling).encode_chunks(["a", "b"])


def test_a_prompt_that_adds_tokens_is_refused(made: Exported, tmp_path: Path) -> None:
    pack = Path(shutil.copytree(made.pack, tmp_path / "pack"))
    manifest = json.loads((pack / "pack.json").read_text())
    manifest["tasks"]["default"]["prompts"]["query"]["marker"] = 5
    (pack / "pack.json").write_text(json.dumps(manifest))
    model = Embedder(pack, threads=1)
    assert len(model.encode_chunks(["a", "b"], prompt_name="passage")) == 2
    with pytest.raises(OptionError, match="under a prompt with a marker or a fill"):
        model.encode_chunks(["a", "b"], prompt_name="query")
