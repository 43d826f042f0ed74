"""Models by name: the built-in catalogue, a local directory, or a download.

The catalogue holds facts of public config files, reduced by catalogue_build.py. Any other model is read from
its own config.json with the same reduction.
"""

import difflib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from serveopt.errors import ConfigError
from serveopt.perfdata.config_fields import read_json
from serveopt.perfdata.model_config import ModelConfig, reduce_config
from serveopt.perfdata.quant_metadata import Quantisation

__all__ = ["ModelConfig", "Quantisation", "closest_models", "load_model", "model_names"]

CATALOGUE = Path(__file__).parent / "models.json"


def load_model(name_or_path: str, hub: bool = True) -> ModelConfig:
    """The model of a catalogue name, of a local directory, or (if ``hub``) of a Hugging Face name.

    >>> load_model("Qwen/Qwen3-32B-FP8").num_layers
    64
    """
    name = name_or_path.strip()
    facts = _catalogue().get(name)
    if facts is not None:
        return ModelConfig.from_dict(name, facts)
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        return load_directory(Path(path))
    if name.startswith((".", "/", "~")):
        raise ConfigError(f"{name:.200} is not a directory with a config.json", field="model")
    hint = "give a name of the catalogue, or a directory with config.json"
    if hub and _looks_like_hub_name(name):
        from serveopt.perfdata.hub import download_config

        directory, hint = download_config(name)
        if directory is not None:
            return load_directory(directory, name)
    matches = closest_models(name)
    did_you_mean = f"; did you mean {', '.join(matches)}?" if matches else ""
    raise ConfigError(f"unknown model {name!r:.120}{did_you_mean}", field="model", hint=hint)


def load_directory(directory: Path, name: str = "") -> ModelConfig:
    """The model of a directory with config.json and perhaps hf_quant_config.json."""
    config, quant = directory / "config.json", directory / "hf_quant_config.json"
    raw = read_json(config)
    hf_quant = read_json(quant) if os.path.exists(quant) else None
    return reduce_config(name or directory.resolve().name, raw, hf_quant, str(config))


def model_names() -> tuple[str, ...]:
    """Names in the catalogue, in its order.

    >>> len(model_names())
    89
    """
    return tuple(_catalogue())


def closest_models(name: str, limit: int = 3) -> tuple[str, ...]:
    """Catalogue names like ``name``, best first: letter case and the part before the slash count little.

    >>> closest_models("qwen3-32b")[0]
    'Qwen/Qwen3-32B'
    """
    wanted = name.lower()[:200]  # the comparison is quadratic
    tail = wanted.rpartition("/")[2]

    def likeness(known: str) -> float:
        full, part = known.lower(), known.lower().rpartition("/")[2]
        matcher = difflib.SequenceMatcher
        return max(matcher(None, wanted, full).ratio(), matcher(None, tail, part).ratio() - 0.01)

    scored = sorted((-likeness(known), known) for known in model_names())
    return tuple(known for score, known in scored[:limit] if -score >= 0.55)


def _looks_like_hub_name(name: str) -> bool:
    owner, slash, model = name.partition("/")
    return bool(owner and slash and model) and "/" not in model and not set(name) & set(" \\:?*")


@lru_cache(maxsize=1)
def _catalogue() -> dict[str, dict[str, Any]]:
    """Facts by model name."""
    facts: dict[str, dict[str, Any]] = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    return facts
