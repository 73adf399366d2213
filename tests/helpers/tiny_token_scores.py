"""Tiny rerankers of the layout of Qwen3-Reranker: a causal language model, LogitScore and a chat template."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer

from embedpack.storage.safetensors import write_safetensors
from tests.helpers.exports import edit_json
from tests.helpers.tiny_decoder import make_decoder, make_tensors

SPECIAL, PLAIN = ("<|im_start|>", "<|im_end|>"), ("<think>", "</think>")
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
TEMPLATE = f"""<|im_start|>system
{JUDGE}<|im_end|>
<|im_start|>user
<Instruct>: {{{{ messages | selectattr("role", "eq", "system") | map(attribute="content") | first | default("{INSTRUCTION}") }}}}
<Query>: {{{{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}}}
<Document>: {{{{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}}}<|im_end|>
<|im_start|>assistant
<think>

</think>


"""  # noqa: E501 - an expression of the template is one line
FORWARD = {"method": "forward", "method_output_name": "logits"}


def literal(query: str, document: str, instruction: str = INSTRUCTION) -> str:
    """Prompt of a pair as its model card writes it."""
    return (
        f"<|im_start|>system\n{JUDGE}<|im_end|>\n<|im_start|>user\n<Instruct>: {instruction}\n<Query>: {query}\n"
        f"<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def make_token_scores(folder: Path, *, tied: bool = True, activation: str = "linear.Identity") -> Path:
    """Write a CrossEncoder folder as sentence-transformers saves one."""
    make_decoder(folder, "qwen3", tie_word_embeddings=tied, max_position_embeddings=2048)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([*SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in PLAIN])
    tokenizer.save(str(folder / "tokenizer.json"))
    edit_json(folder / "config.json", vocab_size=tokenizer.get_vocab_size())
    config = json.loads((folder / "config.json").read_text())
    tensors = make_tensors(config, 7)
    if not tied:
        shape = (config["vocab_size"], config["hidden_size"])
        tensors["lm_head.weight"] = np.random.default_rng(3).standard_normal(shape).astype(np.float32) * 0.3
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    kind = "sentence_transformers.{}"
    modules = [
        ("", "base.modules.transformer.Transformer"),
        ("1_LogitScore", "cross_encoder.modules.logit_score.LogitScore"),
    ]
    files: dict[str, object] = {
        "modules.json": [
            {"idx": row, "name": str(row), "path": path, "type": kind.format(name)}
            for row, (path, name) in enumerate(modules)
        ],
        "1_LogitScore/config.json": {
            "true_token_id": tokenizer.token_to_id("y"),
            "false_token_id": tokenizer.token_to_id("n"),
            "module_input_name": "causal_logits",
        },
        "sentence_bert_config.json": {
            "transformer_task": "text-generation",
            "modality_config": {"text": FORWARD, "message": {**FORWARD, "format": "flat"}},
            "module_output_name": "causal_logits",
        },
        "config_sentence_transformers.json": {
            "activation_fn": f"torch.nn.modules.{activation}",
            "default_prompt_name": "query",
            "model_type": "CrossEncoder",
            "prompts": {"query": INSTRUCTION},
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": "<pad>",
            "eos_token": "<|im_end|>",
            "model_max_length": 2048,
            "padding_side": "left",
        },
    }
    (folder / "1_LogitScore").mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder
