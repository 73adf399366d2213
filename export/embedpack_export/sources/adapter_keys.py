"""Rules of the keys of the adapter_config.json of a LoRA (peft/tuners/lora/config.py)."""

from __future__ import annotations

from embedpack_export.sources.key_rules import Checked, Followed, KeyTable, no_effect

# Other ways of initialising subtract the first A and B from the backbone, which is not in the adapter's file.
SELF_CONTAINED_INIT = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
MERGE_FIRST = "merge it with peft (merge_and_unload, save_pretrained) and export the merged model"


def init_problem(value: object) -> str | None:
    """Reason to refuse a way of initialising; None: the adapter is complete without the initial backbone."""
    if (value.lower() if isinstance(value, str) else value) in SELF_CONTAINED_INIT:
        return None
    return (
        "it also changed the backbone; save the adapter again with path_initial_model_for_weight_conversion, which "
        "makes it a plain LoRA"
    )


def unset(remedy: str) -> Checked:
    """Rule of a key that must be null, false or empty."""
    return Checked("null, false or empty", lambda value: remedy if value else None)


ADAPTER_CONFIG = KeyTable(
    "adapter_config.json (LoRA)",
    {
        "peft_type": Followed("only LORA is read"),
        "r": Followed("rank, by which alpha is divided"),
        "lora_alpha": Followed("factor of the update"),
        "rank_pattern": Followed("ranks of modules by regular expressions, as PEFT matches them"),
        "alpha_pattern": Followed("factors of modules by regular expressions, as PEFT matches them"),
        "use_rslora": Followed("alpha is divided by the square root of the rank"),
        "use_dora": Followed("each output channel has the length in its magnitude vector"),
        "lora_bias": Followed("B has a bias"),
        **dict.fromkeys(
            ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"),
            Followed("a module of the file that PEFT would not choose is refused"),
        ),
        "trainable_token_indices": Followed("tokens whose rows of an embedding table are replaced"),
        "base_model_name_or_path": Followed("the checkpoint of a folder that holds an adapter alone"),
        "auto_mapping": Followed("an adapter of a class of other code is refused"),
        "init_lora_weights": Checked("true, false, null, gaussian, orthogonal, eva, mica", init_problem),
        **no_effect("the tensors are in the file", ["bias"]),
        **no_effect(
            "how A and B began; see init_lora_weights", ["loftq_config", "eva_config", "corda_config", "lora_ga_config"]
        ),
        **no_effect(
            "of training alone",
            ["lora_dropout", "inference_mode", "velora_config", "monteclora_config", "runtime_config", "task_type"],
        ),
        **no_effect("PEFT reads it for transposed (Conv1D) layers, which no family has", ["fan_in_fan_out"]),
        "ensure_weight_tying": Followed("a table that is not in target_modules is changed like its tied head"),
        **no_effect("only with a setting that is refused", ["megatron_core", "qalora_group_size"]),
        **no_effect("a record", ["peft_version", "revision"]),
        # unsloth; ms-swift; the first versions of PEFT.
        **no_effect(
            "a note of a training tool",
            ["unsloth_fixed", "lora_dtype", "lorap_lr_ratio", "lorap_emb_lr", "merge_weights"],
        ),
        "alora_invocation_tokens": unset(
            "it acts on the tokens behind these alone, which no merged weights do; train a LoRA without them"
        ),
        "arrow_config": unset("each token would choose among several adapters; export one of these"),
        "layer_replication": unset(f"the model has other layers than the checkpoint; {MERGE_FIRST}"),
        "megatron_config": unset(f"its layers are split by Megatron; {MERGE_FIRST}"),
        "use_qalora": unset("it reads averages of inputs of a quantized model; train a LoRA of the model in full"),
        **dict.fromkeys(
            ("enable_lora", "kasa_config", "target_parameters", "use_bdlora"),
            unset(f"its updates are no products of A and B; {MERGE_FIRST}"),
        ),
    },
)
