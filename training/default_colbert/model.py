"""The ColBERT: texts to multi-vectors, and its folder as PyLate writes it for a PEFT model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import linear, normalize, pad
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from training.default_colbert.settings import ALPHA, DIMENSIONS, MARKERS, MAX_TOKENS, RANK
from training.default_model.adapters import CONFIG, PROMPT_FILE, TARGETS, WEIGHTS, write_json
from training.default_model.encoder import BACKBONE, States, batches, by_length

DENSE = "1_Dense"
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": DENSE, "type": "pylate.models.Dense.Dense"},
]


@dataclass(frozen=True)
class ColBERT:
    """A LoRA model, its tokenizer, and the projection [128, 384] of token states."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    dense: torch.nn.Parameter

    def states(self, texts: Sequence[str], side: str, max_tokens: int) -> States:
        """Last hidden states of a batch; the side's marker is put in after [CLS], as PyLate does."""
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=max_tokens - 1, return_tensors="pt")
        ids, mask = inputs["input_ids"], pad(inputs["attention_mask"], (1, 0), value=1)
        marker = torch.full((len(ids), 1), self.tokenizer.get_vocab()[MARKERS[side]])
        marked = torch.cat([ids[:, :1], marker, ids[:, 1:]], dim=1)
        return States(self.model(input_ids=marked, attention_mask=mask).last_hidden_state.float(), mask)

    def project(self, states: States) -> States:
        """Unit vectors [texts, tokens, 128]; rows of padding hold arbitrary values."""
        return States(normalize(linear(states.values, self.dense), dim=-1), states.mask)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], side: str) -> list[Tensor]:
        """Multi-vectors [tokens, 128] in the order of the texts."""
        order = by_length(texts)
        rows: list[Tensor] = []
        for batch in batches([texts[index] for index in order]):
            rows += self.project(self.states(batch, side, MAX_TOKENS[side])).rows()
        positions = sorted(range(len(order)), key=order.__getitem__)
        return [rows[position] for position in positions]


def fresh_colbert(backbone: Path, seed: int) -> ColBERT:
    """Load the backbone in eval mode with a new LoRA and a projection of zeros."""
    torch.manual_seed(seed)
    model = AutoModel.from_pretrained(backbone, dtype=torch.float32, add_pooling_layer=False)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="FEATURE_EXTRACTION")
    dense = torch.nn.Parameter(torch.zeros(DIMENSIONS, model.config.hidden_size))
    return ColBERT(get_peft_model(model, config).eval(), AutoTokenizer.from_pretrained(backbone), dense)


def load_colbert(backbone: Path, folder: Path) -> ColBERT:
    """Load backbone and folder."""
    colbert = fresh_colbert(backbone, seed=0)
    tensors = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
    if tensors.keys() != get_peft_model_state_dict(colbert.model).keys():
        raise SystemExit(f"{folder / WEIGHTS}: its tensors are not those of a ColBERT on this backbone")
    set_peft_model_state_dict(colbert.model, tensors)
    colbert.dense.data = load_file(folder / DENSE / "model.safetensors")["linear.weight"].float()
    return colbert


def save_colbert(colbert: ColBERT, out: Path) -> None:
    """Write the folder; tensors as float16."""
    (out / DENSE).mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(colbert.model)
    halves = {name: tensor.detach().half().contiguous() for name, tensor in sorted(state.items())}
    save_file(halves, out / WEIGHTS, metadata={"format": "pt"})
    dense = {"linear.weight": colbert.dense.detach().half().contiguous()}
    save_file(dense, out / DENSE / "model.safetensors", metadata={"format": "pt"})
    config = colbert.model.peft_config["default"]
    config.base_model_name_or_path, config.inference_mode = BACKBONE, True
    config.save_pretrained(str(out))
    written = json.loads((out / CONFIG).read_text(encoding="utf-8"))
    write_json(out / CONFIG, {**written, "target_modules": sorted(TARGETS)})
    write_json(out / "modules.json", MODULES)
    rows, columns = colbert.dense.shape
    write_json(
        out / DENSE / "config.json",
        {
            "in_features": columns,
            "out_features": rows,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    write_json(out / PROMPT_FILE, sentence_transformers_settings())


def sentence_transformers_settings() -> dict[str, object]:
    """Settings as PyLate writes them: no expansion of queries, no skipped tokens of documents."""
    return {
        "model_type": "ColBERT",
        "similarity_fn_name": "MaxSim",
        "prompts": {},
        "default_prompt_name": None,
        "query_prefix": MARKERS["query"],
        "document_prefix": MARKERS["document"],
        "query_length": MAX_TOKENS["query"],
        "document_length": MAX_TOKENS["document"],
        "attend_to_expansion_tokens": False,
        "do_query_expansion": False,
        "skiplist_words": [],
    }
