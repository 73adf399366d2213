"""Merged checkpoint, which all peers run, and vectors of torch in float32, which they are compared with.

Runs in a process of its own, in the benchmarks' environment.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.jobs import Job
from benchmarks.peers.job import PeerInputs, read_inputs
from embedpack import EmbedpackError
from embedpack.errors import InputError
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack_export.families.model import PROJECTOR
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
    """Checkpoint and adapters of a pack, the task to merge, and files to write.

    `merged` is the folder of the merged checkpoint, `calibration` the file of calibration inputs, `vectors` has a file
    of vectors by file of inputs.
    """

    checkpoint: str
    adapters: dict[str, str]
    task: str
    fingerprint: str
    merged: str
    calibration: str
    vectors: dict[str, str]


def merge(job: MergeJob) -> None:
    """Do the job; a merged checkpoint that exists stays.

    Raises:
        SystemExit: the pack was exported from other files, or they cannot be read.
    """
    try:
        _merge(job)
    except EmbedpackError as error:
        raise SystemExit(str(error)) from error


def _merge(job: MergeJob) -> None:
    from embedpack_export.reference.torch.text_model import TextModel

    adapters = {task: Path(folder) for task, folder in job.adapters.items()}
    plan = make_plan(ExportSettings(checkpoint=Path(job.checkpoint), output=Path("unused"), adapters=adapters))
    if plan.source.fingerprint != job.fingerprint:
        raise InputError(
            f"the pack was not made of {job.checkpoint} with these adapters: its fingerprint is "
            f"{job.fingerprint[:12]}, theirs {plan.source.fingerprint[:12]}; pass the files that it was exported from"
        )
    reference = TextModel.load(plan, job.task)
    for inputs, vectors in job.vectors.items():
        np.save(vectors, reference.encode(read_inputs(inputs).texts))
    Path(job.calibration).write_bytes(msgspec.json.encode(_calibration(plan)))
    target = Path(job.merged)
    if not target.exists():
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _save(plan, reference.model, partial)
        partial.rename(target)


def _calibration(plan: ExportPlan) -> PeerInputs:
    texts = [item.text for item in plan.calibration.texts]
    ids = TextTokenizer(plan.tokenizer_json, min(MAX_TOKENS, plan.max_tokens)).encode(texts, "")
    return PeerInputs(texts=texts, ids=[item.ids.tolist() for item in ids])


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
