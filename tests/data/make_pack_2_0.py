"""Makes the pack tests/data/pack-2.0, of format 2.0: two tasks with adapters and multi-vectors, merged and switchable.

Only commit 8ab2766 and older ones write this format. Check that one out, and run there:
python -m tests.data.make_pack_2_0 FOLDER
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from embedpack.pack.manifest import FORMAT
from embedpack_export.pipeline import export
from embedpack_export.planning.settings import ExportSettings
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.token_projector import TASKS, save_tasks


def main(output: Path) -> None:
    """Export a toy BERT of random weights with adapters of two tasks, in int8."""
    if FORMAT != "2.0":
        sys.exit(f"this commit writes packs of format {FORMAT}; check out 8ab2766")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(Path(folder) / "toy-bert")
        adapters = save_tasks(checkpoint, Path(folder) / "adapters")
        export(
            ExportSettings(
                checkpoint=checkpoint,
                output=output,
                adapters=dict.fromkeys(TASKS, adapters),
                adapter_modes=("merged", "switchable"),
                weights=("int8",),
                allow_loss=10,
                reference="fp32 graph",
            )
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
