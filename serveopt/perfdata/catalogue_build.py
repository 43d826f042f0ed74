"""Builds the model catalogue: raw config files -> models.json, one model per line.

Every model goes through the reduction that also serves a user's local directory.
"""

import json
from pathlib import Path

from serveopt.errors import ConfigError
from serveopt.perfdata.config_fields import read_json
from serveopt.perfdata.model_config import ModelConfig, reduce_config

CONFIG_SUFFIX = "_config.json"
QUANT_SUFFIX = "_hf_quant_config.json"


def build_catalogue(source_dir: Path) -> dict[str, ModelConfig]:
    """The models of ``source_dir`` by name, sorted: org--name_config.json, org--name_hf_quant_config.json."""
    models = {}
    for file in source_dir.glob(f"*{CONFIG_SUFFIX}"):
        if file.name.endswith(QUANT_SUFFIX):
            continue
        stem = file.name.removesuffix(CONFIG_SUFFIX)
        quant = source_dir / f"{stem}{QUANT_SUFFIX}"
        name = stem.replace("--", "/")
        hf_quant = read_json(quant) if quant.exists() else None
        models[name] = reduce_config(name, read_json(file), hf_quant, file.name)
    if not models:
        raise ConfigError(f"{source_dir} holds no *{CONFIG_SUFFIX}", field="source")
    return {name: models[name] for name in sorted(models, key=str.lower)}


def write_catalogue(source_dir: Path, out: Path) -> int:
    """Number of models written to ``out``; the same input gives the same bytes."""
    models = build_catalogue(source_dir)
    facts = {name: json.dumps(model.as_dict(), separators=(",", ":")) for name, model in models.items()}
    lines = (f"{json.dumps(name)}: {line}" for name, line in facts.items())
    out.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return len(models)
