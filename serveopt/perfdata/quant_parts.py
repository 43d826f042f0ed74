"""Which part of a model a module name of a checkpoint belongs to.

Checkpoints name modules one by one, by wildcard or by regular expression, each with the prefixes of its own
code base; the parts they speak of are the same dozen. Source: search_model.md 1.3.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

# Parts that a checkpoint may leave out of quantisation, by what follows "layers.N." in a module name.
# ``attention_norms`` weighs nothing; the reference tool takes such an entry for the whole attention.
_EXCLUDED = (
    ("linear_attention", r"(^|\.)linear_attn($|\.)"),
    ("indexer", r"(^|\.)indexer$"),
    ("attention_norms", r"(^|\.)(self_attn|attn)\..*norm"),
    ("attention", r"(^|\.)(self_attn|attn)$"),
    ("q", r"(^|\.)(q_proj|q_a_proj|q_b_proj|qkv_proj)$"),
    ("kv", r"(^|\.)(k_proj|v_proj|kv_a_proj_with_mqa|kv_b_proj|qkv_proj)$"),
    ("o", r"(^|\.)o_proj$"),
    ("mamba", r"(^|\.)mixer\.(in_proj|out_proj)$"),
    ("shared_experts", r"(^|\.)shared_experts?($|\.)"),
    ("routed_experts", r"(^|\.)experts($|\.)"),
    ("dense_mlp", r"(^|\.)mlp($|\.\(?(gate_up|gate|up|down)(_proj|\|))"),
    ("lm_head", r"(^|\.)(lm_head|head)$"),
)
# Parts that a mixed-precision target belongs to; the first match wins.
_TARGETS = (
    ("shared_experts", r"shared"),
    ("routed_experts", r"\.experts(\.|$)|routing_expert"),
    ("linear_attention", r"linear_attn"),
    ("attention", r"(self_attn|attn)\."),
    ("mamba", r"mixer\.(in_proj|out_proj)"),
    ("dense_mlp", r"mlp\."),
    ("lm_head", r"lm_head|(^|\.)head$"),
)


def classify_excluded(names: Iterable[str], layer_counts: Mapping[str, int]) -> tuple[str, ...]:
    """The parts of the model that module names or patterns leave unquantised, sorted.

    >>> classify_excluded(["lm_head", "re:.*self_attn.*"], {"all": 2})
    ('attention', 'lm_head')
    """
    everywhere: set[str] = set()
    layers: dict[str, set[int]] = defaultdict(set)
    for name in names:
        plain = name.removeprefix("re:").replace("\\", "").strip("^$").strip("*.")
        numbered = re.search(r"layers\.(\d+)\b\.?", plain)
        if numbered is None and re.search(r"(^|\.)mtp\b", plain):
            continue
        tail = plain[numbered.end() :] if numbered else plain
        for part in (part for part, pattern in _EXCLUDED if tail and re.search(pattern, tail)):
            if numbered is None:
                everywhere.add(part)
            elif int(numbered[1]) < layer_counts["all"]:
                layers[part].add(int(numbered[1]))
    owners = {"q": "attention", "kv": "attention", "o": "attention", "attention_norms": "attention"}
    for part, found in layers.items():
        having = layer_counts.get(owners.get(part, part)) or layer_counts["all"]
        if 2 * len(found) >= having:
            everywhere.add(part)
    return tuple(sorted(everywhere))


def target_part(name: str) -> str:
    """The part of the model that a quantised module belongs to.

    >>> target_part("model.layers.3.mlp.experts.7.up_proj")
    'routed_experts'
    """
    return next((part for part, pattern in _TARGETS if re.search(pattern, name)), "other")
