"""The Pareto front of both serving modes as a picture file; the only module that imports matplotlib."""

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from serveopt.solver.ranking import Ranking

# Okabe and Ito's colours, told apart by all kinds of colour vision; markers differ as well.
STYLES = {"agg": ("#0072B2", "o", "aggregated"), "disagg": ("#D55E00", "s", "disaggregated")}
CHOSEN_COLOR = "#009E73"
LIMIT_COLOR = "#555555"


def save_pareto_figure(ranking: "Ranking", path: Path) -> None:
    """Nothing; writes a PNG of throughput per GPU over speed per user."""
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for mode, (color, marker, label) in STYLES.items():
        part = ranking.pareto.filter(ranking.pareto["serving_mode"] == mode).sort("tokens_s_user")
        if not part.is_empty():
            x, y = part["tokens_s_user"].to_list(), part["tokens_s_gpu_cluster"].to_list()
            axes.plot(x, y, color=color, marker=marker, markersize=4, linewidth=1, label=label)
    problem = ranking.problem
    axes.axvline(
        1000.0 / problem.tpot_ms,
        color=LIMIT_COLOR,
        linestyle="--",
        linewidth=1,
        label=f"TPOT = {problem.tpot_ms:g} ms",
    )
    best = getattr(ranking, ranking.chosen).row(0, named=True)
    axes.plot(
        [best["tokens_s_user"]], [best["tokens_s_gpu_cluster"]],
        color=CHOSEN_COLOR, marker="*", markersize=15, linestyle="none", label="best within the limits",
    )  # fmt: skip
    axes.set_xlabel("speed of one user, tokens/s/user")
    axes.set_ylabel("throughput, tokens/s/gpu of the cluster")
    axes.set_title(
        f"{problem.model} on {problem.total_gpus} x {problem.system}, {problem.isl} tokens in, {problem.osl} out, "
        f"TTFT <= {problem.ttft_ms:g} ms",
        fontsize=9,
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
