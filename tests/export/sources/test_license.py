"""Licence of a pack: from the model card, the adapter's card and the licence file."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedpack.pack.manifest import License
from embedpack_export.pipeline import export
from embedpack_export.sources.license import pack_license, read_license
from tests.helpers.exports import (
    quick,
)
from tests.helpers.tiny_checkpoint import make_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "toy")


# --- the licence


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: mit\n---\n", License(id="mit", non_commercial=False)),
        ("---\nlanguage: en\nlicense: 'cc-by-nc-4.0'\n---\n", License(id="cc-by-nc-4.0", non_commercial=True)),
        ('---\r\nlicense: "apache-2.0"\r\n---\r\n', License(id="apache-2.0", non_commercial=False)),
        ("---\nlicense:\n- mit\n---\n", License(id="mit", non_commercial=False)),
        ("---\nlicense: [mit]\n---\n", License(id="mit", non_commercial=False)),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", License(id="qwen-research", non_commercial=True)),
        ("---\nlicense: other\n---\n", License(id="other", non_commercial=False)),
        ("---\nlicense: qwen-research\n---\n", License(id="qwen-research", non_commercial=True)),
        ("---\nlicense: CC-BY-NC-4.0\n---\n", License(id="CC-BY-NC-4.0", non_commercial=True)),
        ("---\nlicense: cc-by-nc-sa-4.0 # as the data\n---\n", License(id="cc-by-nc-sa-4.0", non_commercial=True)),
        (
            "---\nlicense: Other\nlicense_name: My Non-Commercial\n---\n",
            License(id="My Non-Commercial", non_commercial=True),
        ),
        ("---\nlicense: other\nlicense_name: noncommercial\n---\n", License(id="noncommercial", non_commercial=True)),
        ("---\nlicense: openrail\n---\n", License(id="openrail", non_commercial=False)),
        ("---\nlicense: inc-vnc-license\n---\n", License(id="inc-vnc-license", non_commercial=False)),
        (
            "---\nlicense:\n- mit\n- cc-by-nc-4.0\ntags:\n- x\n---\n",
            License(id="mit AND cc-by-nc-4.0", non_commercial=True),
        ),
        ("---\nlicense: [mit, 'cc-by-nc-4.0']\n---\n", License(id="mit AND cc-by-nc-4.0", non_commercial=True)),
        ("---\nlanguage: en\n---\nlicense: mit\n", License(id=None, non_commercial=False)),
        ("license: mit\n", License(id=None, non_commercial=False)),
        ("", License(id=None, non_commercial=False)),
    ],
)
def test_the_licence_of_the_model_card(checkpoint: Path, card: str, expected: License) -> None:
    (checkpoint / "README.md").write_bytes(card.encode())
    found, text = read_license(checkpoint)
    assert found == expected
    stated = expected.id or "none stated: ask the makers of the checkpoint before you pass this pack on"
    assert text == f"License of the weights in this pack, as the checkpoint's model card states it: {stated}\n"


def test_no_model_card(checkpoint: Path) -> None:
    (checkpoint / "README.md").unlink()
    assert read_license(checkpoint)[0] == License(id=None, non_commercial=False)


@pytest.mark.parametrize("name", ["LICENSE", "LICENSE.txt", "LICENSE.md"])
def test_the_licence_file_is_copied(checkpoint: Path, name: str) -> None:
    (checkpoint / name).write_text("Do as you please.\n")
    assert read_license(checkpoint) == (License(id="apache-2.0", non_commercial=False), "Do as you please.\n")
    manifest = export(quick(checkpoint, checkpoint.parent / "pack", weights=("fp32",)))
    assert manifest.license.id == "apache-2.0"
    assert (checkpoint.parent / "pack" / "LICENSE").read_text() == "Do as you please.\n"


def test_the_licence_of_an_adapter_counts_too(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    (tmp_path / "silent").mkdir()
    found, text = pack_license(checkpoint, [tmp_path / "silent", tmp_path])
    assert found == License(id="apache-2.0 AND cc-by-nc-4.0", non_commercial=True)
    assert "cc-by-nc-4.0" in text


def test_the_text_of_an_adapter_without_a_card_is_kept(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "LICENSE").write_text("For non-commercial use by the makers' friends.\n")
    license, text = pack_license(checkpoint, [tmp_path / "adapter"])
    assert license == License(id="apache-2.0", non_commercial=True)
    assert text.endswith("\nOf an adapter:\n\nFor non-commercial use by the makers' friends.\n")


def test_the_text_of_an_adapter_of_the_same_licence_is_kept_once(tmp_path: Path, checkpoint: Path) -> None:
    adapters = [tmp_path / "first", tmp_path / "second"]
    for adapter in adapters:
        adapter.mkdir()
        (adapter / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
        (adapter / "LICENSE").write_text("Copyright of somebody else.\n")
    license, text = pack_license(checkpoint, adapters)
    assert license == License(id="apache-2.0", non_commercial=False)
    assert text.count("Copyright of somebody else.") == 1
