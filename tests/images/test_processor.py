"""Texts and images to the inputs of a graph, and what is refused before any work."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from embedpack.errors import CapacityError, InputError
from embedpack.host.memory import check_memory
from embedpack.inputs.items import Input
from embedpack.inputs.patches import image_patches
from embedpack.inputs.processor import ModelInput, Processor
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.inputs.vision_layout import token_positions
from embedpack.pack.input_recipes import QwenImage
from tests.helpers.tiny_checkpoint import make_tokenizer

HIDDEN = 8
SPEC = QwenImage(
    hidden=HIDDEN,
    patch_size=14,
    temporal_patch_size=2,
    merge_size=2,
    window_size=4,
    min_pixels=3136,
    max_pixels=602112,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    tokens_before=(11, 12, 13),
    token=99,
    tokens_after=(14, 15, 16, 17),
    pooled_before=1,
    pooled_after=1,
)
PADDING = 0


def processor(max_tokens: int = 300, image: QwenImage | None = SPEC) -> Processor:
    tokenizer = TextTokenizer(make_tokenizer("bert").to_str().encode(), max_tokens)
    return Processor(tokenizer, PADDING, image)


def process(reader: Processor, inputs: Iterable[Input], prompt: str = "", **options: Any) -> list[ModelInput]:
    return reader.process(reader.items(inputs), prompt, **options)


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def embeds(count: int, start: float) -> npt.NDArray[np.float32]:
    """Vectors that all differ."""
    return np.full((count, HIDDEN), start, np.float32) + np.arange(count, dtype=np.float32)[:, None]


# --- single items


def test_a_text_counts_as_a_whole() -> None:
    (item,) = process(processor(), ["the cat sleeps"], "query: ")
    # [CLS] query : the cat sleeps [SEP]
    assert len(item.ids) == 7
    assert item.ids.dtype == np.int64
    assert (item.pooled_range, item.truncated, item.image) == (slice(0, 7), False, None)


def test_a_text_over_the_limit_is_cut() -> None:
    (item,) = process(processor(max_tokens=5), ["the cat sleeps on the roof"], "")
    assert (len(item.ids), item.pooled_range, item.truncated) == (5, slice(0, 5), True)


def test_an_image_is_its_tokens_between_those_of_the_template() -> None:
    (item,) = process(processor(), [noise(84, 112)], "query: ")
    assert item.ids.tolist() == [11, 12, 13, *[99] * 12, 14, 15, 16, 17]
    # From the token in front of the image to the one behind it.
    assert (item.image_start, item.pooled_range, item.truncated) == (3, slice(2, 16), False)
    assert item.image is not None
    np.testing.assert_array_equal(item.image.rows, image_patches(noise(84, 112), SPEC).rows)


def test_the_pooled_tokens_follow_the_specification() -> None:
    spec = msgspec.structs.replace(SPEC, pooled_before=3, pooled_after=0)
    (item,) = process(processor(image=spec), [noise(56, 56)], "")
    assert item.pooled_range == slice(0, 7)


@pytest.mark.parametrize(("size", "tokens"), [((224, 224), 64), ((240, 320), 99), ((20, 20), 4), ((28, 700), 25)])
def test_tokens_of_an_image(size: tuple[int, int], tokens: int) -> None:
    (item,) = process(processor(), [noise(*size)], "")
    assert (item.ids == SPEC.token).sum() == tokens


def test_fewer_pixels_are_fewer_tokens() -> None:
    (item,) = process(processor(), [noise(240, 320)], "", max_pixels=20_000)
    assert item.image is not None
    assert item.image.grid == (8, 10)
    assert (item.ids == SPEC.token).sum() == 20


def test_texts_and_images_stay_in_their_order() -> None:
    items: list[Input] = ["the cat", noise(56, 56), "a dog", noise(84, 56)]
    found = process(processor(), items, "")
    assert [item.image is not None for item in found] == [False, True, False, True]
    for item, alone in zip(found, (process(processor(), [item], "")[0] for item in items), strict=True):
        np.testing.assert_array_equal(item.ids, alone.ids)


# --- batches


def test_inputs_of_a_model_of_texts() -> None:
    reader = processor(image=None)
    feeds = reader.collate(process(reader, ["the cat", "a"], ""), [])
    assert set(feeds) == {"input_ids", "attention_mask"}


def test_inputs_of_texts_of_a_model_of_images() -> None:
    reader = processor()
    feeds = reader.collate(process(reader, ["the cat sleeps", "a"], ""), [])
    np.testing.assert_array_equal(feeds["attention_mask"], [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    np.testing.assert_array_equal(feeds["pool_mask"], feeds["attention_mask"])
    np.testing.assert_array_equal(feeds["position_ids"], [[[0, 1, 2, 3, 4], [0, 1, 2, 0, 0]]] * 3)
    assert (feeds["image_embeds"].shape, feeds["image_embeds"].dtype.name) == ((0, HIDDEN), "float32")
    assert (feeds["image_index"].shape, feeds["image_index"].dtype.name) == ((0, 2), "int64")


def test_inputs_of_texts_and_images() -> None:
    reader = processor()
    items = process(reader, ["the cat", noise(56, 84), noise(84, 112), "a"], "")
    vectors = [embeds(6, 100), embeds(12, 200)]
    feeds = reader.collate(items, vectors)
    assert feeds["input_ids"].shape == (4, 19)
    assert (feeds["input_ids"][feeds["attention_mask"] == 0] == PADDING).all()
    # Every place of an image's token gets the next vector of that image.
    placed = np.zeros((4, 19, HIDDEN), np.float32)
    placed[tuple(feeds["image_index"].T)] = feeds["image_embeds"]
    np.testing.assert_array_equal(placed.any(-1), feeds["input_ids"] == SPEC.token)
    np.testing.assert_array_equal(placed[1, 3:9], vectors[0])
    np.testing.assert_array_equal(placed[2, 3:15], vectors[1])
    for row, grid in ((1, (2, 3)), (2, (3, 4))):
        length = int(feeds["attention_mask"][row].sum())
        np.testing.assert_array_equal(feeds["position_ids"][:, row, :length], token_positions(3, grid, 4))
        assert not feeds["position_ids"][:, row, length:].any()
        np.testing.assert_array_equal(np.flatnonzero(feeds["pool_mask"][row]), np.arange(2, grid[0] * grid[1] + 4))
    assert {name: values.dtype.name for name, values in feeds.items() if name != "image_embeds"} == dict.fromkeys(
        ("input_ids", "attention_mask", "position_ids", "pool_mask", "image_index"), "int64"
    )


def test_an_item_has_the_same_inputs_in_any_batch() -> None:
    reader = processor()
    items = process(reader, ["the cat", noise(56, 84), "a"], "")
    together = reader.collate(items, [embeds(6, 1)])
    for row, item in enumerate(items):
        alone = reader.collate([item], [embeds(6, 1)] if item.image is not None else [])
        length = len(item.ids)
        for name in ("input_ids", "attention_mask", "pool_mask"):
            np.testing.assert_array_equal(together[name][row, :length], alone[name][0])
        np.testing.assert_array_equal(together["position_ids"][:, row, :length], alone["position_ids"][:, 0])


def test_vectors_of_another_number_of_images_are_a_bug() -> None:
    reader = processor()
    with pytest.raises(ValueError, match="zip"):
        reader.collate(process(reader, [noise(56, 56)], ""), [])


# --- what is refused


def test_an_image_for_a_model_of_texts() -> None:
    with pytest.raises(InputError, match=r"\Aitem 5 is an image; this pack reads texts only\Z"):
        list(processor(image=None).items([*["a"] * 5, noise(56, 56)]))


@pytest.mark.parametrize(("item", "message"), [("", "text 8 is empty"), (3.5, "item 8 is of type float")])
def test_what_is_neither_text_nor_image(item: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(processor().items([*["a"] * 7, noise(56, 56), item]))


def test_an_image_with_more_tokens_than_the_model_takes() -> None:
    message = r"\Aimage 7: 106 tokens at 308 x 252 pixels, the model takes 100; pass a smaller max_pixels\Z"
    with pytest.raises(InputError, match=message):
        process(processor(max_tokens=100), [*["a"] * 7, noise(240, 320)], "")


def test_as_many_tokens_as_the_model_takes() -> None:
    (item,) = process(processor(max_tokens=106), [noise(240, 320)], "")
    assert len(item.ids) == 106


def test_an_image_too_narrow() -> None:
    with pytest.raises(InputError, match=r"\Aimage 1: 3 x 700 pixels: one side is more than 200 times the other"):
        process(processor(), ["a", noise(700, 3)], "")


def test_a_limit_below_the_smallest_image() -> None:
    with pytest.raises(InputError, match=r"\Aimage 0: max_pixels is 100; this model takes images of at least 3136"):
        process(processor(), [noise(56, 56)], "", max_pixels=100)


def host_with(folder: Path, kilobytes: int) -> Path:
    """The root of a machine with that much free memory."""
    (folder / "proc").mkdir()
    (folder / "proc" / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {kilobytes} kB\n")
    return folder


def test_an_image_that_does_not_fit_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes before the patches are made."""
    root = host_with(tmp_path, 10_000)
    monkeypatch.setattr("embedpack.inputs.processor.check_memory", partial(check_memory, root=root))
    found: list[tuple[int, ...]] = []

    def watched(pixels: npt.NDArray[np.uint8], *options: Any) -> Any:
        found.append(pixels.shape)
        return image_patches(pixels, *options)

    monkeypatch.setattr("embedpack.inputs.processor.image_patches", watched)
    message = (
        r"\Aimage 3: 308 x 252 pixels needs about 22 MB of memory, 10 MB are available; pass a smaller max_pixels\Z"
    )
    with pytest.raises(CapacityError, match=message):
        process(processor(), ["a", "a", "a", noise(240, 320)], "")
    assert found == []
    process(processor(), [noise(240, 320)], "", max_pixels=20_000)
    assert found == [(240, 320, 3)]


def test_an_image_that_fits_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = host_with(tmp_path, 30_000)
    monkeypatch.setattr("embedpack.inputs.processor.check_memory", partial(check_memory, root=root))
    (item,) = process(processor(), [noise(240, 320)], "")
    assert item.image is not None
