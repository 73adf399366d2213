"""Python code of the documents."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python_blocks(document: str) -> list[str]:
    """Blocks of Python of a document, by its path from the root."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text("utf-8"), re.MULTILINE | re.DOTALL)
