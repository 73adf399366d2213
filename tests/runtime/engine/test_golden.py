"""Golden vectors: every variant computes those of the pack, and a difference is an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedpack import PackError
from embedpack.engine.golden import TOLERANCE, check_golden
from embedpack.pack.folder import read_pack

ReplaceFile = Callable[[str, bytes], None]
EditGolden = Callable[[Callable[[dict[str, Any]], object]], None]

VARIANTS = ("default-fp32", "default-int8", "default-int4")


@pytest.fixture
def edit_golden(pack: Path, replace_file: ReplaceFile) -> EditGolden:
    """Changes the golden file of `pack`, its digest included."""

    def apply(change: Callable[[dict[str, Any]], object]) -> None:
        golden = json.loads((pack / "report/golden.json").read_bytes())
        change(golden)
        replace_file("report/golden.json", json.dumps(golden).encode())

    return apply


def refusal(pack: Path, variant: str = "default-fp32") -> str:
    with pytest.raises(PackError) as caught:
        check_golden(read_pack(pack), variant)
    return str(caught.value).replace(str(pack), "PACK")


def difference(pack: Path, variant: str, found: str) -> str:
    limit = TOLERANCE[read_pack(pack).manifest.variants[variant].weights]
    return (
        f"PACK: {variant} computes other vectors here than on the machine that exported it: 1 - cosine {found}, "
        f"at most {limit:.0e} expected; do not use it on this machine, and report the CPU"
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_tiny_pack_gives_its_golden_vectors(tiny: Path, variant: str) -> None:
    opened = read_pack(tiny)
    assert check_golden(opened, variant) <= TOLERANCE[opened.manifest.variants[variant].weights]


def test_golden_texts_are_checked_without_a_warning(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_golden(read_pack(tiny), "default-fp32")
    assert not caplog.records


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", [0, 14])
def test_altered_vector(pack: Path, edit_golden: EditGolden, variant: str, case: int) -> None:
    def turn_round(golden: dict[str, Any]) -> None:
        golden["vectors"][variant][case] = [-value for value in golden["vectors"][variant][case]]

    edit_golden(turn_round)
    assert refusal(pack, variant) == difference(pack, variant, "2.0e+00")


def test_vector_of_another_text(pack: Path, edit_golden: EditGolden) -> None:
    edit_golden(lambda golden: golden["vectors"]["default-fp32"].reverse())
    assert refusal(pack).startswith(
        "PACK: default-fp32 computes other vectors here than on the machine that exported it: 1 - cosine "
    )


def test_altered_text(pack: Path, edit_golden: EditGolden) -> None:
    edit_golden(lambda golden: golden["cases"]["default"][0].update(text="Where is the cat?"))
    assert refusal(pack).startswith(
        "PACK: default-fp32 computes other vectors here than on the machine that exported it: 1 - cosine "
    )


def test_vector_without_a_direction(pack: Path, edit_golden: EditGolden) -> None:
    edit_golden(lambda golden: golden["vectors"]["default-fp32"].__setitem__(3, [0.0] * 32))
    assert refusal(pack) == difference(pack, "default-fp32", "nan")


def test_length_of_a_vector_does_not_matter(pack: Path, edit_golden: EditGolden) -> None:
    edit_golden(
        lambda golden: golden["vectors"].update(
            {"default-fp32": [[2 * value for value in vector] for vector in golden["vectors"]["default-fp32"]]}
        )
    )
    assert check_golden(read_pack(pack), "default-fp32") <= TOLERANCE["fp32"]


def test_missing_vector(pack: Path, edit_golden: EditGolden) -> None:
    edit_golden(lambda golden: golden["vectors"]["default-fp32"].pop())
    message = "PACK/report/golden.json: 15 inputs and 14 vectors for 'default-fp32'; export the pack again"
    assert refusal(pack) == message


def test_missing_variant(pack: Path, edit_golden: EditGolden) -> None:
    edit_golden(lambda golden: golden["vectors"].pop("default-fp32"))
    message = "PACK/report/golden.json: 15 inputs and 0 vectors for 'default-fp32'; export the pack again"
    assert refusal(pack) == message
    assert check_golden(read_pack(pack), "default-int4") < TOLERANCE["int4"]


def test_missing_task(pack: Path, edit_golden: EditGolden) -> None:
    edit_golden(lambda golden: golden["cases"].clear())
    message = "PACK/report/golden.json: 0 inputs and 15 vectors for 'default-fp32'; export the pack again"
    assert refusal(pack) == message


def test_vector_of_other_dimensions(pack: Path, edit_golden: EditGolden) -> None:
    edit_golden(lambda golden: golden["vectors"]["default-fp32"][0].pop())
    assert refusal(pack) == "PACK/report/golden.json: a vector of 'default-fp32' has 31 values, not 32"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"cases": {}}', "Object missing required field `vectors`"),
        (b'{"cases": {}, "vectors": {}, "more": 1}', "Object contains unknown field `more`"),
        (
            b'{"cases": {"\xff": []}, "vectors": {}}',
            "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
    ],
)
def test_golden_file_that_is_none(pack: Path, replace_file: ReplaceFile, content: bytes, message: str) -> None:
    replace_file("report/golden.json", content)
    assert refusal(pack) == f"PACK/report/golden.json: {message}"


def test_changed_golden_file(pack: Path) -> None:
    content = (pack / "report/golden.json").read_bytes()
    (pack / "report/golden.json").write_bytes(content.replace(b"router", b"rooter"))
    assert refusal(pack).startswith("PACK/report/golden.json: expected sha256 ")
