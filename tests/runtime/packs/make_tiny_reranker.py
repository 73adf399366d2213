"""Makes the pack tests/runtime/packs/tiny-reranker. This needs the exporter, the tests that open the pack do not.

Run it as: python -m tests.runtime.packs.make_tiny_reranker
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from embedpack_export.pipeline import export
from tests.helpers.exports import quick
from tests.helpers.tiny_reranker import make_reranker

HERE = Path(__file__).parent


def main() -> None:
    """Export a toy cross-encoder of random weights, with token types and scores from 0 to 1."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "pack"
        export(quick(make_reranker(Path(folder) / "tiny-reranker"), made))
        # Not `overwrite`: the files of a pack that was tampered with by hand are to go, too.
        shutil.rmtree(HERE / "tiny-reranker", ignore_errors=True)
        shutil.move(made, HERE / "tiny-reranker")


if __name__ == "__main__":
    main()
