"""The reference: torch or the fp32 graph, of the right files only, its vectors kept between runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embedpack import Embedder
from embedpack.errors import CheckpointError, InputError
from embedpack.pack.folder import Pack, read_pack
from embedpack.vectors.arrays import Float32
from embedpack_export.pipeline import export
from embedpack_export.reference.cache import CacheKey, ReferenceCache, default_cache
from embedpack_export.reference.opening import ReferenceSource, model_source_of, open_reference
from tests.helpers.exports import QUERY, distance, query_update, quick, write_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint

INPUTS = ("the cat sleeps", "list files of a folder")
KEY = CacheKey("f" * 64, "retrieval", "query: ", INPUTS)
VECTORS = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)


def adapter_of(folder: Path, seed: int) -> Path:
    """An adapter that PEFT itself would have written."""
    return write_adapter(folder, query_update(seed=seed), target_modules=[QUERY])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, an adapter, a pack of both; tests only read them."""
    folder = tmp_path_factory.mktemp("reference")
    checkpoint = make_checkpoint(folder / "toy")
    adapter = adapter_of(folder / "adapter", 1)
    export(quick(checkpoint, folder / "pack", weights=("fp32",), adapters={"retrieval": adapter}))
    return folder


@pytest.fixture
def pack(home: Path) -> Pack:
    return read_pack(home / "pack")


def source(home: Path, cache: Path | None = None) -> ReferenceSource:
    return ReferenceSource(home / "toy", {"retrieval": home / "adapter"}, cache)


def test_torch_and_the_fp32_graph_agree_under_every_prompt(home: Path, pack: Pack) -> None:
    torch = open_reference(pack, source(home), 1)
    graph = open_reference(pack, ReferenceSource(None, {}, None), 1)
    assert (torch.kind, graph.kind) == ("torch", "fp32 graph")
    seen = []
    for prompt in ("query", "passage", "unknown"):
        one, other = (
            item.single("retrieval", INPUTS, pack.manifest.tasks["retrieval"].prompt(prompt).prefix)
            for item in (torch, graph)
        )
        assert distance(one, other) < 1e-6
        seen.append(one)
    # A prompt that the task does not have is its default, here none.
    assert distance(seen[2], Embedder(home / "pack").encode(list(INPUTS)).decode()) < 1e-6
    assert distance(seen[0], seen[1]) > 1e-4
    torch.close()
    graph.close()


def test_a_checkpoint_of_another_pack_is_refused(home: Path, pack: Pack, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", seed=8)
    with pytest.raises(InputError) as told:
        model_source_of(pack, other, {"retrieval": home / "adapter"})
    message = str(told.value)
    assert message.startswith(f"{home / 'pack'} was made of other files than {other} and --adapter retrieval=")
    assert pack.manifest.source.fingerprint[:16] in message
    changed = adapter_of(tmp_path / "changed", 5)
    with pytest.raises(InputError, match="was made of other files than"):
        model_source_of(pack, home / "toy", {"retrieval": changed})


def test_without_checkpoint_and_fp32_there_is_no_reference(home: Path, tmp_path: Path) -> None:
    export(quick(home / "toy", tmp_path / "pack", weights=("int8",)))
    with pytest.raises(InputError, match="'default' has no fp32 variant to compare with; pass --reference CHECKPOINT"):
        open_reference(read_pack(tmp_path / "pack"), ReferenceSource(None, {}, None), 1)


def test_adapters_alone_are_no_reference(home: Path, pack: Pack) -> None:
    with pytest.raises(InputError, match="--adapter goes with --reference"):
        open_reference(pack, ReferenceSource(None, {"retrieval": home / "adapter"}, None), 1)


def test_the_second_run_reads_the_cache(
    home: Path, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_reference(pack, source(home, tmp_path), 1).single("retrieval", INPUTS, "query")

    def fail(*arguments: object) -> None:
        raise AssertionError("torch was asked again")

    monkeypatch.setattr("embedpack_export.reference.torch_reference.open_torch_model", fail)
    again = open_reference(pack, source(home, tmp_path), 1)
    assert (again.single("retrieval", INPUTS, "query") == first).all()
    with pytest.raises(CheckpointError, match="torch was asked again"):
        again.single("retrieval", INPUTS, "passage")


def never() -> Float32:
    raise AssertionError("computed again")


def test_vectors_come_back_as_they_were(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path / "new" / "folder")
    assert (cache.single(KEY, lambda: VECTORS) == VECTORS).all()
    assert (cache.single(KEY, never) == VECTORS).all()
    tokens = [VECTORS[:1], VECTORS]
    assert len(cache.multi(KEY, lambda: tokens)) == 2
    found = cache.multi(KEY, lambda: [never()])
    assert [(one == other).all() for one, other in zip(found, tokens, strict=True)] == [True, True]


def test_no_folder_keeps_nothing() -> None:
    cache = ReferenceCache(None)
    cache.single(KEY, lambda: VECTORS)
    assert (cache.single(KEY, lambda: VECTORS * 2) == VECTORS * 2).all()


def test_every_part_of_a_question_counts(tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(b"one")
    keys = [
        KEY,
        CacheKey("e" * 64, "retrieval", "query: ", INPUTS),
        CacheKey("f" * 64, "code", "query: ", INPUTS),
        CacheKey("f" * 64, "retrieval", "", INPUTS),
        CacheKey("f" * 64, "retrieval", "query: ", INPUTS[::-1]),
        CacheKey("f" * 64, "retrieval", "query: ", [INPUTS[0] + INPUTS[1], ""]),
        CacheKey("f" * 64, "retrieval", "query: ", ["one"]),
        CacheKey("f" * 64, "retrieval", "query: ", [image]),
    ]
    digests = [key.digest("single") for key in keys] + [KEY.digest("multi")]
    image.write_bytes(b"two")
    digests.append(keys[-1].digest("single"))
    assert len(set(digests)) == len(digests) == 10


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize(
    ("damage", "told"),
    [(flip_last_byte, "its vectors are damaged"), (cut, ""), (lambda path: path.write_bytes(b"no"), "")],
)
def test_a_damaged_file_is_told_and_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object], told: str
) -> None:
    cache = ReferenceCache(tmp_path)
    cache.single(KEY, lambda: VECTORS)
    (path,) = tmp_path.iterdir()
    damage(path)
    with caplog.at_level(logging.WARNING, "embedpack"):
        assert (cache.single(KEY, lambda: VECTORS) == VECTORS).all()
    assert str(path) in caplog.text
    assert f"{told}; it is computed again" in caplog.text
    assert (cache.single(KEY, never) == VECTORS).all()


def test_a_file_under_another_name_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = ReferenceCache(tmp_path)
    cache.single(KEY, lambda: VECTORS)
    (path,) = tmp_path.iterdir()
    other = CacheKey("f" * 64, "code", "query: ", INPUTS)
    path.rename(tmp_path / f"{other.digest('single')}.safetensors")
    assert (cache.single(other, lambda: VECTORS * 2) == VECTORS * 2).all()
    assert "its key is that of other vectors" in caplog.text


def test_an_unusable_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        ReferenceCache(tmp_path / "file").single(KEY, lambda: VECTORS)


def test_the_cache_lies_where_the_system_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "embedpack" / "reference"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_cache() == Path("/home/somebody/.cache/embedpack/reference")
