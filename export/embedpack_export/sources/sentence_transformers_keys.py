"""Keys of the files of sentence-transformers."""

from __future__ import annotations

from typing import Any

from embedpack_export.sources.key_rules import Checked, Followed, KeyTable, NoEffect, Only, Rule, no_effect, shown

MODULES = KeyTable(
    "modules.json (each module)",
    {
        "type": Followed(
            "kind of the module: Transformer, Pooling, Dense, LayerNorm, Normalize, MultiVectorMask, LogitScore or "
            "Dropout"
        ),
        "path": Followed("folder of the module, e.g. 0_Transformer"),
        **no_effect("order and name of a module", ("idx", "name")),
        "kwargs": NoEffect("names of arguments of encode"),
    },
)
POOLING = KeyTable(
    "1_Pooling/config.json",
    {
        "pooling_mode": Followed("pooling, a name or a list of one name"),
        "pooling_mode_*": Followed("pooling, in older files"),
        "include_prompt": Followed("false is supported if there are no prompts"),
        **no_effect("repeats the hidden size", ("word_embedding_dimension", "embedding_dimension")),
    },
)
SENTENCE_EMBEDDING: dict[str, Rule] = {
    name: Only(("sentence_embedding", None), "export a model whose module changes its sentence embeddings")
    for name in ("module_input_name", "module_output_name")
}
DENSE = KeyTable(
    "2_Dense/config.json",
    {
        **{name: Followed("shape of linear.weight") for name in ("in_features", "out_features")},
        "bias": Followed("linear.bias is added"),
        "activation_function": Followed("Identity, ReLU, Tanh, GELU, SiLU or Sigmoid of torch.nn"),
        "use_residual": Only((False, None), "a residual connection is not supported; export a model without it"),
        **SENTENCE_EMBEDDING,
    },
)
LAYER_NORM = KeyTable("2_LayerNorm/config.json", {"dimension": Followed("shape of norm.weight")})
NORMALIZE = KeyTable("2_Normalize/config.json", SENTENCE_EMBEDDING)
CROSS_ENCODER = "CrossEncoder"
SETTINGS = KeyTable(
    "config_sentence_transformers.json",
    {
        "prompts": Followed("prompts by name"),
        "default_prompt_name": Followed("prompt of inputs without a prompt name"),
        "similarity_fn_name": Followed(
            "cosine or dot; with a Normalize module also euclidean, as all three rank the same"
        ),
        "truncate_dim": Followed("an allowed truncation; vectors have all dimensions unless a call truncates them"),
        "matryoshka_dims": Followed("allowed truncations; a key of embedpack"),
        "model_type": Only(
            ("SentenceTransformer", CROSS_ENCODER, None), "export a model with a single vector or a score"
        ),
        "activation_fn": Followed("activation of scores, Sigmoid or Identity"),
        "__version__": NoEffect("a record of how the model was made"),
    },
)


def modality_problem(value: Any) -> str | None:
    """Reason to refuse a `modality_config`; None if it takes text only."""
    if isinstance(value, dict) and "message" in value:
        return (
            "texts of this model go through its chat template, with text after them that a pack cannot hold; "
            "export a model whose modality_config is text alone"
        )
    forward = {"method": "forward", "method_output_name": "last_hidden_state"}
    if value is None or value in ({"text": forward}, {"text": {**forward, "method_output_name": "logits"}}):
        return None
    return f"supported: {{'text': {forward}}}; export a model that reads texts alone"


def no_arguments(known: tuple[str, ...]) -> Checked:
    """Rule of arguments of a class: those in `known` have no effect on vectors or are read, others are refused."""

    def problem(value: Any) -> str | None:
        others = [name for name in value if name not in known] if isinstance(value, dict) else [shown(value)]
        if value is None or not others:
            return None
        return f"supported: {', '.join(known)}; remove {', '.join(others)} if vectors cannot depend on it"

    return Checked(", ".join(known), problem)


CLASSIFICATION = "sequence-classification"
OF_LOADING = ("torch_dtype", "dtype", "attn_implementation", "device_map", "trust_remote_code", "use_cache")
OF_TOKENIZER = ("model_max_length", "padding_side", "trust_remote_code", "use_fast", "clean_up_tokenization_spaces")
LIMITS = KeyTable(
    "sentence_bert_config.json",
    {
        "max_seq_length": Followed("maximum length, special tokens included"),
        "do_lower_case": Followed("texts in lower case: part of the pack's tokenizer.json"),
        "modality_config": Checked("texts alone, without a chat template", modality_problem),
        "transformer_task": Only(
            ("feature-extraction", CLASSIFICATION, None), "export a model for sentence embeddings or scores"
        ),
        "module_output_name": Only(
            ("token_embeddings", "scores", None), "export a model for sentence embeddings or scores"
        ),
        "processing_kwargs": Only(({}, None), "save the model without them"),
        **{
            name: Only((None,), "one limit is possible for all texts; pass --max-length and remove the key")
            for name in ("query_length", "document_length")
        },
        "query_expansion": Only((None,), "export a model with a single vector per text"),
        "tokenizer_name_or_path": Only((None,), "put the tokenizer into the folder of the model"),
        "unpad_inputs": NoEffect("form of the computation"),
        **{name: no_arguments(OF_LOADING) for name in ("model_args", "model_kwargs", "config_args", "config_kwargs")},
        **{name: no_arguments(OF_TOKENIZER) for name in ("tokenizer_args", "processor_kwargs")},
    },
)
