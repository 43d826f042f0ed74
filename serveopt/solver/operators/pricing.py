"""Latency of any operator on one (system, backend, version): the one engine that resolves descriptions to tables.

A token operator's type selects a row of ``TOKEN_PRICES``, the data mode selects what is made of it (data_modes.py).
Curves are kept by shape, since the layouts of a search share most of them; the share of the step's tokens that an
operator sees only stretches its curve.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from serveopt.errors import ConfigError, MissingTable
from serveopt.perfdata.store import Database, Table, open_database
from serveopt.perfdata.systems import SystemSpec
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators import gemm, launch
from serveopt.solver.operators.collectives import ALL_REDUCE, HAND_OVER, NCCL
from serveopt.solver.operators.curve import TokenCurve, added, larger, line
from serveopt.solver.operators.data_modes import MODES, TokenPrice, resolve
from serveopt.solver.operators.dense import EMBEDDING, GEMM, MEMORY_MOVE
from serveopt.solver.operators.exchange import EXCHANGE
from serveopt.solver.operators.hyper_connections import MHC
from serveopt.solver.operators.moe import EXPERT_COMPUTE, MEGA_MOE, MOE

if TYPE_CHECKING:
    from serveopt.solver.operators.sequence import SequencePrice

T = TypeVar("T")
BACKENDS = ("trtllm", "sglang", "vllm")

TOKEN_PRICES: Mapping[type, TokenPrice] = MappingProxyType(
    {
        ops.Gemm: GEMM,
        ops.MemoryMove: MEMORY_MOVE,
        ops.Embedding: EMBEDDING,
        ops.AllReduce: ALL_REDUCE,
        ops.Nccl: NCCL,
        ops.PointToPoint: HAND_OVER,
        ops.Moe: MOE,
        ops.MegaMoe: MEGA_MOE,
        ops.ExpertCompute: EXPERT_COMPUTE,
        ops.AllToAll: EXCHANGE,
        ops.Mhc: MHC,
    }
)


class Pricing:
    """Prices operators from the tables of one database."""

    def __init__(
        self, database: Database, system: SystemSpec, cost_model: str = "measured",
        attention_backend: str | None = None, mode: str = "silicon",
    ) -> None:  # fmt: skip
        if mode not in MODES:
            raise ConfigError(f"unknown data mode {mode!r}", field="database_mode", hint=f"one of {', '.join(MODES)}")
        self.database = database
        self.system = system
        self.cost_model = cost_model
        self.attention_backend = attention_backend
        self.mode = mode
        self._curves: dict[Any, TokenCurve] = {}
        self._built: dict[Any, Any] = {}
        self._sequences: dict[Any, SequencePrice] = {}
        self.slice_indices: dict[Any, Any] = {}  # of sequence tables, see sequence_pricing.py
        self.decode_memo: dict[Any, Any] = {}  # decode attention at batches 1 .. n, see Worker

    @property
    def place(self) -> str:
        """System, backend and version, for messages."""
        return f"{self.database.system}/{self.database.backend}/{self.database.version}"

    def token_curve(self, operator: ops.TokenOperator) -> TokenCurve:
        """Latency over tokens of the step of all ``count`` runs of a token operator."""
        if operator.count == 0:
            return line(0.0, 0.0, "silicon")
        key = shape_key(operator)
        if key not in self._curves:
            self._curves[key] = self._price(operator)
        return self._curves[key].shared(getattr(operator, "share", 1.0)).scaled(operator.count)

    def _price(self, operator: ops.TokenOperator) -> TokenCurve:
        if isinstance(operator, ops.Overlap):
            chains = ([self.token_curve(part) for part in chain] for chain in (operator.first, operator.second))
            first, second = (added(chain) for chain in chains)
            return larger(first, second)
        return resolve(self, TOKEN_PRICES[type(operator)], operator)

    def sequence(self, operator: ops.SequenceOperator) -> "SequencePrice":
        """Latency over prompts or over batches of one run of a sequence operator."""
        from serveopt.solver.operators.sequence_pricing import price_sequence

        key = shape_key(operator)
        if key not in self._sequences:
            self._sequences[key] = price_sequence(self, operator)
        return self._sequences[key]

    def is_measured(self, operator: ops.SequenceOperator) -> bool:
        """True if tables alone price a sequence operator, whatever this pricing's data mode."""
        tables = self
        if self.mode != "silicon":
            place = (self.database, self.system, self.cost_model, self.attention_backend)
            tables = self.built("silicon", lambda _: Pricing(*place))
        try:
            tables.sequence(operator)
        except MissingTable:
            return False
        return True

    def require(self, name: str) -> Table:
        """The table of that name; MissingTable where nothing was collected."""
        table = self.database.table(name)
        if table is None:
            raise MissingTable(name, message=f"no measured data of {name} for {self.place}")
        return table

    def indexed(self, name: str, read: Callable[[Table], T]) -> T:
        """What ``read`` makes of a table, made once."""
        key = (name, read)
        if key not in self._built:
            self._built[key] = read(self.require(name))
        return self._built[key]

    def built(self, name: str, build: Callable[["Pricing"], T]) -> T:
        """What ``build`` makes of this pricing's tables, made once."""
        if name not in self._built:
            self._built[name] = build(self)
        return self._built[name]

    def database_of(self, system: str, backend: str) -> Database:
        """The current database of another system or backend, in the same directories."""
        return open_database(system, backend, "current", self.database.paths)

    def gemm_table(self, quant: str) -> gemm.GemmTable:
        """All measured GEMMs of one quantisation, launch-bound ones repaired unless the reference is asked for."""
        key = ("gemm", quant)
        if key not in self._built:
            table = gemm.read_gemm(self.require("gemm"), self.system, quant)
            if self.cost_model == "measured" and launch.is_suspect(table):
                table = launch.without_launches(table, self._gemms_of_others(quant))
            self._built[key] = table
        return self._built[key]

    def _gemms_of_others(self, quant: str) -> list[gemm.GemmTable]:
        """The same GEMMs measured under the other backends of this system."""
        found = []
        for backend in BACKENDS:
            if backend == self.database.backend:
                continue
            try:
                table = self.database_of(self.database.system, backend).table("gemm")
            except ConfigError:
                continue  # this system has no data of that backend
            if table is not None and quant in table.categories["gemm_dtype"]:
                found.append(gemm.read_gemm(table, self.system, quant))
        return found


UNPRICED = ("label", "count", "share")


def shape_key(operator: ops.Operator) -> tuple[Any, ...]:
    """What the price depends on: everything but the label, the count and the share of tokens."""
    values = [getattr(operator, name) for name in operator.__slots__ if name not in UNPRICED]
    return (type(operator), *values)
