"""Checked access to the fields of a config.json.

A config.json comes from anywhere: every field is read through one function that knows its type and its
largest sensible value, and a wrong one ends in a single line with the file and the field. The limits keep the
product of all sizes of one model (bytes of weights) inside 64 bits.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from serveopt.errors import ConfigError

DEFAULT_LIMIT = 2**20
MAX_LAYERS = 1000
LIMITS = MappingProxyType(
    {
        "num_hidden_layers": MAX_LAYERS,
        "hidden_size": 2**17,
        "num_attention_heads": 4096,
        "num_key_value_heads": 4096,
        "head_dim": 4096,
        "vocab_size": 2**24,
        "max_position_embeddings": 10**9,
        "num_local_experts": 4096,
        "num_experts_per_tok": 4096,
        "sliding_window": 10**9,
        "attention_chunk_size": 10**9,
    }
)
MAX_LIST = 4096


def read_json(file: Path) -> dict[str, Any]:
    """The object in ``file``; the literals Infinity and NaN count as null."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        value = json.loads(text, parse_constant=lambda _: None)
    except FileNotFoundError:
        raise ConfigError(f"{file} does not exist", field="model") from None
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}", field="model") from None
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{file} is not valid JSON (line {error.lineno}, column {error.colno})", field="model"
        ) from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{file} is not valid JSON text", field="model") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{file} holds no JSON object", field="model")
    return value


class FieldReader:
    """Fields of one config: the decoder's own first, then those at the top level."""

    def __init__(self, raw: Mapping[str, Any], file: str) -> None:
        self.file = file
        inner = raw.get("text_config")
        if inner is not None and not isinstance(inner, dict):
            raise self.wrong("text_config", inner, "an object")
        self._layers = (inner, raw) if inner else (raw,)

    def wrong(self, field: str, value: object, wanted: str) -> ConfigError:
        """The error for a field that is not ``wanted``."""
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return ConfigError(f"{self.file}: {field} is {shown}; it must be {wanted}", field="model")

    def get(self, *names: str) -> tuple[str, Any]:
        """The first of ``names`` that is present and not null, with its value; ("", None) if none is."""
        for layer in self._layers:
            for name in names:
                if layer.get(name) is not None:
                    return name, layer[name]
        return "", None

    def outer(self, name: str) -> Any:
        """The value of ``name`` at the top level, else the decoder's; None when absent."""
        return next((layer[name] for layer in reversed(self._layers) if layer.get(name) is not None), None)

    def integer(self, *names: str, low: int = 1, default: int | None = None) -> int:
        """A whole number in [low, limit]; ``default`` when absent, ConfigError when there is no default."""
        name, value = self.get(*names)
        if not name:
            if default is None:
                raise ConfigError(f"{self.file}: {names[0]} is missing", field="model")
            return default
        return self.whole(name, value, low, LIMITS.get(names[0], DEFAULT_LIMIT))

    def whole(self, name: str, value: object, low: int, high: int) -> int:
        """``value`` if it is a whole number in [low, high]."""
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, value, f"a whole number from {low} to {high}")
        return value

    def section(self, name: str) -> Mapping[str, Any]:
        """An object, empty when absent; the top level comes first."""
        value = self.outer(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, value, "an object")
        return value or {}

    def extra(self, name: str, kind: str) -> Any:
        """The value of a family-specific field as its ``kind`` says (see EXTRA_FIELDS); None when absent."""
        _, value = self.get(name)
        return None if value is None else self.typed(name, value, kind)

    def typed(self, name: str, value: object, kind: str) -> Any:
        """``value`` if it is of ``kind``: int, flag, text, ints, texts, or several of them joined by "|"."""
        high = LIMITS.get(name, DEFAULT_LIMIT)
        kinds = kind.split("|")
        if isinstance(value, bool):
            if "flag" in kinds:
                return value
        elif isinstance(value, int):
            if "int" in kinds:
                return self.whole(name, value, 0, high)
        elif isinstance(value, str):
            if "text" in kinds and len(value) <= MAX_LIST:
                return value
        elif isinstance(value, list) and len(value) <= MAX_LIST:
            if "ints" in kinds:
                return tuple(self.whole(name, item, 0, high) for item in value)
            if "texts" in kinds and all(isinstance(item, str) and len(item) < 64 for item in value):
                return tuple(value)
        raise self.wrong(name, value, " or ".join(_KINDS[one] for one in kinds))


_KINDS = MappingProxyType(
    {
        "int": "a whole number",
        "flag": "true or false",
        "text": "text",
        "ints": "a list of whole numbers",
        "texts": "a list of names",
    }
)

# What families read beyond plain attention, by its Hugging Face name. Source: search_model.md 1.2, 1.5, 1.7.
EXTRA_FIELDS = MappingProxyType(
    {
        # mixture of experts
        "first_k_dense_replace": "int",
        "n_shared_experts": "int",
        "num_shared_experts": "int",
        "shared_intermediate_size": "int",
        "shared_expert_intermediate_size": "int",
        "moe_shared_expert_intermediate_size": "int",
        "share_expert_dim": "int",
        "dense_intermediate_size": "int",
        "intermediate_size_mlp": "int",
        "interleave_moe_layer_step": "int",
        "moe_latent_size": "int",
        "routed_expert_hidden_size": "int",
        "moe_layer_freq": "int|ints",
        "moe_layers_enum": "text|ints",
        "mlp_layer_types": "texts",
        # attention with latents, indexers and compression
        "q_lora_rank": "int",
        "kv_lora_rank": "int",
        "o_lora_rank": "int",
        "o_groups": "int",
        "qk_head_dim": "int",
        "qk_nope_head_dim": "int",
        "qk_rope_head_dim": "int",
        "v_head_dim": "int",
        "index_head_dim": "int",
        "index_n_heads": "int",
        "index_topk": "int",
        "index_topk_freq": "int",
        "index_skip_topk_offset": "int",
        "indexer_types": "texts",
        "compress_ratios": "ints",
        "hc_mult": "int",
        "hc_sinkhorn_iters": "int",
        "attn_res_block_size": "int",
        # layers of several kinds
        "layer_types": "texts",
        "hybrid_layer_pattern": "ints",
        "attn_type_list": "ints",
        "sliding_window": "int",
        "sliding_window_size": "int",
        "attention_chunk_size": "int",
        "swa_num_attention_heads": "int",
        "swa_num_key_value_heads": "int",
        "swa_head_dim": "int",
        "swa_v_head_dim": "int",
        "num_global_key_value_heads": "int",
        "global_head_dim": "int",
        "attention_k_eq_v": "flag",
        "use_sliding_window": "flag",
        "use_head_wise_attn_gate": "flag",
        "attn_output_gate": "flag",
        # state-space and linear attention layers
        "mamba_num_heads": "int",
        "mamba_head_dim": "int",
        "ssm_state_size": "int",
        "conv_kernel": "int",
        "n_groups": "int",
        "chunk_size": "int",
        "mamba_ssm_dtype": "text",
        "mamba_ssm_cache_dtype": "text",
        "linear_num_key_heads": "int",
        "linear_key_head_dim": "int",
        "linear_num_value_heads": "int",
        "linear_value_head_dim": "int",
        "linear_conv_kernel_dim": "int",
        # the rest
        "num_nextn_predict_layers": "int",
        "mtp_num_hidden_layers": "int",
        "num_mtp_modules": "int",
        "tie_word_embeddings": "flag",
    }
)
SECTION_FIELDS = MappingProxyType(
    {
        "attention_other_setting": {
            "attention_type": "text",
            "num_attention_heads": "int",
            "num_attention_groups": "int",
            "head_dim": "int",
        },
        "linear_attn_config": {
            "kda_layers": "ints",
            "full_attn_layers": "ints",
            "head_dim": "int",
            "num_heads": "int",
            "short_conv_kernel_size": "int",
        },
        "sparse_attention_config": {
            "sparse_attention_freq": "ints",
            "sparse_block_size": "int",
            "sparse_index_dim": "int",
            "sparse_num_index_heads": "int",
            "sparse_topk_blocks": "int",
            "sparse_init_block": "int",
            "sparse_local_block": "int",
        },
        "vision_config": {
            "depth": "int",
            "hidden_size": "int",
            "intermediate_size": "int",
            "num_heads": "int",
            "num_attention_heads": "int",
            "num_hidden_layers": "int",
            "head_dim": "int",
            "patch_size": "int",
            "temporal_patch_size": "int",
            "spatial_merge_size": "int",
            "merge_kernel_size": "ints",
            "pooling_kernel_size": "int",
            "out_hidden_size": "int",
            "deepstack_visual_indexes": "ints",
            "projection_dim": "int",
            "mm_hidden_size": "int",
            "qkv_hidden_size": "int",
            "text_hidden_size": "int",
            "vt_hidden_size": "int",
            "vt_intermediate_size": "int",
            "vt_num_attention_heads": "int",
            "vt_num_hidden_layers": "int",
        },
    }
)
