"""Licence of a pack, from the backbone and its adapters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from embedpack.pack.manifest import License

LICENSE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md")
UNSTATED = "none stated: ask the makers of the checkpoint before you pass this pack on"


def pack_license(checkpoint: Path, adapters: Iterable[Path]) -> tuple[License, str]:
    """Licence and LICENSE text of a pack: those of the checkpoint, then those of adapters with another licence."""
    (license, text), *others = (read_license(folder) for folder in (checkpoint, *adapters))
    for other, other_text in others:
        if other.id not in (None, license.id):
            license = License(
                id=other.id if license.id is None else f"{license.id} AND {other.id}",
                non_commercial=license.non_commercial or other.non_commercial,
            )
            text += f"\nOf an adapter:\n\n{other_text}"
    return license, text


def read_license(folder: Path) -> tuple[License, str]:
    """Licence id from the front matter of the model card, and the licence text; a sentence if there is no such file."""
    card = folder / "README.md"
    lines = card.read_text("utf-8", errors="replace").splitlines() if card.is_file() else []
    front = lines[1 : lines.index("---", 1)] if lines[:1] == ["---"] and "---" in lines[1:] else []
    name = _front_matter(front, "license")
    if name == "other":
        name = _front_matter(front, "license_name") or name
    restricted = name is not None and ("-nc" in name or "research" in name)
    license = License(id=name, non_commercial=restricted)
    for file in LICENSE_FILES:
        if (folder / file).is_file():
            return license, (folder / file).read_text("utf-8", errors="replace")
    return (
        license,
        f"License of the weights in this pack, as the checkpoint's model card states it: {name or UNSTATED}\n",
    )


def _front_matter(lines: Sequence[str], key: str) -> str | None:
    """Value of a key, the first if it is a list; None if there is none."""
    for index, line in enumerate(lines):
        if line.startswith(f"{key}:"):
            value = line.removeprefix(f"{key}:").strip() or "".join(lines[index + 1 : index + 2]).lstrip(" -").strip()
            return value.strip("\"'[]") or None
    return None
