"""The ranking of both serving modes in one list, best first; a row is chosen with the arrows and opened with Enter."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from serveopt.cli.headings import short_layout

if TYPE_CHECKING:
    from serveopt.solver.ranking import Ranking

Row = dict[str, Any]
WIDE = 112  # columns of a terminal that shows every column of the list


class Ranked(NamedTuple):
    """A row of a ranking and the serving mode it belongs to."""

    mode: str
    row: Row

    @property
    def key(self) -> tuple[str, ...]:
        """What makes it the same row in another ranking."""
        names = ("backend", "parallel") if self.mode == "agg" else ("backend", "prefill_parallel", "decode_parallel")
        return (self.mode, *(self.row[name] for name in names))


class Column(NamedTuple):
    """A column of the list; ``wide`` ones need room."""

    heading: str
    cell: Callable[[Ranked], str]
    wide: bool = False
    left: bool = False


COLUMNS = (
    Column("mode", lambda r: r.mode, left=True),
    Column("rank", lambda r: str(r.row["rank"])),
    Column("tokens/s\n/gpu", lambda r: f"{r.row['tokens_s_gpu_cluster']:,.1f}"),
    Column("tokens/s\n/user", lambda r: f"{r.row['tokens_s_user']:.1f}", wide=True),
    Column("TTFT\nms", lambda r: f"{r.row['ttft_ms']:.0f}"),
    Column("TPOT\nms", lambda r: f"{r.row['tpot_ms']:.2f}"),
    Column("request\nms", lambda r: f"{r.row['e2e_ms']:.0f}", wide=True),
    Column("in\nflight", lambda r: f"{r.row['concurrency'] * r.row['replicas']:.0f}", wide=True),
    Column("GPUs\nused", lambda r: f"{r.row['n_gpus_used']}={r.row['replicas']}x{r.row['n_gpus']}", wide=True),
    Column("GiB\n/GPU", lambda r: f"{r.row['memory_gib']:.1f}", wide=True),
    Column("measured", lambda r: f"{r.row['measured_share']:.0%}", wide=True),
)
BACKEND = Column("backend", lambda r: r.row["backend"], left=True)
WORKERS = Column("workers", lambda r: describe(r), left=True)
SHORT_WORKERS = Column("workers", lambda r: describe(r, short_layout), left=True)


class RankingList(DataTable[Text]):
    """The rows of a ranking, best first whatever their serving mode."""

    DEFAULT_CSS = """
    RankingList { height: auto; min-height: 6; max-height: 34%; scrollbar-size-horizontal: 0; }
    RankingList.stale { text-opacity: 50%; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "Open row", key_display="Enter")]

    def __init__(self) -> None:
        super().__init__(cursor_type="row", header_height=2, cell_padding=1, zebra_stripes=False)
        self.ranked: list[Ranked] = []
        self._key: tuple[str, ...] | None = None

    def show(self, ranking: "Ranking | None") -> None:
        """Nothing; lists the rows of a ranking, none for None; the cursor stays on its row if that is still there."""
        before = self.chosen
        self._key = before.key if before else self._key
        self.ranked = rows_of(ranking)
        self.fill()

    @property
    def chosen(self) -> Ranked | None:
        """The row under the cursor."""
        return self.ranked[self.cursor_row] if 0 <= self.cursor_row < len(self.ranked) else None

    def fill(self) -> None:
        """Nothing; the columns that fit the terminal, and all rows."""
        keys = [ranked.key for ranked in self.ranked]
        self.clear(columns=True)
        columns = list(self._columns())
        cells = [[column.cell(ranked) for column in columns] for ranked in self.ranked]
        for at, column in enumerate(columns):
            words = [*column.heading.splitlines(), *(row[at] for row in cells)]
            # Said and not left to be found out: the table would show another ranking in the widths of the last one.
            self.add_column(_text(column, column.heading), width=max(map(len, words)))
        for row in cells:
            self.add_row(*map(_text, columns, row))
        at = keys.index(self._key) if self._key in keys else 0
        self.move_cursor(row=at)
        if at < self.size.height - self.header_height:
            self.call_after_refresh(self.scroll_home, animate=False)  # the best rows stay in sight

    def on_resize(self) -> None:
        self.fill()

    def _columns(self) -> Iterator[Column]:
        yield COLUMNS[0]
        if len({ranked.row["backend"] for ranked in self.ranked}) > 1:
            yield BACKEND
        wide = self.app.size.width >= WIDE
        yield from (column for column in COLUMNS[1:] if wide or not column.wide)
        yield WORKERS if wide else SHORT_WORKERS


def _text(column: Column, words: str) -> Text:
    return Text(words, justify="left" if column.left else "right")


def rows_of(ranking: "Ranking | None") -> list[Ranked]:
    """The rows of both serving modes, most tokens/s per GPU of the cluster first."""
    if ranking is None:
        return []
    rows = [Ranked(mode, row) for mode in ("agg", "disagg") for row in getattr(ranking, mode).to_dicts()]
    return sorted(rows, key=lambda ranked: -ranked.row["tokens_s_gpu_cluster"])


def describe(ranked: Ranked, layout: Callable[[str], str] = str) -> str:
    """The workers of one replica in a few characters; ``layout`` writes the degrees of a worker."""
    row = ranked.row
    if ranked.mode == "agg":
        text = f"{layout(row['parallel'])} bs{row['batch']} ctx{row['ctx_tokens']}"
        text = f"{row['agg_workers']}A {text}" if row.get("agg_workers", 1) > 1 else text
    else:
        roles = (f"{layout(row[role + 'parallel'])} bs{row[role + 'batch']}" for role in ("prefill_", "decode_"))
        text = f"{row['xpyd']} {' + '.join(roles)}"
    if row.get("encoder_workers"):
        text += f" + {row['encoder_workers']}E tp{row['encoder_tp']} bs{row['encoder_batch']}"
    return text
