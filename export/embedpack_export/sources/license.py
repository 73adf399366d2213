"""Licence of a pack, from the backbone and its adapters."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from embedpack.pack.manifest import License
from embedpack_export.sources.files import MAX_TEXT_BYTES, exists, read_file

LICENSE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md")
# cc-by-nc-4.0, CC-BY-NC-SA, Non-Commercial, qwen-research
RESTRICTED_NAME = re.compile(r"(?<![a-z])nc(?![a-z])|non[-_ ]?commercial|research", re.IGNORECASE)
RESTRICTED_TEXT = re.compile(r"non[-_ ]?commercial", re.IGNORECASE)
COMMENT = re.compile(r"(^|\s)#.*")
UNSTATED = "none stated: ask the makers of the checkpoint before you pass this pack on"


def pack_license(checkpoint: Path, adapters: Sequence[Path]) -> tuple[License, str]:
    """Licence and LICENSE text of a pack: those of the checkpoint, then those of adapters that differ."""
    (license, text), *others = (read_license(folder) for folder in (checkpoint, *adapters))
    for folder, (other, other_text) in zip(adapters, others, strict=True):
        ids = [each for each in dict.fromkeys([*(license.id or "").split(" AND "), other.id]) if each]
        differs = " AND ".join(ids) != (license.id or "") or _license_text(folder) is not None
        if differs and other_text not in text:
            text += f"\nOf an adapter:\n\n{other_text}"
        license = License(id=" AND ".join(ids) or None, non_commercial=license.non_commercial or other.non_commercial)
    return license, text


def read_license(folder: Path) -> tuple[License, str]:
    """Licence id from the front matter of the model card, and the licence text; a sentence if there is no such file."""
    card = folder / "README.md"
    lines = _read_text(card).splitlines() if exists(card) else []
    front = lines[1 : lines.index("---", 1)] if lines[:1] == ["---"] and "---" in lines[1:] else []
    name = _front_matter(front, "license")
    if name is not None and name.lower() == "other":
        name = _front_matter(front, "license_name") or name
    text = _license_text(folder)
    # Without a name, the text is all that states the terms.
    unnamed = text is not None and (name is None or name.lower() == "other")
    restricted = RESTRICTED_NAME.search(name or "") or (RESTRICTED_TEXT.search(text or "") if unnamed else None)
    license = License(id=name, non_commercial=restricted is not None)
    stated = f"License of the weights in this pack, as the checkpoint's model card states it: {name or UNSTATED}\n"
    return license, stated if text is None else text


def _license_text(folder: Path) -> str | None:
    """Text of the licence file; None if there is none."""
    paths = [folder / name for name in LICENSE_FILES if exists(folder / name)]
    return _read_text(paths[0]) if paths else None


def _read_text(path: Path) -> str:
    return read_file(path, path.parent, MAX_TEXT_BYTES).decode("utf-8", errors="replace")


def _front_matter(lines: Sequence[str], key: str) -> str | None:
    """Value of a key, the values of a list joined by AND; None if there is none."""
    for index, line in enumerate(lines):
        if line.startswith(f"{key}:"):
            value = COMMENT.sub("", line.removeprefix(f"{key}:"))
            items = itertools.takewhile(lambda item: item.lstrip().startswith("- "), lines[index + 1 :])
            values = (
                value.strip().strip("[]").split(",") if value.strip() else [COMMENT.sub("", item) for item in items]
            )
            return " AND ".join(filter(None, (each.strip(" -\"'") for each in values))) or None
    return None
