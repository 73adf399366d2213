"""The adapter folder: one weights file for all tasks, with the task in the keys as in jina-embeddings-v4."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.default_model.encoder import BACKBONE, MATRYOSHKA_DIMS, PROMPTS, TASKS, Encoder
from training.default_model.late_interaction import Projector

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PROMPT_FILE = "config_sentence_transformers.json"
RANK = 8
ALPHA = 16
TARGETS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
PROJECTOR = "multi_vector_projector"


def fresh_adapter(encoder: Encoder, task: str, seed: int) -> Encoder:
    """Add a new LoRA to the six linear layers of every block."""
    torch.manual_seed(seed)
    return replace(encoder, model=get_peft_model(encoder.model, lora(TARGETS), adapter_name=task).eval())


def lora(targets: list[str]) -> LoraConfig:
    """Configuration of the LoRA of some modules."""
    return LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=targets, task_type="FEATURE_EXTRACTION"
    )


def load_adapter(encoder: Encoder, folder: Path, task: str) -> Encoder:
    """Load the LoRA of one task onto the backbone; the task is removed from the keys, which PEFT does not expect.

    Raises:
        SystemExit: the task's keys are not those of a LoRA on this backbone.
    """
    ending = f".{task}.weight"
    tensors = load_file(folder / WEIGHTS)
    plain = {
        name.removesuffix(ending) + ".weight": tensor
        for name, tensor in tensors.items()
        if name.endswith(ending) and PROJECTOR not in name
    }
    adapted = fresh_adapter(encoder, task, seed=0)
    if plain.keys() != get_peft_model_state_dict(adapted.model, adapter_name=task).keys():
        raise SystemExit(f"{folder / WEIGHTS}: keys of task {task} do not fit the backbone; was it trained on another?")
    set_peft_model_state_dict(adapted.model, plain, adapter_name=task)
    return adapted


def load_projector(folder: Path) -> Projector:
    """Load the projector with the LoRAs of all tasks.

    Raises:
        SystemExit: the file's tensors of the projector are not the expected ones.
    """
    stem = f"base_model.model.{PROJECTOR}."
    tensors = {
        name.removeprefix(stem): tensor for name, tensor in load_file(folder / WEIGHTS).items() if name.startswith(stem)
    }
    expected = {"base_layer.weight", "base_layer.bias"}
    expected |= {f"{lora}.{task}.weight" for lora in ("lora_A", "lora_B") for task in TASKS}
    if tensors.keys() != expected:
        raise SystemExit(f"{folder / WEIGHTS}: has {sorted(tensors)} below {stem}, expected {sorted(expected)}")
    projector = Projector(tensors["base_layer.weight"], tensors["base_layer.bias"], RANK, ALPHA)
    with torch.no_grad():
        for task in TASKS:
            projector.down[task].copy_(tensors[f"lora_A.{task}.weight"])
            projector.up[task].copy_(tensors[f"lora_B.{task}.weight"])
    return projector


def projector_tensors(projector: Projector) -> dict[str, Tensor]:
    """Tensors of the projector, by their names in the file."""
    stem = f"base_model.model.{PROJECTOR}"
    named: dict[str, Tensor] = {f"{stem}.base_layer.{name}": getattr(projector, name) for name in ("weight", "bias")}
    for task in TASKS:
        named[f"{stem}.lora_A.{task}.weight"] = projector.down[task]
        named[f"{stem}.lora_B.{task}.weight"] = projector.up[task]
    return named


def task_tensors(encoder: Encoder, task: str) -> dict[str, Tensor]:
    """Tensors of one task's LoRA, by their names in the file."""
    state = get_peft_model_state_dict(encoder.model, adapter_name=task)
    return {name.removesuffix(".weight") + f".{task}.weight": tensor for name, tensor in state.items()}


def save(tensors: Mapping[str, Tensor], out: Path) -> None:
    """Write tensors into the folder; tensors of the same name are replaced, all others stay."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / WEIGHTS
    existing = load_file(path) if path.exists() else {}
    merged = {name: tensor.detach().contiguous() for name, tensor in sorted({**existing, **tensors}.items())}
    save_file(merged, path, metadata={"format": "pt"})
    targets = TARGETS + [PROJECTOR] * any(PROJECTOR in name for name in merged)
    write_config(sorted(targets), out)
    prompts = {"query": PROMPTS.query, "passage": PROMPTS.passage}
    settings = {"prompts": prompts, "default_prompt_name": "query", "matryoshka_dims": list(MATRYOSHKA_DIMS)}
    write_json(out / PROMPT_FILE, settings)


def write_config(targets: list[str], out: Path) -> None:
    """Write adapter_config.json as PEFT does, with the modules in a fixed order: PEFT saves a set."""
    config = lora(targets)
    config.base_model_name_or_path, config.inference_mode = BACKBONE, True
    config.save_pretrained(str(out))
    written = json.loads((out / CONFIG).read_text(encoding="utf-8"))
    write_json(out / CONFIG, {**written, "target_modules": targets})


def write_json(path: Path, value: object) -> None:
    """Write JSON with indentation and a final newline."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8", newline="\n")
