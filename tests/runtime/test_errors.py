"""Tree of errors, and the messages built in it."""

from __future__ import annotations

import pytest

from embedpack import (
    AccuracyError,
    CapacityError,
    CheckpointError,
    EmbedpackError,
    InputError,
    MissingExtraError,
    PackError,
)
from embedpack.errors import unknown


@pytest.mark.parametrize(
    "kind", [AccuracyError, PackError, CheckpointError, InputError, CapacityError, MissingExtraError]
)
def test_one_class_catches_everything(kind: type[Exception]) -> None:
    assert issubclass(kind, EmbedpackError)
    assert not issubclass(kind, OSError | ValueError)


@pytest.mark.parametrize("kind", [PackError, CheckpointError, InputError, CapacityError])
def test_line_breaks_in_quoted_names_are_escaped(kind: type[EmbedpackError]) -> None:
    assert str(kind("unknown field `a\nb`")) == r"unknown field `a\nb`"


def test_an_accuracy_error_has_a_line_for_each_failure() -> None:
    assert str(AccuracyError("over budget\nfirst")).splitlines() == ["over budget", "first"]


def test_missing_extra_names_the_command() -> None:
    message = "this needs 'onnx_ir', which is not installed. Run: pip install 'embedpack[export]'"
    assert str(MissingExtraError("export", "onnx_ir")) == message


@pytest.mark.parametrize(
    ("found", "known", "message"),
    [
        ("cat", ("dog", "horse"), "unknown animal 'cat'; known: dog, horse"),
        ("hrose", ("dog", "horse"), "unknown animal 'hrose'; known: dog, horse; did you mean 'horse'?"),
        ("cat", (), "unknown animal 'cat'; known: none"),
        (768, (256, 1024), "unknown animal 768; known: 256, 1024"),
        (None, ("dog",), "unknown animal None; known: dog"),
    ],
)
def test_unknown_name_lists_the_known_ones(found: object, known: tuple[object, ...], message: str) -> None:
    assert unknown("animal", found, known) == message
