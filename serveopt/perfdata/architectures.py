"""Which model family prices which architecture name of a config.json.

A family is a list of operators (solver/families) that several architectures share.
Source: search_model.md 1.2.
"""

from types import MappingProxyType

_FAMILIES = {
    "LLAMA": ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "MiMoForCausalLM"),
    "QWEN3VL": ("Qwen3VLForConditionalGeneration",),
    "QWEN3VL_MOE": ("Qwen3VLMoeForConditionalGeneration",),
    "MOE": (
        "MixtralForCausalLM",
        "GptOssForCausalLM",
        "Qwen2MoeForCausalLM",
        "Qwen3MoeForCausalLM",
        "MiniMaxM2ForCausalLM",
    ),
    "DEEPSEEK": ("DeepSeekForCausalLM", "DeepseekV3ForCausalLM"),
    "KIMIK25": ("KimiK25ForConditionalGeneration",),
    "DEEPSEEKV32": ("DeepseekV32ForCausalLM", "GlmMoeDsaForCausalLM"),
    "DEEPSEEKV4": ("DeepseekV4ForCausalLM",),
    "KIMIK3": ("KimiK3ForConditionalGeneration",),
    "NEMOTRONNAS": ("NemotronForCausalLM", "DeciLMForCausalLM"),
    "NEMOTRONH": ("NemotronHForCausalLM",),
    "MINIMAXM3": ("MiniMaxM3ForCausalLM", "MiniMaxM3SparseForConditionalGeneration"),
    "STEP3P7": (
        "Step3p7ForConditionalGeneration",
        "Step3p5ForCausalLM",
        "Step3p7FlashForCausalLM",
        "Step3p5FlashForCausalLM",
    ),
    "HYBRIDMOE": ("MiMoV2FlashForCausalLM", "Llama4ForConditionalGeneration"),
    "QWEN35": ("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration"),
    "GEMMA4MIX": ("Gemma4ForConditionalGeneration",),
}
ARCHITECTURES = MappingProxyType({name: family for family, names in _FAMILIES.items() for name in names})

# QWEN35 and NEMOTRONH are decided by the model: see is_moe
_MOE_FAMILIES = frozenset(
    (
        "MOE", "DEEPSEEK", "DEEPSEEKV32", "DEEPSEEKV4", "KIMIK25", "KIMIK3", "HYBRIDMOE", "QWEN3VL_MOE",
        "GEMMA4MIX", "MINIMAXM3", "STEP3P7",
    )
)  # fmt: skip
QK_NORM_ARCHITECTURES = frozenset(
    (
        "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "MiniMaxM2ForCausalLM", *_FAMILIES["STEP3P7"],
        *_FAMILIES["QWEN3VL"], *_FAMILIES["QWEN3VL_MOE"], *_FAMILIES["QWEN35"],
    )
)  # fmt: skip


def is_moe(family: str, num_experts: int, layer_pattern: str = "") -> bool:
    """True if workers of this family split experts.

    >>> is_moe("QWEN35", 0), is_moe("NEMOTRONH", 128, "ME*E")
    (False, True)
    """
    if family == "QWEN35":
        return num_experts > 0
    if family == "NEMOTRONH":
        return "E" in layer_pattern
    return family in _MOE_FAMILIES
