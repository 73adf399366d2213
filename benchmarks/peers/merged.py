"""Merged checkpoint, which all peers run, and vectors of torch in float32, which they are compared with.

Runs in a process of its own, in the benchmarks' environment.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

from benchmarks.jobs import Job, do_job
from benchmarks.peers.job import Inputs, read_inputs
from benchmarks.speed.inputs import write_inputs
from embedpack import EmbedpackError
from embedpack.errors import InputError
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack_export.families import PROJECTOR
from embedpack_export.planning.plan import ExportPlan, make_plan
from embedpack_export.planning.settings import ExportSettings

# Files that transformers does not write with the weights.
COPIED_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "modules.json",
    "sentence_bert_config.json", "1_Pooling/config.json",
)  # fmt: skip
# Tokens of a calibration text of the peers.
MAX_TOKENS = 128


class MergeJob(Job, frozen=True, kw_only=True):
    """Merge a checkpoint, and encode inputs with torch.

    Attributes:
        checkpoint: folder of the checkpoint that the pack was exported from.
        adapters: folders of the adapters by task, as at the export.
        task: task of the adapter to merge.
        fingerprint: fingerprint of the pack.
        merged: folder of the merged checkpoint to write.
        calibration: file of calibration inputs to write.
        vectors: file of the vectors to write, by file of inputs.
    """

    checkpoint: str
    adapters: dict[str, str]
    task: str
    fingerprint: str
    merged: str
    calibration: str
    vectors: dict[str, str]


def merge(job: MergeJob) -> dict[str, str]:
    """Do the job; a merged checkpoint that exists stays.

    Raises:
        EmbedpackError: the pack was exported from other files, or they cannot be read.
    """
    from embedpack_export.reference.torch.loading import load_model
    from embedpack_export.reference.torch.text_model import TextModel

    adapters = {task: Path(folder) for task, folder in job.adapters.items()}
    plan = make_plan(ExportSettings(checkpoint=Path(job.checkpoint), output=Path("unused"), adapters=adapters))
    if plan.source.fingerprint != job.fingerprint:
        raise InputError(
            f"the pack was not made of {job.checkpoint} with these adapters: its fingerprint is "
            f"{job.fingerprint[:12]}, theirs {plan.source.fingerprint[:12]}; pass the files that it was exported from"
        )
    model = load_model(plan, job.task)
    reference = TextModel(model, TextTokenizer(plan.tokenizer_json, plan.max_tokens), plan.pooling)
    for inputs, vectors in job.vectors.items():
        np.save(vectors, reference.encode(read_inputs(inputs).texts))
    write_inputs(Path(job.calibration), _calibration(plan))
    target = Path(job.merged)
    if not target.exists():
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _save(plan, model, partial)
        partial.rename(target)
    return {}


def _calibration(plan: ExportPlan) -> Inputs:
    texts = [item.text for item in plan.calibration.texts]
    ids = TextTokenizer(plan.tokenizer_json, min(MAX_TOKENS, plan.max_tokens)).encode(texts, "")
    return Inputs(texts=texts, ids=[item.ids.tolist() for item in ids])


def _save(plan: ExportPlan, model: object, target: Path) -> None:
    from transformers import PreTrainedModel

    merged = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    assert isinstance(merged, PreTrainedModel)
    # Peers have no head for multi-vectors, and some refuse its tensors.
    state = {name: tensor for name, tensor in merged.state_dict().items() if not name.startswith(f"{PROJECTOR}.")}
    merged.save_pretrained(target, state_dict=state, max_shard_size="100GB")
    for name in COPIED_FILES:
        source = plan.checkpoint.folder / name
        if source.exists():
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target / name)


def main() -> int:
    """Do the job and return the exit status."""
    try:
        do_job({MergeJob: merge})
    except EmbedpackError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
