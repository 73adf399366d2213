"""Images: every kind of item, every mode, and hostile files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from embedpack import CapacityError, InputError
from embedpack.inputs.images import is_image, read_image
from embedpack.inputs.limits import MAX_FILE_BYTES, MAX_PIXELS
from embedpack.inputs.pillow import MAX_DECODING_BYTES, PIXEL_BYTES

RGB = npt.NDArray[np.uint8]

# What the viewer sees for each value of the orientation tag, made from what is stored.
ORIENTATIONS: dict[int, Callable[[RGB], RGB]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


def noise(height: int, width: int) -> RGB:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def quarters() -> RGB:
    """Four plain colors, which JPEG keeps apart: no turned or mirrored copy looks alike."""
    small = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    return small.repeat(32, axis=0).repeat(48, axis=1)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def message(item: object, error: type[Exception] = InputError) -> str:
    with pytest.raises(error) as caught:
        read_image(item, 7)
    return str(caught.value)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def apply(content: bytes) -> Path:
        path = tmp_path / "photo.bin"
        path.write_bytes(content)
        return path

    return apply


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats(write: Callable[[bytes], Path], format: str) -> None:
    pixels = noise(20, 30)
    content = encoded(Image.fromarray(pixels), format)
    for item in (content, write(content), Image.open(io.BytesIO(content)), Image.fromarray(pixels), pixels):
        assert is_image(item)
        read = read_image(item, 0)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, pixels)


@pytest.mark.parametrize(("format", "options"), [("JPEG", {"quality": 95}), ("GIF", {}), ("WEBP", {"quality": 95})])
def test_other_formats(format: str, options: dict[str, Any]) -> None:
    read = read_image(encoded(Image.fromarray(quarters()), format, **options), 0)
    np.testing.assert_allclose(read[8::16, 8::16].astype(int), quarters()[8::16, 8::16].astype(int), atol=12)


def test_webp_without_loss() -> None:
    pixels = noise(20, 30)
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(pixels), "WEBP", lossless=True), 0), pixels)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_orientation_is_obeyed(write: Callable[[bytes], Path], orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    content = encoded(Image.fromarray(quarters()), format, exif=exif)
    expected = ORIENTATIONS[orientation](quarters())
    for item in (content, write(content), Image.open(io.BytesIO(content))):
        read = read_image(item, 0)
        assert read.shape == expected.shape
        np.testing.assert_allclose(read[8::16, 8::16].astype(int), expected[8::16, 8::16].astype(int), atol=12)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_broken_orientation_tag_does_not_matter(exif: bytes) -> None:
    assert read_image(encoded(Image.fromarray(quarters()), "JPEG", exif=exif), 0).shape == quarters().shape


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("1", 0, (0, 0, 0)),
        ("LA", (100, 255), (100, 100, 100)),
        ("LA", (100, 0), (255, 255, 255)),
        ("RGBA", (200, 0, 100, 255), (200, 0, 100)),
        ("RGBA", (200, 0, 100, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 255, 51), (204, 204, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("YCbCr", (76, 85, 255), (254, 0, 0)),
        ("HSV", (0, 255, 255), (255, 0, 0)),
        ("LAB", (255, 128, 128), (255, 255, 255)),
        ("LAB", (138, 209, 198), (255, 0, 0)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 257 * 100, (100, 100, 100)),
        ("I;16", 128, (0, 0, 0)),
        ("I;16", 129, (1, 1, 1)),
        ("I", 257 * 100, (100, 100, 100)),
        ("F", 0.2, (51, 51, 51)),
        ("F", 51.0, (51, 51, 51)),
        ("F", 257 * 100.0, (100, 100, 100)),
        ("F", 0.0, (0, 0, 0)),
    ],
)
def test_modes(mode: str, color: Any, expected: tuple[int, int, int]) -> None:
    read = read_image(Image.new(mode, (3, 2), color), 0)
    assert read.shape == (2, 3, 3)
    np.testing.assert_allclose(read[1, 2].astype(int), expected, atol=6 if mode == "LAB" else 0)


@pytest.mark.parametrize(("mode", "value"), [("I", -1), ("I", 65536), ("F", -0.5), ("F", 70000.0), ("F", np.nan)])
def test_greys_beyond_sixteen_bits(mode: str, value: float) -> None:
    text = message(Image.new(mode, (2, 2), value))
    assert text.startswith("image 7 has gray values from ")
    assert text.endswith(f" (mode {mode}); scale them to 0..65535")


def test_png_of_sixteen_bits_is_scaled() -> None:
    greys = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    read = read_image(encoded(Image.fromarray(greys), "PNG"), 0)
    np.testing.assert_array_equal(read[..., 0], np.rint(greys / 257))
    assert (read[..., 0] == read[..., 2]).all()


def test_palette_with_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert read_image(image, 0).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert read_image(encoded(image, "PNG", transparency=0), 0).tolist() == [[[255, 255, 255], [40, 50, 60]]]
    assert read_image(encoded(image, "GIF", transparency=0), 0).tolist() == [[[255, 255, 255], [40, 50, 60]]]


@pytest.mark.parametrize(("mode", "color"), [("RGB", (1, 2, 3)), ("L", 5), ("I;16", 5)])
def test_transparent_color(mode: str, color: Any) -> None:
    assert read_image(encoded(Image.new(mode, (1, 1), color), "PNG", transparency=color), 0).tolist() == [[[255] * 3]]


def test_cmyk_jpeg() -> None:
    read = read_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95), 0)
    np.testing.assert_allclose(read[8, 8].astype(int), (255, 0, 0), atol=6)


def test_one_pixel() -> None:
    assert read_image(encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"), 0).tolist() == [[[1, 2, 3]]]


def test_twenty_megapixels() -> None:
    read = read_image(encoded(Image.new("L", (5472, 3648), 99), "PNG", compress_level=1), 0)
    assert read.shape == (3648, 5472, 3)
    assert read[-1, -1].tolist() == [99, 99, 99]


def test_jpeg_with_a_preview_behind_it() -> None:
    content = encoded(
        Image.fromarray(quarters()), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))], quality=95
    )
    assert Image.open(io.BytesIO(content)).format == "MPO"
    assert read_image(content, 0).shape == quarters().shape


def test_link_is_followed(write: Callable[[bytes], Path], tmp_path: Path) -> None:
    link = tmp_path / "link.png"
    link.symlink_to(write(encoded(Image.new("RGB", (2, 3)), "PNG")))
    assert read_image(link, 0).shape == (3, 2, 3)


def test_array_may_be_a_view() -> None:
    pixels = noise(10, 12)
    np.testing.assert_array_equal(read_image(pixels[::2, :, ::-1], 0), pixels[::2, :, ::-1])


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 5, 3), np.float32), "float32 [4, 5, 3]"),
        (np.zeros((4, 5), np.uint8), "uint8 [4, 5]"),
        (np.zeros((3, 4, 5), np.uint8), "uint8 [3, 4, 5]"),
        (np.zeros((4, 5, 4), np.uint8), "uint8 [4, 5, 4]"),
    ],
)
def test_arrays_of_another_kind(array: npt.NDArray[Any], found: str) -> None:
    assert message(array) == f"image 7 is {found}; an array must be uint8 [height, width, 3], RGB"


def test_empty_array() -> None:
    assert message(np.zeros((0, 5, 3), np.uint8)) == "image 7 is empty: [0, 5, 3]; leave it out"


@pytest.mark.parametrize("item", ["photo.png", 5, None, bytearray(b"x"), [b"x"]])
def test_items_of_another_type(item: object) -> None:
    assert not is_image(item)
    assert message(item).startswith(f"image 7 is of type {type(item).__name__}; pass a pathlib.Path, ")


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames(write: Callable[[bytes], Path], format: str) -> None:
    frames = [Image.new("RGB", (4, 4), (60 * index, 0, 0)) for index in range(4)]
    content = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    advice = "holds 4 frames; pass one of them as a PIL image: image.seek(n), then image.copy()"
    path = write(content)
    assert message(content) == f"image 7 {advice}"
    assert message(path) == f"image 7 ({path}) {advice}"
    image = Image.open(path)
    assert message(image) == f"image 7 {advice}"
    image.seek(2)
    np.testing.assert_allclose(read_image(image.copy(), 7)[0, 0].astype(int), (120, 0, 0), atol=3)
    image.close()


def test_tiff_of_countless_pages() -> None:
    first = encoded(Image.new("L", (1, 1)), "TIFF")
    assert first[:8] == b"II*\0\x08\0\0\0"
    directory = first[8 : 10 + 12 * struct.unpack("<H", first[8:10])[0]]
    nexts = [len(first) + (len(directory) + 4) * page for page in range(5000)]
    pages = [directory + struct.pack("<I", after) for after in (*nexts, 0)]
    content = first[:8] + pages[0] + first[8 + len(pages[0]) :] + b"".join(pages[1:])
    assert message(content).startswith("image 7 holds 1000 or more frames; ")


@pytest.mark.parametrize(
    "content",
    [
        png_header(60_000, 60_000),
        b"GIF89a"
        + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0)
        + b",\0\0\0\0"
        + struct.pack("<HHB", 1, 1, 0)
        + b"\2",
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(50),
        b"P6 60000 60000 255\n" + bytes(50),
    ],
    ids=["png", "gif", "bmp", "ppm"],
)
def test_header_of_a_bomb(content: bytes) -> None:
    assert message(content, CapacityError) == (
        "image 7 has 60000 x 60000 = 3600000000 pixels, at most 100000000 are taken; make it smaller"
    )


def test_one_row_too_many(write: Callable[[bytes], Path]) -> None:
    path = write(png_header(10_000, 10_001))
    assert message(path, CapacityError).startswith(f"image 7 ({path}) has 10000 x 10001 = 100010000 pixels, ")
    assert message(png_header(10_000, 10_000)).startswith("image 7 cannot be decoded")
    assert MAX_PIXELS == 10_000 * 10_000


def test_large_pillow_image_is_not_decoded() -> None:
    image = Image.open(io.BytesIO(png_header(9_000, 9_000)))
    image._size = (12_000, 14_000)
    assert "12000 x 14000 = 168000000 pixels" in message(image, CapacityError)


def test_large_array_is_refused() -> None:
    pixel = np.zeros((1, 1, 3), np.uint8)
    assert "pixels, at most" in message(np.broadcast_to(pixel, (10_001, 10_000, 3)), CapacityError)


def test_pillows_own_limit_is_told_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(Image.new("RGB", (64, 64)), "WEBP")

    def refuse(*arguments: object) -> None:
        raise Image.DecompressionBombError("too many pixels.")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile.load", refuse)
    assert message(content, CapacityError) == "image 7 is too large for Pillow: too many pixels. Make it smaller"


@pytest.mark.parametrize(("format", "needed"), [("WEBP", 28), ("PNG", 12), ("JPEG", 12), ("GIF", 12)])
def test_image_that_does_not_fit_the_memory_is_not_decoded(
    format: str, needed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encoded(Image.new("L", (2000, 1000)), format)
    monkeypatch.setattr("embedpack.host.memory.available_memory", lambda root: 20_000_000)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    assert message(content, CapacityError) == (
        f"image 7: decoding 2000 x 1000 pixels needs about {2 * needed} MB of memory, 20 MB are available; "
        "make it smaller, or free some memory"
    )


@pytest.mark.parametrize(("format", "most"), [("WEBP", 42_857_142), ("TIFF", 60_000_000)])
def test_formats_whose_decoders_take_more_memory_have_fewer_pixels(
    format: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_DECODING_BYTES // PIXEL_BYTES[format] == most
    content = encoded(Image.new("L", (200, 100)), format)
    bound = 20_000 * PIXEL_BYTES[format]
    monkeypatch.setattr("embedpack.inputs.pillow.MAX_DECODING_BYTES", bound)
    assert read_image(content, 7).shape == (100, 200, 3)
    monkeypatch.setattr("embedpack.inputs.pillow.MAX_DECODING_BYTES", bound - PIXEL_BYTES[format])
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    assert message(content, CapacityError) == (
        f"image 7 has 200 x 100 pixels, at most 19999 are decoded from a {format} file; make it smaller, or save it "
        "as PNG"
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr", "HSV", "LAB", "1", "I;16", "F"])
def test_images_are_converted_in_strips(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(noise(23, 30))
    image = Image.new(mode, image.size, 77) if mode in ("LAB", "I;16", "HSV") else image.convert(mode)
    if mode == "P":
        image.info["transparency"] = 3
    expected = read_image(image, 0)
    monkeypatch.setattr("embedpack.inputs.pillow_modes.STRIP_PIXELS", 100)
    np.testing.assert_array_equal(read_image(image, 0), expected)


def with_scans(content: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * count + b"\xff\xd9"


def test_jpeg_of_too_many_scans(write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(Image.fromarray(quarters()), "JPEG", progressive=True)
    scans = content.count(b"\xff\xda")
    assert read_image(with_scans(content, 20), 7).shape == quarters().shape
    many = with_scans(content, 2000)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    refusal = f"is a JPEG file of 1001 scans or more at {64 * 96} pixels; save it again"
    path = write(many)
    assert message(many) == f"image 7 {refusal}"
    assert message(path) == f"image 7 ({path}) {refusal}"
    with Image.open(path) as image:
        assert message(image) == f"image 7 {refusal}"
    monkeypatch.setattr("embedpack.inputs.jpeg.MAX_SCANNED_PIXELS", 64 * 96 * (scans + 2))
    assert message(with_scans(content, 3)).startswith(f"image 7 is a JPEG file of {scans + 3} scans or more at ")


def test_jpeg_of_few_pixels_that_claims_many() -> None:
    content = bytearray(encoded(Image.fromarray(quarters()), "JPEG"))
    frame = content.index(b"\xff\xc0") + 5
    content[frame : frame + 4] = struct.pack(">HH", 5000, 6000)
    text = message(bytes(content))
    assert text.startswith("image 7 cannot be decoded, it is damaged or cut off: ")
    assert text.endswith(" bytes of coded data are too few for 30000000 pixels; save it again")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 1, "optimize": True}, {"subsampling": 2}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_of_one_color_has_enough_data(mode: str, options: dict[str, Any]) -> None:
    content = encoded(Image.new(mode, (1601, 1203)), "JPEG", **options)
    assert read_image(content, 0).shape == (1203, 1601, 3)


def test_memory_that_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr("embedpack.inputs.pillow.rgb", refuse)
    text = message(encoded(Image.new("RGB", (2, 2)), "PNG"), CapacityError)
    assert text == "image 7 does not fit the memory; make it smaller"


def test_a_webp_without_memory_is_not_only_blamed_on_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("could not create decoder object")

    monkeypatch.setattr("PIL.WebPImagePlugin._webp.WebPAnimDecoder", refuse)
    text = message(encoded(Image.new("RGB", (2, 2)), "WEBP"))
    assert text.endswith("could not create decoder object; save it again, or free some memory")


def test_huge_file(write: Callable[[bytes], Path]) -> None:
    path = write(b"")
    os.truncate(path, MAX_FILE_BYTES + 1)
    assert message(path, CapacityError) == (
        f"image 7 ({path}) has 256000001 bytes, at most 256000000 are taken; make it smaller"
    )


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_cut_off_file(write: Callable[[bytes], Path], format: str) -> None:
    content = encoded(Image.fromarray(noise(64, 64)), format)
    for size in (20, len(content) // 2, len(content) - 400):
        path = write(content[:size])
        assert message(path).startswith(f"image 7 ({path}) cannot be decoded, it is damaged or cut off: ")
        assert message(content[:size]).startswith("image 7 cannot be decoded, it is damaged or cut off: ")


def test_cut_files_are_never_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = encoded(Image.fromarray(noise(64, 64)), "JPEG")
    assert message(content[:1000]) == (
        "image 7: Pillow is set to fill the missing part of cut files with gray; "
        "set PIL.ImageFile.LOAD_TRUNCATED_IMAGES = False"
    )


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_flipped_bytes_never_raise_anything_else(format: str) -> None:
    content = bytearray(encoded(Image.fromarray(noise(16, 16)), format))
    generator = np.random.default_rng(0)
    for _ in range(60):
        broken = content.copy()
        for position in generator.integers(0, min(len(content), 300), 3):
            broken[position] ^= 1 << int(generator.integers(8))
        with contextlib.suppress(InputError, CapacityError):
            assert read_image(bytes(broken), 0).dtype == np.uint8


@pytest.mark.parametrize("content", [b"hello, world", bytes(100), b"x", b"RIFF\0\0\0\0AVI LIST", b"\x80\x04\x95pickle"])
def test_no_image(write: Callable[[bytes], Path], content: bytes) -> None:
    path = write(content)
    assert message(path) == (
        f"image 7 ({path}) is no image that can be read (JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM); convert it, e.g. to PNG"
    )


def test_empty_file(write: Callable[[bytes], Path]) -> None:
    path = write(b"")
    assert message(path) == f"image 7 ({path}) is empty (0 bytes); leave it out, or write it again"
    assert message(b"") == "image 7 is empty (0 bytes); leave it out, or write it again"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    path = tmp_path / "none.png"
    assert (
        message(path)
        == f"image 7 ({path}) cannot be read: No such file or directory; check the path, its permissions and the disk"
    )
    assert message(tmp_path) == f"image 7 ({tmp_path}) is a folder or a device; pass the path of a file"
    assert message(Path("a\0b.png")).startswith("image 7 (a\0b.png) cannot be read: ")


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "is a folder or a device" in message(tmp_path / "pipe.png")


def test_pdf_points_to_its_pages(tmp_path: Path) -> None:
    path = tmp_path / "Paper.PDF"
    assert message(path) == f"image 7 ({path}) is a PDF; pass its pages: embedpack.pdf_pages({str(path)!r})"
    assert "embedpack.pdf_pages" in message(b"%PDF-1.7\n")


def test_postscript_never_runs(write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: object, **options: object) -> None:
        pytest.fail("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    assert "is no image that can be read" in message(content)
    path = write(content).rename(write(content).with_suffix(".eps"))
    assert "is no image that can be read" in message(path)
    image = Image.open(io.BytesIO(content))
    assert message(image) == "image 7 comes from a file of format EPS, which is not read; pass image.copy()"


def test_closed_pillow_image(write: Callable[[bytes], Path]) -> None:
    with Image.open(write(encoded(Image.new("RGB", (2, 2)), "PNG"))) as image:
        pass
    assert message(image).startswith("image 7 cannot be decoded")


def run_python(code: str) -> Any:
    command = [sys.executable, "-W", "error", "-c", code]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def test_import_does_not_load_pillow() -> None:
    code = """
import json, sys
import numpy as np
import embedpack.inputs.images, embedpack.inputs.patches
answers = [embedpack.inputs.images.is_image(item) for item in ("text", b"", np.zeros(1))]
print(json.dumps([answers, [name for name in sys.modules if name.partition(".")[0] == "PIL"]]))
"""
    assert run_python(code) == [[False, True, True], []]


def test_without_pillow() -> None:
    code = """
import json, sys
sys.modules["PIL"] = None
import numpy as np
from embedpack import MissingExtraError
from embedpack.inputs.images import is_image, read_image
shape = read_image(np.zeros((2, 3, 3), np.uint8), 0).shape
try:
    read_image(b"GIF89a", 0)
except MissingExtraError as error:
    print(json.dumps([shape, is_image("x"), str(error)]))
"""
    expected = "this needs 'PIL', which is not installed. Run: pip install 'embedpack[images]'"
    assert run_python(code) == [[2, 3, 3], False, expected]
