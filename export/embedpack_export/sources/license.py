"""The licence of a pack: that of the backbone and of every adapter merged into it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from embedpack.pack.manifest import License

LICENSE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md")
UNSTATED = "none stated: ask the makers of the checkpoint before you pass this pack on"


def pack_license(checkpoint: Path, adapters: Iterable[Path]) -> tuple[License, str]:
    """Licence and LICENSE text of a pack; what an adapter states is added to what the checkpoint states."""
    (found, text), *others = (read_license(folder) for folder in (checkpoint, *adapters))
    for other, other_text in others:
        if other.id not in (None, found.id):
            found = License(
                id=other.id if found.id is None else f"{found.id} AND {other.id}",
                non_commercial=found.non_commercial or other.non_commercial,
            )
            text += f"\nOf an adapter:\n\n{other_text}"
    return found, text


def read_license(folder: Path) -> tuple[License, str]:
    """Licence id of the model card's front matter, and the licence text; a sentence where there is no such file."""
    card = folder / "README.md"
    lines = card.read_text("utf-8", errors="replace").splitlines() if card.is_file() else []
    front = lines[1 : lines.index("---", 1)] if lines[:1] == ["---"] and "---" in lines[1:] else []
    found = _front_matter(front, "license")
    if found == "other":
        found = _front_matter(front, "license_name") or found
    restricted = found is not None and ("-nc" in found or "research" in found)
    license = License(id=found, non_commercial=restricted)
    for name in LICENSE_FILES:
        if (folder / name).is_file():
            return license, (folder / name).read_text("utf-8", errors="replace")
    return (
        license,
        f"License of the weights in this pack, as the checkpoint's model card states it: {found or UNSTATED}\n",
    )


def _front_matter(lines: Sequence[str], key: str) -> str | None:
    """A plain value, or the first of a list."""
    for index, line in enumerate(lines):
        if line.startswith(f"{key}:"):
            value = line.removeprefix(f"{key}:").strip() or "".join(lines[index + 1 : index + 2]).lstrip(" -").strip()
            return value.strip("\"'[]") or None
    return None
