"""The cross-encoder: pairs of a query and a document to scores, and its PEFT folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, BertForSequenceClassification, PreTrainedTokenizerBase

from training.default_model.adapters import CONFIG, WEIGHTS, write_json
from training.default_model.encoder import BACKBONE
from training.default_reranker.settings import ALPHA, RANK, TARGETS

BATCH = 8  # pairs of a forward pass: more of them would be padding
SAVED = ("classifier", "pooler")  # modules that are trained whole
TOKEN_LAYER = 5  # of the six, whose query tokens learn the cosines of the ColBERT in training


class PairStates(NamedTuple):
    """Results of a batch of pairs.

    Attributes:
        scores: float32 [pairs], before the sigmoid.
        tokens: float32 [pairs, tokens, 384], states after layer TOKEN_LAYER.
    """

    scores: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class CrossEncoder:
    """A BERT classifier of one label with a LoRA; pairs are truncated to `max_tokens`, the document first."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int

    def __call__(self, queries: Sequence[str], documents: Sequence[str]) -> Tensor:
        """Scores [pairs] of query i with document i, float32; pairs of similar length run together.

        The layers compute in the dtype of their frozen weights, pooler and classifier in float32.
        """
        parts, order = [], []
        for chosen in self.batches(queries, documents):
            order += chosen
            states = self.states([queries[index] for index in chosen], [documents[index] for index in chosen])
            parts.append(states.scores)
        return torch.cat(parts)[torch.tensor(order).argsort()]

    def batches(self, queries: Sequence[str], documents: Sequence[str]) -> list[list[int]]:
        """Indices of pairs that run together, in rising number of tokens."""
        lengths = [len(ids) for ids in self.tokenizer(list(queries), list(documents))["input_ids"]]
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]

    def states(self, queries: Sequence[str], documents: Sequence[str]) -> PairStates:
        """Scores and token states of one batch."""
        bert = self.base.bert
        assert bert.pooler is not None
        inputs = self.tokenizer(
            list(queries), list(documents), padding=True, truncation=True, max_length=self.max_tokens,
            return_tensors="pt",
        )  # fmt: skip
        reduced = next(bert.encoder.parameters()).dtype == torch.bfloat16
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced):
            found = bert(**inputs, output_hidden_states=True)
        logits: Tensor = self.base.classifier(bert.pooler(found.last_hidden_state.float()))
        return PairStates(logits[:, 0], found.hidden_states[TOKEN_LAYER].float())

    @property
    def base(self) -> BertForSequenceClassification:
        """The classifier that the LoRA is part of."""
        base = self.model.get_base_model()
        assert isinstance(base, BertForSequenceClassification)
        return base


def fresh_cross_encoder(backbone: Path, max_tokens: int, seed: int) -> CrossEncoder:
    """Load the backbone with a new LoRA and a new classifier, in eval mode: without dropout, in training too."""
    torch.manual_seed(seed)
    # In training, "eager" attention takes three quarters of the time of "sdpa" on a CPU.
    model = BertForSequenceClassification.from_pretrained(
        backbone, num_labels=1, dtype=torch.float32, attn_implementation="eager"
    )
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="SEQ_CLS", modules_to_save=list(SAVED)
    )
    return CrossEncoder(get_peft_model(model, config).eval(), AutoTokenizer.from_pretrained(backbone), max_tokens)


def start_from_colbert(encoder: CrossEncoder, folder: Path) -> None:
    """Put the LoRA of the ColBERT into the first ranks of the new one; both scale by 2."""
    own = get_peft_model_state_dict(encoder.model)
    for name, tensor in load_file(folder / WEIGHTS).items():
        target = own[name.replace("base_model.model.", "base_model.model.bert.", 1)]
        rows, columns = tensor.shape
        target[:rows, :columns] = tensor.float()
    load_adapter_tensors(encoder, own)


def load_cross_encoder(backbone: Path, adapter: Path, max_tokens: int) -> CrossEncoder:
    """Load backbone and adapter."""
    encoder = fresh_cross_encoder(backbone, max_tokens, seed=0)
    load_adapter_tensors(encoder, load_file(adapter / WEIGHTS))
    return encoder


def load_adapter_tensors(encoder: CrossEncoder, tensors: dict[str, Tensor]) -> None:
    """Put the tensors of an adapter file into the model.

    Raises:
        SystemExit: the names are not those of the model's adapter.
    """
    if tensors.keys() != get_peft_model_state_dict(encoder.model).keys():
        raise SystemExit("the tensors of the adapter are not those of a cross-encoder on this backbone")
    set_peft_model_state_dict(encoder.model, {name: tensor.float() for name, tensor in tensors.items()})


def reduce_frozen_layers(encoder: CrossEncoder) -> None:
    """Round the frozen linear weights of the layers to bfloat16: training takes half the time."""
    for parameter in encoder.base.bert.encoder.parameters():
        if not parameter.requires_grad and parameter.ndim == 2:
            parameter.data = parameter.data.to(torch.bfloat16)


def save_cross_encoder(encoder: CrossEncoder, out: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors as PEFT does, tensors as float16."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = get_peft_model_state_dict(encoder.model)
    halves = {name: tensor.detach().half().contiguous() for name, tensor in sorted(tensors.items())}
    save_file(halves, out / WEIGHTS, metadata={"format": "pt"})
    config = encoder.model.peft_config["default"]
    config.base_model_name_or_path, config.inference_mode = BACKBONE, True
    config.save_pretrained(str(out))
    written = json.loads((out / CONFIG).read_text(encoding="utf-8"))
    # PEFT saves the modules as a set, and adds names of other architectures' classifiers.
    write_json(out / CONFIG, {**written, "target_modules": sorted(TARGETS), "modules_to_save": list(SAVED)})
