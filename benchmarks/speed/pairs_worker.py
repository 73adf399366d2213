"""Measurement of pairs in a fresh process: all programs score the same texts on one thread, interleaved.

Times contain the tokenization of the pairs. The difference of scores is that to torch in float32.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.jobs import Job
from benchmarks.peers.dynamic_int8 import dynamic_int8_of_export
from benchmarks.speed.inputs import inputs_of_lengths
from embedpack import InputError, Reranker
from embedpack.engine.pair_scores import sigmoid
from embedpack.host.onnxruntime import ort
from embedpack.pack.folder import read_pack
from embedpack.pack.score_recipes import PairScores

INT8, FP32 = "embedpack int8", "embedpack fp32"
TORCH, EXPORTED, DYNAMIC = "sentence-transformers CrossEncoder", "onnxruntime fp32", "onnxruntime quantize_dynamic"
FASTEMBED = "fastembed TextCrossEncoder"
QUERY_TOKENS = 12
BATCH = 32  # that of CrossEncoder; other programs get the same
INPUTS = ("input_ids", "attention_mask", "token_type_ids")

Scores = npt.NDArray[np.float32]
Program = Callable[[str, Sequence[str]], Scores]


class PairsJob(Job, frozen=True, kw_only=True):
    """One query and `documents` documents of `tokens` tokens, scored `repetitions` times by every program."""

    pack: str
    checkpoint: str
    adapter: str
    documents: int
    tokens: int
    repetitions: int
    seed: int


@dataclass(frozen=True)
class Merged:
    """Folder of the merged checkpoint, and of its ONNX export."""

    checkpoint: Path
    onnx: Path


def measure_pairs(job: PairsJob) -> dict[str, Any]:
    """Seconds of each repetition by program, differences of scores, and programs that are missing.

    Raises:
        InputError: the pack does not score pairs.
    """
    pack = read_pack(job.pack)
    recipe = pack.manifest.score
    if not isinstance(recipe, PairScores):
        raise InputError(f"{job.pack}: this pack does not score pairs")
    lengths = [QUERY_TOKENS, *([job.tokens] * job.documents)]
    query, *documents = inputs_of_lengths(pack, lengths, job.seed).texts
    with tempfile.TemporaryDirectory(prefix="embedpack-pairs.") as scratch:
        merged = _merge(job, Path(scratch))
        programs, missing = _programs(job, merged)
        scores = {name: program(query, documents) for name, program in programs.items()}
        if recipe.activation == "sigmoid":
            # The other programs return logits.
            scores |= {name: sigmoid(logits) for name, logits in scores.items() if name not in (INT8, FP32)}
        expected = scores[TORCH]
        differences = {name: round(float(np.abs(each - expected).max()), 6) for name, each in scores.items()}
        seconds = _seconds(programs, query, documents, job.repetitions)
    return {"seconds": seconds, "differences": differences, "missing": missing}


def _seconds(
    programs: Mapping[str, Program], query: str, documents: Sequence[str], repetitions: int
) -> dict[str, dict[str, list[float]]]:
    seconds: dict[str, dict[str, list[float]]] = {name: {"wall_s": [], "cpu_s": []} for name in programs}
    for _ in range(repetitions):
        for name, program in programs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            program(query, documents)
            seconds[name]["wall_s"].append(time.perf_counter() - wall)
            seconds[name]["cpu_s"].append(time.process_time() - cpu)
    return seconds


def _merge(job: PairsJob, scratch: Path) -> Merged:
    """Merge the adapter with PEFT, and export the classifier with torch.onnx and its defaults."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(1)
    backbone = AutoModelForSequenceClassification.from_pretrained(job.checkpoint, num_labels=1, dtype=torch.float32)
    model = PeftModel.from_pretrained(backbone, job.adapter).merge_and_unload().eval()
    merged = Merged(scratch / "checkpoint", scratch / "onnx")
    tokenizer = AutoTokenizer.from_pretrained(job.checkpoint)
    # fastembed reads the limit of the model from the files of the tokenizer.
    tokenizer.model_max_length = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    model.save_pretrained(merged.checkpoint)
    merged.onnx.mkdir()
    for folder in (merged.checkpoint, merged.onnx):
        tokenizer.save_pretrained(folder)
    ids = torch.ones((2, 9), dtype=torch.int64)
    mask, types = torch.ones_like(ids), torch.zeros_like(ids)
    mask[1, 5:] = 0
    types[:, 3:] = 1
    axes = {0: "batch", 1: "sequence"}
    program = torch.onnx.export(
        model,
        kwargs={"input_ids": ids, "attention_mask": mask, "token_type_ids": types},
        input_names=list(INPUTS),
        output_names=["logits"],
        dynamic_shapes=dict.fromkeys(INPUTS, axes),
        dynamo=True,
    )
    assert program is not None
    program.save(str(merged.onnx / "model.onnx"))
    model.config.save_pretrained(merged.onnx)
    return merged


def _programs(job: PairsJob, merged: Merged) -> tuple[dict[str, Program], dict[str, str]]:
    dynamic = dynamic_int8_of_export(merged.onnx / "model.onnx", merged.onnx / "dynamic.onnx")
    programs = {
        INT8: _pack(job, "int8"),
        FP32: _pack(job, "fp32"),
        TORCH: _cross_encoder(merged),
        EXPORTED: _session(merged, merged.onnx / "model.onnx"),
        DYNAMIC: _session(merged, dynamic),
    }
    if importlib.util.find_spec("fastembed") is None:
        return programs, {FASTEMBED: "not installed"}
    return {**programs, FASTEMBED: _fastembed(merged)}, {}


def _pack(job: PairsJob, weights: str) -> Program:
    model = Reranker(job.pack, weights=weights, threads=1, prepared=False)
    return model.score


def _cross_encoder(merged: Merged) -> Program:
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(merged.checkpoint), device="cpu", local_files_only=True)

    def score(query: str, documents: Sequence[str]) -> Scores:
        pairs = [(query, document) for document in documents]
        scores: Scores = model.predict(
            pairs, batch_size=BATCH, show_progress_bar=False, activation_fn=torch.nn.Identity()
        )
        return scores

    return score


def _session(merged: Merged, path: Path) -> Program:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(merged.checkpoint / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    tokenizer.enable_padding()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def score(query: str, documents: Sequence[str]) -> Scores:
        parts = []
        for start in range(0, len(documents), BATCH):
            rows = tokenizer.encode_batch([(query, document) for document in documents[start : start + BATCH]])
            fields = ("ids", "attention_mask", "type_ids")
            feeds = {
                name: np.array([getattr(row, field) for row in rows])
                for name, field in zip(INPUTS, fields, strict=True)
            }
            parts.append(session.run(["logits"], feeds)[0][:, 0])
        return np.concatenate(parts)

    return score


def _fastembed(merged: Merged) -> Program:
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    logging.getLogger("fastembed").setLevel(logging.ERROR)
    name = "local/reranker"
    TextCrossEncoder.add_custom_model(name, ModelSource(hf=name), model_file="model.onnx")
    model = TextCrossEncoder(name, threads=1, specific_model_path=str(merged.onnx), local_files_only=True)

    def score(query: str, documents: Sequence[str]) -> Scores:
        return np.array(list(model.rerank(query, documents, batch_size=BATCH)), np.float32)

    return score
