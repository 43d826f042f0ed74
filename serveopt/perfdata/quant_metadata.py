"""What a checkpoint says about its quantisation, reduced to the few facts that decide kernels.

A checkpoint describes itself in ``quantization_config`` of config.json (fp8, mxfp4, compressed-tensors) and
in hf_quant_config.json (modelopt), at times with one entry per layer and projection. Kept are the algorithm,
the KV cache type, how activations are scaled, the weight block, the parts of the model that stay unquantised,
and for mixed precision the algorithms of each part. Source: search_model.md 1.3, step A.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from serveopt.perfdata.config_fields import FieldReader
from serveopt.perfdata.quant_parts import classify_excluded, target_part

ALGO_ALIASES = MappingProxyType(
    {
        "w4a16_mxfp4": "mxfp4",
        "mixed-precision": "mixed_precision",
        "mixedprecision": "mixed_precision",
        "compressed_tensors": "compressed-tensors",
    }
)


@dataclass(frozen=True, slots=True)
class WeightGroup:
    """How the first group of a compressed-tensors checkpoint stores its weights."""

    type: str  # int | float
    num_bits: int
    group_size: int = 0
    block: bool = False  # two-dimensional scale blocks
    activations: bool = False  # activations are quantised too
    nvfp4: bool = False  # 4-bit floats in groups of 16 with fp8 scales


@dataclass(frozen=True, slots=True)
class Quantisation:
    """The quantisation of one checkpoint; the default is an unquantised one.

    >>> Quantisation("fp8").leaves_out("attention")
    False
    """

    algo: str = ""  # lower case: fp8, fp8_block, nvfp4, mixed_precision, compressed-tensors, ...; "": none
    method: str = ""  # quant_method as the checkpoint names it
    kv: str = ""  # fp8 | int8 | bfloat16; "": the checkpoint does not say
    dynamic: bool | None = None  # activation scales are computed at run time
    block: tuple[int, ...] = ()  # weight_block_size
    group: WeightGroup | None = None
    excluded: tuple[str, ...] = ()  # parts left unquantised, sorted
    # mixed precision: algorithms by part of the model
    target_algos: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    expert_dtype: str = ""  # type of routed experts where the config names one

    def leaves_out(self, part: str) -> bool:
        """True if ``part`` stays unquantised; a projection does when the whole attention does."""
        if part == "attention":
            return "attention" in self.excluded or {"q", "kv", "o"} <= set(self.excluded)
        return part in self.excluded or (part in ("q", "kv", "o", "indexer") and "attention" in self.excluded)

    @property
    def moe_algos(self) -> tuple[str, ...]:
        """Algorithms of the routed experts in mixed precision."""
        return self.target_algos.get("routed_experts", ())

    @property
    def gemm_algos(self) -> tuple[str, ...]:
        """Algorithms of everything else in mixed precision, sorted."""
        others = (algos for part, algos in self.target_algos.items() if part != "routed_experts")
        return tuple(sorted({algo for algos in others for algo in algos}))

    def as_dict(self) -> dict[str, Any]:
        """The facts that differ from an unquantised checkpoint, ready for JSON."""
        plain = Quantisation()
        facts: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        kept = {name: value for name, value in facts.items() if value != getattr(plain, name)}
        if self.group:
            kept["group"] = {one.name: getattr(self.group, one.name) for one in fields(self.group)}
        return kept

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "Quantisation":
        """The inverse of as_dict."""
        algos = {part: tuple(names) for part, names in facts.get("target_algos", {}).items()}
        group = WeightGroup(**facts["group"]) if "group" in facts else None
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()
        }
        return cls(**{**values, "group": group, "target_algos": algos})


def reduce_quantisation(
    reader: FieldReader, hf_quant: FieldReader | None, layer_counts: Mapping[str, int]
) -> Quantisation:
    """The quantisation facts of a config and its optional hf_quant_config.json.

    ``layer_counts`` says how many layers have a part ("all", "attention", "linear_attention", "mamba"): a
    part that fewer than half of its layers exclude counts as quantised.
    """
    config = reader.section("quantization_config")
    modelopt = hf_quant.section("quantization") if hf_quant else {}
    sources = ((hf_quant or reader, modelopt), (reader, config))
    algo = _text(sources, "quant_algo") or _text(sources[1:], "quant_method", "quantization_method")
    algo = ALGO_ALIASES.get(algo, algo)
    if algo == "modelopt" and config.get("config_groups"):
        algo = "compressed-tensors"  # the same description of groups, without a summary
    if algo in ("awq", "gptq") and config.get("bits") == 8:
        algo = "w8a16"
    block = config.get("weight_block_size") or ()
    block = reader.typed("weight_block_size", block, "ints") if block else ()
    groups = _groups(reader, config)
    excluded = [name for where, section in sources for name in _module_names(where, section)]
    return Quantisation(
        algo="fp8_block" if algo == "fp8" and block else algo,
        method=_text(sources[1:], "quant_method", "quantization_method"),
        kv=_kv(sources),
        dynamic=_dynamic(config, groups),
        block=block,
        group=_first_group(reader, config, groups) if algo == "compressed-tensors" else None,
        excluded=classify_excluded(excluded, layer_counts),
        target_algos=_target_algos(sources) if algo == "mixed_precision" else {},
        expert_dtype=_text(((reader, {"expert_dtype": reader.get("expert_dtype")[1]}),), "expert_dtype"),
    )


def _text(sources: Iterable[tuple[FieldReader, Mapping[str, Any]]], *names: str) -> str:
    """The first non-null of ``names`` in the sections, as lower-case text."""
    for reader, section in sources:
        for name in names:
            value = section.get(name)
            if value is not None:
                if not isinstance(value, str):
                    raise reader.wrong(f"quantisation {name}", value, "text")
                return value.strip().lower()
    return ""


def _kv(sources: Iterable[tuple[FieldReader, Mapping[str, Any]]]) -> str:
    """KV cache type: fp8, int8, bfloat16 or "" when the checkpoint does not say."""
    sources = tuple(sources)
    name = _text(sources, "kv_cache_quant_algo", "kv_cache_quant_method", "kv_cache_dtype")
    if not name:
        schemes = (section.get("kv_cache_scheme") for _, section in sources)
        scheme = next((scheme for scheme in schemes if scheme), None)
        if isinstance(scheme, str):
            name = scheme.lower()
        elif isinstance(scheme, dict) and isinstance(scheme.get("num_bits"), int):
            floating = scheme.get("type", "float") == "float"
            name = ("fp8" if floating else "int8") if scheme["num_bits"] <= 8 else "bfloat16"
    if "int8" in name:
        return "int8"
    if any(word in name for word in ("fp8", "e4m3", "e5m2", "float8")):
        return "fp8"
    return "bfloat16" if any(word in name for word in ("16", "half")) else ""


def _groups(reader: FieldReader, config: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The entries of config_groups that are objects."""
    groups = config.get("config_groups") or {}
    if not isinstance(groups, dict):
        raise reader.wrong("quantization_config.config_groups", groups, "an object")
    return tuple(group for group in groups.values() if isinstance(group, dict))


def _dynamic(config: Mapping[str, Any], groups: Iterable[Mapping[str, Any]]) -> bool | None:
    """Whether activation scales are dynamic; None when nothing says so."""
    scheme = config.get("activation_scheme")
    if scheme in ("dynamic", "static"):
        return bool(scheme == "dynamic")
    tensors = [group.get(name) for group in groups for name in ("weights", "input_activations")]
    flags = [tensor["dynamic"] for tensor in tensors if isinstance(tensor, dict) and "dynamic" in tensor]
    flags = [flag for flag in flags if isinstance(flag, bool)]
    return any(flags) if flags else None


def _first_group(
    reader: FieldReader, config: Mapping[str, Any], groups: tuple[Mapping[str, Any], ...]
) -> WeightGroup | None:
    """How the first group stores weights."""
    weights = groups[0].get("weights") if groups else None
    if not isinstance(weights, dict) or not isinstance(weights.get("type"), str):
        return None
    bits = reader.whole("quantization_config weights.num_bits", weights.get("num_bits"), 1, 64)
    size = weights.get("group_size")
    size = size if isinstance(size, int) and size > 0 else 0
    packing = f"{config.get('format')} {groups[0].get('format')}"
    return WeightGroup(
        type=weights["type"].lower(),
        num_bits=bits,
        group_size=size,
        block=weights.get("strategy") == "block" or bool(weights.get("block_structure")),
        activations=isinstance(groups[0].get("input_activations"), dict),
        nvfp4=bits == 4 and weights["type"].lower() == "float" and ("nvfp4" in packing or size == 16),
    )


def _module_names(reader: FieldReader, section: Mapping[str, Any]) -> list[str]:
    """Names and patterns of modules that stay unquantised."""
    names: list[str] = []
    for key in ("exclude_modules", "ignore", "modules_to_not_convert"):
        value = section.get(key) or []
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise reader.wrong(f"quantisation {key}", value, "a list of names")
        names += value
    return names


def _target_algos(sources: Iterable[tuple[FieldReader, Mapping[str, Any]]]) -> Mapping[str, tuple[str, ...]]:
    """Algorithms of each part in a mixed-precision checkpoint, sorted."""
    found: dict[str, set[str]] = defaultdict(set)
    for reader, section in sources:
        layers = section.get("quantized_layers") or {}
        if not isinstance(layers, dict):
            raise reader.wrong("quantized_layers", layers, "an object")
        for name, entry in layers.items():
            algo = entry.get("quant_algo") if isinstance(entry, dict) else None
            if isinstance(algo, str):
                found[target_part(name)].add(algo.lower())
    return {part: tuple(sorted(algos)) for part, algos in sorted(found.items())}
