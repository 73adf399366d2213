"""Broken and hostile manifests: each wrong value or contradiction is one clear PackError."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedpack import Embedder
from embedpack.pack.folder import listed_files, read_pack
from tests.helpers.broken_packs import (
    Change,
    Edit,
    changes,
    check_all_files,
    drop,
    put,
    refusal,
    rename_file,
    switchable,
    with_images,
    with_multi,
)


def test_tiny_pack_is_whole(tiny: Path) -> None:
    assert check_all_files(tiny) == list(read_pack(tiny).manifest.files)


def test_folder_may_be_a_link_itself(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tiny)
    assert len(Embedder(tmp_path / "link", weights="fp32", threads=1).encode("a cat")) == 1


# The manifest as bytes.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "not valid JSON: Expecting value: line 1 column 1 (char 0)", id="empty"),
        pytest.param(b'{"format":', "not valid JSON: Expecting value: line 1 column 11 (char 10)", id="cut_short"),
        pytest.param(b'{"name": "caf\xe9"}', "not UTF-8 at byte 13; copy the pack again", id="not_utf8"),
        pytest.param(
            b"\xef\xbb\xbf{}",
            "not valid JSON: Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0)",
            id="byte_order_mark",
        ),
        pytest.param(b'{"a": 1, "a": 1}', "not valid JSON: the key 'a' occurs twice", id="duplicate_key"),
        pytest.param(b'[{"b": {"a": 1, "a": 2}}]', "not valid JSON: the key 'a' occurs twice", id="duplicate_inside"),
        pytest.param(b'{"a": NaN}', "not valid JSON: NaN is not a JSON number", id="nan"),
        pytest.param(b'{"a": -Infinity}', "not valid JSON: -Infinity is not a JSON number", id="infinity"),
        pytest.param(b'{"a": 1e999}', "not valid JSON: 1e999 is not a finite number", id="overflowing_number"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, "nested too deeply to be a manifest", id="deep_list"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply to be a manifest", id="deep"),
        pytest.param(b"[]", "Expected `object`, got `array`", id="list"),
        pytest.param(b'"1.0"', "Expected `object`, got `str`", id="string"),
        pytest.param(b"null", "Expected `object`, got `null`", id="null"),
        pytest.param(b"{}", "Object missing required field `format`", id="empty_object"),
    ],
)
def test_manifest_that_is_no_manifest(pack: Path, content: bytes, message: str) -> None:
    (pack / "pack.json").write_bytes(content)
    assert refusal(pack, lambda: read_pack(pack)) == f"PACK/pack.json: {message}"


def test_missing_manifest(pack: Path) -> None:
    (pack / "pack.json").unlink()
    expected = "PACK: not a pack (pack.json is missing); create one with: embedpack export"
    assert refusal(pack, lambda: read_pack(pack)) == expected
    assert refusal(pack, lambda: Embedder(pack)) == expected


def test_missing_folder(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    assert (
        refusal(missing, lambda: Embedder(str(missing)))
        == "PACK: not a pack (pack.json is missing); create one with: embedpack export"
    )


def test_huge_manifest_is_not_read(pack: Path) -> None:
    os.truncate(pack / "pack.json", 16_000_001)
    message = "PACK/pack.json: 16000001 bytes; a manifest has at most 16000000"
    assert refusal(pack, lambda: read_pack(pack)) == message


def test_linked_manifest(pack: Path) -> None:
    (pack / "pack.json").rename(pack.parent / "elsewhere.json")
    (pack / "pack.json").symlink_to(pack.parent / "elsewhere.json")
    message = "PACK/pack.json: 'pack.json' is a symbolic link; copy the pack with its links resolved"
    assert refusal(pack, lambda: read_pack(pack)) == message


def deny(*args: object, **kwargs: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_manifest_that_may_not_be_read(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", deny)
    monkeypatch.setattr(Path, "read_bytes", deny)
    assert (
        refusal(pack, lambda: read_pack(pack))
        == "PACK/pack.json: cannot be read: Permission denied; check the path, its permissions and the disk"
    )


def test_file_that_may_not_be_read(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = read_pack(pack)
    monkeypatch.setattr(Path, "open", deny)
    monkeypatch.setattr(Path, "read_bytes", deny)
    message = "PACK/tokenizer.json: cannot be read: Permission denied; check the path, its permissions and the disk"
    assert refusal(pack, lambda: opened.read("tokenizer.json")) == message
    assert refusal(pack, lambda: list(opened.check_files())) == message.replace("tokenizer.json", "LICENSE")


# The manifest's values.


@pytest.mark.parametrize("version", ["1.3", "4.0", "0.9", "10.0", "3", "3.", "3.x", "20.0", "", 3.0, None])
def test_unknown_format_version(pack: Path, edit: Edit, version: object) -> None:
    edit(put("format", version))
    message = (
        f"PACK/pack.json: format {version!r} at `$.format`; this embedpack reads 2.0 to 3.0; update it, or export again"
    )
    assert refusal(pack, lambda: read_pack(pack)) == message


def test_newer_minor_version_is_read_where_its_fields_are_known(pack: Path, edit: Edit) -> None:
    edit(put("format", "3.9"))
    assert read_pack(pack).manifest.format == "3.9"


WRONG_VALUES = [
    pytest.param(
        lambda manifest: manifest.update(format="3.9", color="red"),
        "Object contains unknown field `color` (format 3.9, this embedpack writes 3.0)",
        id="unknown_field_of_a_newer_minor_version",
    ),
    pytest.param(put("color", "red"), "Object contains unknown field `color`", id="unknown_field"),
    pytest.param(
        put("text", "color", "red"), "Object contains unknown field `color` - at `$.text`", id="unknown_field_inside"
    ),
    pytest.param(drop("kind"), "Object missing required field `kind`", id="missing_field"),
    pytest.param(
        drop("variants", "default-int8", "graph"),
        "Object missing required field `graph` - at `$.variants[...]`",
        id="missing_field_inside",
    ),
    pytest.param(
        put("single", "dimensions", "32"), "Expected `int`, got `str` - at `$.single.dimensions`", id="string_for_int"
    ),
    pytest.param(
        put("single", "dimensions", True), "Expected `int`, got `bool` - at `$.single.dimensions`", id="bool_for_int"
    ),
    pytest.param(
        put("single", "dimensions", 32.5),
        "Expected `int`, got `float` - at `$.single.dimensions`",
        id="fraction_for_int",
    ),
    pytest.param(
        put("single", "truncate_dims", [8, None, 32]),
        "Expected `int`, got `null` - at `$.single.truncate_dims[1]`",
        id="null_in_list",
    ),
    pytest.param(put("tasks", []), "Expected `object`, got `array` - at `$.tasks`", id="list_for_object"),
    pytest.param(
        put("tasks", "default", "prompts", "query", "prefix", 5),
        "Expected `str`, got `int` - at `$.tasks[...].prompts[...].prefix`",
        id="int_for_prompt",
    ),
    pytest.param(
        put("variants", "default-int8", "weights", "int7"),
        "Invalid enum value 'int7' - at `$.variants[...].weights`",
        id="unknown_weights",
    ),
    pytest.param(
        put("variants", "default-int8", "min_onnxruntime", "1.x"),
        "Expected `str` matching regex '^[0-9]+(\\\\.[0-9]+)*$' - at `$.variants[...].min_onnxruntime`",
        id="version_that_is_none",
    ),
    pytest.param(
        put("variants", "default-int8", "min_onnxruntime", "9" * 5000),
        "Expected `str` of length <= 20 - at `$.variants[...].min_onnxruntime`",
        id="absurd_version",
    ),
    pytest.param(
        put("single", "pooling", "median"), "Invalid enum value 'median' - at `$.single.pooling`", id="unknown_pooling"
    ),
    pytest.param(
        put("files", "LICENSE", "sha256", "0" * 63),
        "Expected `str` matching regex '^[0-9a-f]{64}$' - at `$.files[...].sha256`",
        id="short_digest",
    ),
    pytest.param(
        put("files", "LICENSE", "bytes", -1), "Expected `int` >= 0 - at `$.files[...].bytes`", id="negative_bytes"
    ),
    pytest.param(
        put("files", "LICENSE", "bytes", 2**60),
        "Expected `int` <= 1125899906842624 - at `$.files[...].bytes`",
        id="absurd_bytes",
    ),
    pytest.param(
        put("single", "dimensions", 10**12),
        "Expected `int` <= 65536 - at `$.single.dimensions`",
        id="absurd_dimensions",
    ),
    pytest.param(put("single", "dimensions", 0), "Expected `int` >= 1 - at `$.single.dimensions`", id="no_dimensions"),
    pytest.param(
        put("text", "max_tokens", 10**9), "Expected `int` <= 1048576 - at `$.text.max_tokens`", id="absurd_max_tokens"
    ),
    pytest.param(put("text", "max_tokens", 0), "Expected `int` >= 1 - at `$.text.max_tokens`", id="no_tokens"),
    pytest.param(
        put("text", "pad_token_id", -1), "Expected `int` >= 0 - at `$.text.pad_token_id`", id="negative_pad_token"
    ),
    pytest.param(
        put("spaces", "default", "single", "int8_scale", 0),
        "Expected `float` >= 1e-06 - at `$.spaces[...].single.int8_scale`",
        id="zero_scale",
    ),
    pytest.param(
        put("spaces", "default", "single", "kept", ["scale"]),
        "Invalid enum value 'scale' - at `$.spaces[...].single.kept[0]`",
        id="unknown_step_of_calibration",
    ),
    pytest.param(
        put("spaces", "default", "single", "recall_at_10", {"none": {"3bit": 0.5}}),
        "Invalid enum value '3bit' - at `key` in `$.spaces[...].single.recall_at_10[...]`",
        id="recall_of_an_unknown_precision",
    ),
    pytest.param(
        put("spaces", "default", "single", "recall_at_10", {"none": {"2bit": 1.5}}),
        "Expected `float` <= 1.0 - at `$.spaces[...].single.recall_at_10[...][...]`",
        id="recall_above_one",
    ),
    pytest.param(
        changes(put("format", "3.1"), drop("tasks", "default", "space")),
        "Object missing required field `space` - at `$.tasks[...]` (format 3.1, this embedpack writes 3.0)",
        id="newer_format",
    ),
]


WRONG_VALUES += [
    pytest.param(
        with_images({name: value}),
        f"{problem} - at `$.image.{name}{where}`",
        id=f"image_{name}_{value}".replace(" ", ""),
    )
    for name, value, problem, where in (
        ("patch_size", 0, "Expected `int` >= 1", ""),
        ("merge_size", 1024, "Expected `int` <= 32", ""),
        ("window_size", 1024, "Expected `int` <= 32", ""),
        ("patch_size", 1024, "Expected `int` <= 256", ""),
        ("min_pixels", 0, "Expected `int` >= 1", ""),
        ("max_pixels", 2**40, "Expected `int` <= 2147483648", ""),
        ("mean", [0.5, 0.5], "Expected `array` of length 3, got 2", ""),
        ("std", [0.5, 0, 0.5], "Expected `float` > 0.0", "[1]"),
        ("token", -1, "Expected `int` >= 0", ""),
        ("tokens_before", "ab", "Expected `array`, got `str`", ""),
        ("pooled_before", -1, "Expected `int` >= 0", ""),
    )
]


@pytest.mark.parametrize(("change", "message"), WRONG_VALUES)
def test_wrong_value(pack: Path, edit: Edit, change: Change, message: str) -> None:
    edit(change)
    assert refusal(pack, lambda: read_pack(pack)) == f"PACK/pack.json: {message}"


CONTRADICTIONS = [
    pytest.param(
        put("single", "truncate_dims", [8, 16]),
        "the last truncation is not the full dimension, 32 - at `$.single.truncate_dims`",
        id="truncations_without_the_full_dimension",
    ),
    pytest.param(
        put("single", "truncate_dims", []),
        "the last truncation is not the full dimension, 32 - at `$.single.truncate_dims`",
        id="no_truncations",
    ),
    pytest.param(
        put("single", "truncate_dims", [16, 8, 32]),
        "the truncations are not ascending - at `$.single.truncate_dims`",
        id="unsorted",
    ),
    pytest.param(
        put("single", "truncate_dims", [8, 8, 32]),
        "the truncations are not ascending - at `$.single.truncate_dims`",
        id="repeated",
    ),
    pytest.param(
        put("tasks", "default", "default_prompt_name", "querry"),
        "unknown prompt 'querry'; known: query, passage; did you mean 'query'? - at `$.tasks['default']`",
        id="unknown_default_prompt",
    ),
    pytest.param(
        put("text", "pad_token_id", 10_000),
        "the pad token is not below the vocabulary, 252 - at `$.text.pad_token_id`",
        id="pad_token_outside_the_vocabulary",
    ),
    pytest.param(put("variants", {}), "there is no variant - at `$.variants`", id="no_variants"),
    pytest.param(
        put("variants", "default-int8", "task", "retrieval"),
        "unknown task 'retrieval'; known: default - at `$.variants['default-int8'].task`",
        id="variant_of_an_unknown_task",
    ),
    pytest.param(
        put("tasks", {}),
        "unknown task 'default'; known: none - at `$.variants['default-fp32'].task`",
        id="no_tasks",
    ),
    pytest.param(
        lambda manifest: manifest["tasks"].update(code=manifest["tasks"]["default"]),
        "task 'code' has no variant - at `$.tasks['code']`",
        id="task_without_variant",
    ),
    pytest.param(
        put("variants", "default-int8", "graph", "other.onnx"),
        "'other.onnx' is not listed in `$.files` - at `$.variants['default-int8']`",
        id="unlisted_graph",
    ),
    pytest.param(
        put("variants", "default-int8", "external_data", ["weights/shared.bin", "../weights.bin"]),
        "'../weights.bin' is not listed in `$.files` - at `$.variants['default-int8']`",
        id="unlisted_weights",
    ),
    pytest.param(
        drop("files", "tokenizer.json"),
        "'tokenizer.json' is not listed in `$.files` - at `$.text.tokenizer`",
        id="unlisted_tokenizer",
    ),
    pytest.param(
        put("golden", "/etc/passwd"), "'/etc/passwd' is not listed in `$.files` - at `$.golden`", id="unlisted_golden"
    ),
    pytest.param(
        put("spaces", "default", "codebooks", "codes.safetensors"),
        "'codes.safetensors' is not listed in `$.files` - at `$.spaces['default'].codebooks`",
        id="unlisted_codebook",
    ),
]


ONE_EACH = (
    "merged variants need one task, switchable ones a file for each task with an adapter - "
    "at `$.variants['default-int8'].adapters`"
)
CONTRADICTIONS += [
    pytest.param(with_images({name: value}), f"{problem} - at `$.image`", id=f"image_{name}_{value}".replace(" ", ""))
    for name, value, problem in (
        ("token", 252, "token 252 is not below the vocabulary, 252"),
        ("tokens_before", [2, 5000], "token 5000 is not below the vocabulary, 252"),
        ("tokens_after", [5000, 3], "token 5000 is not below the vocabulary, 252"),
        ("pooled_before", 3, "more tokens are pooled than exist"),
        ("pooled_after", 3, "more tokens are pooled than exist"),
        ("min_pixels", 7841, "min_pixels is above max_pixels"),
    )
]
CONTRADICTIONS += [
    pytest.param(
        lambda manifest: (with_images()(manifest), manifest["vision"].pop("int8")),
        "there is no int8 vision graph - at `$.variants['default-int8'].weights`",
        id="variant_without_its_vision_graph",
    ),
    pytest.param(
        with_images(vision={"graph": "vision.onnx"}),
        "'vision.onnx' is not listed in `$.files` - at `$.vision['fp32']`",
        id="unlisted_vision_graph",
    ),
    pytest.param(
        with_images(vision={"external_data": ["weights/vision.bin"]}),
        "'weights/vision.bin' is not listed in `$.files` - at `$.vision['fp32']`",
        id="unlisted_vision_weights",
    ),
    pytest.param(
        put("variants", "default-int8", "adapter_files", {"default": "LICENSE"}),
        "a merged variant has no adapter files - at `$.variants['default-int8'].adapter_files`",
        id="merged_with_adapter_files",
    ),
    pytest.param(put("variants", "default-int8", "task", None), ONE_EACH, id="merged_without_a_task"),
    pytest.param(switchable(adapter_files={}), ONE_EACH, id="switchable_without_adapter_files"),
    pytest.param(switchable(task="default"), ONE_EACH, id="switchable_with_a_task"),
    pytest.param(
        switchable(task="default", adapter_files={}), ONE_EACH, id="switchable_with_a_task_and_without_adapter_files"
    ),
    pytest.param(
        lambda manifest: (
            switchable()(manifest),
            manifest["tasks"].update(code=manifest["tasks"]["default"]),
        ),
        ONE_EACH,
        id="switchable_without_the_adapter_file_of_one_task",
    ),
    pytest.param(
        switchable(adapter_files={"default": "LICENSE", "code": "LICENSE"}),
        "unknown task 'code'; known: default - at `$.variants['default-int8'].task`",
        id="adapter_file_of_an_unknown_task",
    ),
    pytest.param(
        switchable(adapter_files={"default": "adapters/default.onnx_adapter"}),
        "'adapters/default.onnx_adapter' is not listed in `$.files` - at `$.variants['default-int8']`",
        id="unlisted_adapter_file",
    ),
]


@pytest.mark.parametrize("change", [with_images(), switchable()])
def test_images_and_switchable_adapters_of_these_tests_are_valid(pack: Path, edit: Edit, change: Change) -> None:
    edit(change)
    read_pack(pack)


@pytest.mark.parametrize(("change", "message"), CONTRADICTIONS)
def test_contradiction(pack: Path, edit: Edit, change: Change, message: str) -> None:
    edit(change)
    assert refusal(pack, lambda: read_pack(pack)) == f"PACK/pack.json: {message}"


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "weights/../../secret",
        "/etc/passwd",
        "..",
        ".",
        "",
        "weights//fp32.bin",
        "./LICENSE",
        "weights/",
        "..\\secret",
        "weights\\fp32.bin",
        "C:/secret",
        "C:secret",
        "LICENSE\0.txt",
        "LICENSE\n",
        "pack.json",
    ],
)
def test_path_that_leaves_the_pack_or_is_ambiguous(pack: Path, edit: Edit, name: str) -> None:
    edit(rename_file("LICENSE", name))
    message = f"PACK/pack.json: {name!r} is not a plain path inside the pack - at `$.files`"
    assert refusal(pack, lambda: read_pack(pack)) == message


@pytest.mark.parametrize(
    "change",
    [
        rename_file("LICENSE", "\ud800"),
        put("name", "\udfff"),
        put("tasks", "default", "prompts", {"query": {"prefix": "\ud800"}}),
        put("variants", "default-fp32", "weights", "\ud83d"),
    ],
)
def test_half_of_a_surrogate_pair(pack: Path, edit: Edit, change: Change) -> None:
    edit(change)
    message = "PACK/pack.json: a string has half of a surrogate pair; copy the pack again"
    assert refusal(pack, lambda: read_pack(pack)) == message
    assert refusal(pack, lambda: listed_files(pack)) == message


def test_escaped_pairs_are_characters(pack: Path, edit: Edit) -> None:
    edit(put("name", "\U0001f600"))
    assert b"\\ud83d" in (pack / "pack.json").read_bytes()
    assert read_pack(pack).manifest.name == "\U0001f600"


@pytest.mark.parametrize("name", ["x" * 256, "weights/" + "é" * 128, "x" * 300 + "/file"])
def test_names_longer_than_file_systems_allow(pack: Path, edit: Edit, name: str) -> None:
    edit(rename_file("LICENSE", name))
    message = f"PACK/pack.json: {name[:40]!r}... has a part of more than 255 bytes - at `$.files`"
    assert refusal(pack, lambda: read_pack(pack)) == message


@pytest.mark.parametrize("token", [2**31 + 1, 2**63, 2**64])
def test_pad_token_beyond_token_ids(pack: Path, edit: Edit, token: int) -> None:
    edit(put("text", "pad_token_id", token))
    assert refusal(pack, lambda: read_pack(pack)).endswith(" - at `$.text.pad_token_id`")


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("\0", "embedded null byte"), ("x" * 300, "File name too long"), ("pack.json/x", "Not a directory")],
)
def test_folder_that_cannot_exist(pack: Path, folder: str, reason: str) -> None:
    message = refusal(pack, lambda: read_pack(pack / folder))
    assert reason in message or message.startswith("PACK/pack.json/x: not a pack")


def test_folder_without_permission(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised by the test: root may read every file."""

    def deny(path: Path, **_: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    opened = read_pack(pack)
    monkeypatch.setattr(Path, "stat", deny)
    assert refusal(pack, lambda: read_pack(pack)).endswith(
        ": cannot be read: Permission denied; check the path, its permissions and the disk"
    )
    assert (
        refusal(pack, lambda: opened.path("LICENSE"))
        == "PACK/LICENSE: cannot be read: Permission denied; check the path, its permissions and the disk"
    )


@pytest.mark.parametrize("scale", [1e300, 1.5, 1e-7, 5e-324])
@pytest.mark.parametrize("head", ["single", "multi"])
def test_scale_beyond_unit_vectors(pack: Path, edit: Edit, head: str, scale: float) -> None:
    edit(with_multi())
    edit(lambda manifest: manifest["spaces"]["default"][head].update({"int8_scale": scale}))
    place = "'default'" if scale == 1.5 else "..."
    assert refusal(pack, lambda: read_pack(pack)).endswith(f" - at `$.spaces[{place}].{head}.int8_scale`")


def test_a_scale_of_vectors_that_are_compared_by_dot_product(pack: Path, edit: Edit) -> None:
    edit(lambda manifest: manifest["spaces"]["default"]["single"].update({"int8_scale": 1.5}))
    edit(lambda manifest: manifest["single"].update({"similarity": "dot"}))
    assert refusal(pack, lambda: read_pack(pack)).endswith(
        "vectors of length 1 are compared by cosine - at `$.single.similarity`"
    )
    edit(lambda manifest: manifest["single"].update({"normalized": False}))
    read_pack(pack)
