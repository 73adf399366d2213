"""Changed PEFT adapters, exported; an accepted one is a whole pack with unit vectors."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from embedpack_export.pipeline import export
from tests.fuzz.fuzzers.checkpoints import use_pack
from tests.fuzz.mutations import json_bytes, mutate_json, mutate_safetensors
from tests.fuzz.outcome import Attempt, Fuzzer
from tests.helpers.exports import query_update, quick, write_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint

CONFIG = {
    "peft_type": "LORA", "r": 4, "lora_alpha": 8, "rank_pattern": {}, "alpha_pattern": {"query": 8}, "bias": "none",
    "use_rslora": False, "use_dora": False, "target_modules": ["query"], "init_lora_weights": True,
    "modules_to_save": None, "fan_in_fan_out": False, "task_type": None,
}  # fmt: skip


def prepare(folder: Path) -> Attempt:
    """Tries with a changed configuration or changed tensors of one adapter."""
    checkpoint = make_checkpoint(folder / "toy")
    adapter = write_adapter(folder / "adapter", query_update(), **CONFIG)
    tensors = (adapter / "adapter_model.safetensors").read_bytes()
    settings = quick(checkpoint, folder / "pack", weights=("fp32",), adapters={"retrieval": adapter})

    def attempt(rng: random.Random) -> None:
        of_config = rng.random() < 0.5
        config = json_bytes(mutate_json(CONFIG, rng), rng) if of_config else json.dumps(CONFIG).encode()
        (adapter / "adapter_config.json").write_bytes(config)
        (adapter / "adapter_model.safetensors").write_bytes(tensors if of_config else mutate_safetensors(tensors, rng))
        try:
            export(settings)
            use_pack(settings.output)
        finally:
            shutil.rmtree(settings.output, ignore_errors=True)

    return attempt


FUZZER = Fuzzer("PEFT adapters", 500, prepare)
