"""One model on one system under one backend: quantisation resolved, tables open, rules at hand."""

from dataclasses import dataclass

from serveopt.errors import ConfigError
from serveopt.perfdata.catalogue import load_model
from serveopt.perfdata.checkpoint import QuantModes, infer_quant
from serveopt.perfdata.model_config import ModelConfig
from serveopt.perfdata.store import Database, Table, open_database
from serveopt.perfdata.systems import SystemSpec, load_system
from serveopt.solver.backends import BACKENDS, Backend
from serveopt.solver.families.table import Family, find_family
from serveopt.solver.operators.pricing import Pricing
from serveopt.solver.quantisation import adapt_for_search, adapt_quant

QUANT_FIELDS = {"gemm": "gemm_quant", "moe": "moe_quant", "fmha": "fmha_quant", "kv": "kv_quant", "comm": "comm_quant"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineQuery:
    """What must be known to open an engine; quantisation None: as the checkpoint says."""

    model: str
    system: str
    backend: str
    backend_version: str = "current"
    cost_model: str = "measured"
    quant: tuple[tuple[str, str], ...] = ()  # (component, mode) set by the user
    attention_backend: str | None = None
    systems_paths: tuple[str, ...] = ("default",)
    searching: bool = True


@dataclass(frozen=True, slots=True)
class Engine:
    """A model ready to be priced on one (system, backend, version)."""

    model: ModelConfig
    family: Family
    quant: QuantModes
    system: SystemSpec
    backend: Backend
    database: Database
    pricing: Pricing
    cost_model: str

    @property
    def version(self) -> str:
        """The framework version whose tables are read."""
        return self.database.version


def open_engine(query: EngineQuery) -> Engine:
    """The engine of a query; ConfigError for names that do not exist, DataError where nothing was measured."""
    model = load_model(query.model)
    family = find_family(model)
    system = load_system(query.system, query.systems_paths)
    database = open_database(query.system, query.backend, query.backend_version, query.systems_paths)
    quant = resolve_quant(model, system, database, query)
    pricing = Pricing(database, system, query.cost_model, query.attention_backend)
    return Engine(
        model, family, quant, system, BACKENDS[query.backend], database, pricing, query.cost_model
    )


def resolve_quant(model: ModelConfig, system: SystemSpec, database: Database, query: EngineQuery) -> QuantModes:
    """The checkpoint's modes with the user's overrides, adapted to what the backend runs."""
    chosen = dict(query.quant)
    modes = infer_quant(model, chosen)
    adapted = adapt_quant(
        modes,
        model,
        backend=query.backend,
        sm_version=system.sm_version,
        context_fmha_slices=measured_arithmetic(database.table("context_attention")),
        user_set=frozenset(chosen),
        runs_prefill=True,
    )
    if query.searching:
        adapted = adapt_for_search(
            adapted, model, backend=query.backend, sm_version=system.sm_version, user_set=frozenset(chosen)
        )
    return adapted


def measured_arithmetic(table: Table | None) -> frozenset[tuple[str, str]]:
    """(fmha, kv) pairs for which prefill attention was measured."""
    if table is None:
        return frozenset()
    fmha, kv = table.categories["attn_dtype"], table.categories["kv_cache_dtype"]
    codes = table.columns["attn_dtype"].astype(int) * len(kv) + table.columns["kv_cache_dtype"]
    return frozenset((fmha[code // len(kv)], kv[code % len(kv)]) for code in set(codes.tolist()))


def check_context(model: ModelConfig, isl: int, osl: int) -> str:
    """A warning when prompt and answer exceed the model's context; ConfigError when the prompt alone does."""
    limit = model.max_position_embeddings
    if limit and isl > limit:
        raise ConfigError(f"{isl} is not allowed; {model.name} takes at most {limit} tokens", field="isl")
    if limit and isl + osl > limit:
        return f"isl + osl = {isl + osl} exceeds the model's context of {limit} tokens"
    return ""
