"""Keys of config.json that all families share, and checks of their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedpack_export.sources.key_rules import Checked, Followed, Only, Rule, no_effect, shown
from embedpack_export.sources.rope_config import ROPE_TYPES, rope_problem

# Classes of `auto_map` that compute or read inputs; those of other heads are not used.
CODE_OF_MODELS = ("AutoConfig", "AutoModel", "AutoProcessor", "AutoImageProcessor", "AutoTokenizer")
ANOTHER_CHECKPOINT = "export a checkpoint without it"

RECORDS = """_name_or_path name_or_path architectures transformers_version finetuning_task unsloth_version unsloth_fixed
is_llama_config _commit_hash transformers.js_config
attn_implementation _attn_implementation _attn_implementation_autoset _attn_implementation_internal
_experts_implementation gradient_checkpointing is_unified_mask _flash_attn_2_enabled is_composition model_max_length
neftune_noise_alpha"""
TRAINING = """initializer_range initializer_factor attention_probs_dropout_prob hidden_dropout_prob attention_dropout
hidden_dropout dropout classifier_dropout classifier_dropout_prob embedding_dropout embd_pdrop resid_pdrop attn_pdrop
summary_first_dropout pretraining_tp keys_to_ignore_at_inference"""
OTHER_HEADS = """id2label label2id num_labels _num_labels problem_type task_specific_params directionality output_past
pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type summary_type
summary_use_proj summary_activation summary_proj_to_labels tf_legacy_loss sep_token_id tie_encoder_decoder"""
GENERATION = """use_cache bos_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id max_length
min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p typical_p
repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences
output_scores return_dict_in_generate remove_invalid_values exponential_decay_length_penalty suppress_tokens
begin_suppress_tokens prefix max_sequence_length cross_attention_hidden_size
eos_token_ids mask_token_id cls_token_id unk_token_id"""
OUTPUTS = "return_dict output_hidden_states output_attentions torchscript chunk_size_feed_forward"


def own_code(value: Any) -> str | None:
    """Reason to refuse an `auto_map`, which names classes in files of the checkpoint."""
    entries = value if isinstance(value, dict) else {"AutoModel": value}
    used = {name: entries[name] for name in CODE_OF_MODELS if entries.get(name)}
    if not used:
        return None
    return (
        f"{', '.join(f'{name} is {shown(code)}' for name, code in used.items())}, code of the checkpoint that is not "
        "run; if the model is of the architecture in model_type without it, remove the key"
    )


def code_of(*classes: str) -> Rule:
    """Rule of an `auto_map` in checkpoints whose code became these classes of transformers."""

    def problem(value: Any) -> str | None:
        entries = value if isinstance(value, dict) else {"AutoModel": value}
        others = {name: code for name, code in entries.items() if str(code).rpartition(".")[2] not in classes}
        return own_code(others)

    return Checked(f"{', '.join(classes)}, or code of heads that are not exported", problem)


def all_full_attention(value: Any) -> str | None:
    """Reason to refuse `layer_types`."""
    if value is None or (isinstance(value, list) and set(value) <= {"full_attention"}):
        return None
    return f"supported: full_attention in every layer; {ANOTHER_CHECKPOINT}"


COMMON: Mapping[str, Rule] = {
    "model_type": Followed("family"),
    "matryoshka_dims": Followed("allowed truncations"),
    "pad_token_id": Followed("padding token; the tokenizer's if it is no row of the embedding table"),
    "eos_token_id": Followed("padding token, if there is no other"),
    "tie_word_embeddings": Followed("lm_head.weight takes the place of a missing embedding table"),
    **{
        name: Followed("activation of scores, Sigmoid or Identity")
        for name in ("sentence_transformers", "sbert_ce_default_activation_function")
    },
    "tokenizer_class": Followed("class of the tokenizer, if tokenizer_config.json has none"),
    **no_effect("a record of how the model was made or is run", RECORDS.split()),
    **no_effect("used in training alone", TRAINING.split()),
    **no_effect("of heads that are not exported", OTHER_HEADS.split()),
    **no_effect("of text generation", GENERATION.split()),
    **no_effect("form of the output", OUTPUTS.split()),
    **no_effect(
        "dtype of the computation; weights are read as they are stored", ("torch_dtype", "dtype", "use_bfloat16")
    ),
    "auto_map": Checked("code of heads that are not exported", own_code),
    "quantization_config": Only((None,), "use the checkpoint that was not quantized"),
    "is_encoder_decoder": Only((False, None), ANOTHER_CHECKPOINT),
    "add_cross_attention": Only((False, None), ANOTHER_CHECKPOINT),
    "pruned_heads": Only(({}, None), ANOTHER_CHECKPOINT),
}
ENCODERS: Mapping[str, Rule] = {
    **COMMON,
    "is_decoder": Only((False, None), "export an encoder"),
    "is_causal": Only((False, None), "export an encoder"),
    "position_embedding_type": Only(("absolute", None), ANOTHER_CHECKPOINT),
    "hidden_act": Only(("gelu", "gelu_new", "gelu_pytorch_tanh", "relu"), ANOTHER_CHECKPOINT),
}
ROTARY: Mapping[str, Rule] = {
    "rope_theta": Followed("base of the rotary positions"),
    "rope_scaling": Checked(f"null, or an object with a rope_type: {', '.join(ROPE_TYPES)}", rope_problem),
    "rope_parameters": Checked("as rope_scaling, with rope_theta", rope_problem),
    "original_max_position_embeddings": Followed("length of the texts before the scaling of rotary positions"),
    "partial_rotary_factor": Only((1, None), ANOTHER_CHECKPOINT),
}
DECODERS: Mapping[str, Rule] = {
    **COMMON,
    "is_decoder": Only((False, None), "export a decoder without cross-attention"),
    "is_causal": Only((True, None), "attention to later tokens is not supported; export a causal model"),
    "use_bidirectional_attention": Only((False, None), "export a causal model"),
    "hidden_act": Only(("silu",), ANOTHER_CHECKPOINT),
    "layer_types": Checked("full_attention in every layer", all_full_attention),
    "use_sliding_window": Only((False, None), ANOTHER_CHECKPOINT),
    **no_effect("of sliding windows, which use_sliding_window switches off", ("sliding_window", "max_window_layers")),
    **ROTARY,
    "rope_interleaved": Only((False, None), ANOTHER_CHECKPOINT),
    "use_mrope": Only((False, None), ANOTHER_CHECKPOINT),
}
SIZES = """vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings"""


def sizes(names: str) -> dict[str, Rule]:
    """Rules of the sizes that a graph is built with."""
    return {name: Followed("shape of the graph") for name in f"{SIZES} {names}".split()}
