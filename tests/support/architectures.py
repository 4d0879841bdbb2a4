"""Tiny random models of many architectures of transformers, by name."""

from typing import Any, cast

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel

__all__ = ["ARCHITECTURES", "CORE", "known_settings", "make_model"]

_SPECIAL: dict[str, Any] = {
    "vocab_size": 80,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 64,
}
_GPT: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64}
_MIXTURE: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}
_LATENT: dict[str, Any] = {
    **_MIXTURE,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "topk_group": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 32,
    "head_dim": 16,
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "apertus": {},
    "arcee": {},
    "biogpt": {},
    "bloom": {"n_layer": 2, "n_head": 2},
    "codegen": {
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 64,
        "rotary_dim": 8,
        "tie_word_embeddings": False,
    },
    "cohere": {},
    "cohere2": {},
    "ctrl": {**_GPT, "dff": 64},
    "deepseek_v2": {**_LATENT, "n_group": 1},
    "deepseek_v3": {**_LATENT, "n_group": 2},
    "ernie4_5": {},
    "exaone4": {"sliding_window": 16},
    "falcon": {"alibi": False},
    "falcon-new": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "gemma": {},
    "gemma2": {},
    "gemma3_text": {"sliding_window": 16},
    "glm": {},
    "glm4": {},
    "glm4_moe": {
        **_MIXTURE,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
    },
    "gpt2": {**_GPT},
    "gpt_bigcode": {**_GPT},
    "gpt_neo": {
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        "hidden_size": 64,
    },
    "gpt_neox": {},
    "gpt_oss": {
        **_MIXTURE,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gptj": {**_GPT, "rotary_dim": 16, "tie_word_embeddings": False},
    "granite": {},
    "granitemoe": {**_MIXTURE},
    "helium": {},
    "hunyuan_v1_dense": {},
    "jamba": {
        **_MIXTURE,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "use_mamba_kernels": False,
    },
    "lfm2": {},
    "llama": {},
    "llama-bias": {"attention_bias": True, "mlp_bias": True},
    "llama-tied": {"tie_word_embeddings": True},
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 4, "head_dim": 32, "expand": 2, "n_groups": 1},
    "minimax": {**_MIXTURE, "block_size": 8},
    "mistral": {},
    "mixtral": {**_MIXTURE},
    "mpt": {"d_model": 64, "n_layers": 2, "n_heads": 2, "max_seq_len": 64},
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "olmoe": {**_MIXTURE},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 64},
    "persimmon": {},
    "phi": {},
    "phi3": {},
    "phimoe": {**_MIXTURE},
    "qwen2": {},
    "qwen2-tied": {"tie_word_embeddings": True},
    "qwen2_moe": {**_MIXTURE, "shared_expert_intermediate_size": 32},
    "qwen3": {},
    "qwen3_moe": {**_MIXTURE},
    "qwen3_next": {
        **_MIXTURE,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_value_heads": 2,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "shared_expert_intermediate_size": 32,
    },
    "rwkv": {"attention_hidden_size": 64, "context_length": 64, "hidden_size": 64},
    "seed_oss": {},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {},
    "xglm": {"d_model": 64, "num_layers": 2, "attention_heads": 2, "ffn_dim": 64},
}
"""Name -> settings beyond the shape; what stands behind a hyphen only tells variants apart."""

CORE = ("gpt2", "gpt_neox", "llama", "llama-tied", "qwen3_moe")
"""Names kept, changed, shortened, tied, and fused on their way into the model."""


def make_model(name: str, seed: int = 0) -> PreTrainedModel:
    """Return a random model, float32; no parameter is all ones or zeros."""
    own, kind = ARCHITECTURES[name], name.partition("-")[0]
    shape = {} if {"d_model", "n_embd"} & own.keys() else dict(_SHAPE)
    if kind == "falcon":
        del shape["head_dim"]  # derived, and cannot be set
    config = AutoConfig.for_model(kind, **{**_SPECIAL, **shape, **own})
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for parameter in model.parameters():
            if parameter.max() == parameter.min():
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return cast("PreTrainedModel", model)


def known_settings(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return those settings of several architectures that one of them has."""
    known = {*CONFIG_MAPPING[kind]().to_dict(), *CONFIG_MAPPING[kind].attribute_map}
    return {name: value for name, value in settings.items() if name in known}
