"""Makes the pack tests/runtime/packs/tiny. This needs the exporter, the tests that open the pack do not.

Run it as: python -m tests.runtime.packs.make_tiny
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from embedpack_export.pipeline import export
from embedpack_export.planning.settings import ExportSettings
from tests.helpers.tiny_checkpoint import make_checkpoint

HERE = Path(__file__).parent


def main() -> None:
    """Export a toy BERT of random weights in every weights format."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(Path(folder) / "tiny-bert")
        made = Path(folder) / "tiny"
        # Random weights of 32 dimensions lose much by rounding to 4 bits; the graph's figures need no torch.
        settings = ExportSettings(
            checkpoint=checkpoint,
            output=made,
            weights=("fp32", "int8", "int4"),
            allow_loss=10,
            reference="fp32 graph",
        )
        export(settings)
        # Not `overwrite`: the files of a pack that was tampered with by hand are to go, too.
        shutil.rmtree(HERE / "tiny", ignore_errors=True)
        shutil.move(made, HERE / "tiny")


if __name__ == "__main__":
    main()
