"""The result directory of ``--save-dir``: all of it or none of it.

    DIR/result.json  pareto_frontier.png  agg/{best_config_topn,pareto}.csv  disagg/{best_config_topn,pareto}.csv

Files are written into a directory beside DIR that takes DIR's name when it is complete, so that a reader never sees
half a result. Whether DIR can be written is found out before the search, not after it.
"""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from serveopt.cli import contract
from serveopt.cli.headings import csv_heading
from serveopt.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from serveopt.solver.problem import Problem
    from serveopt.solver.ranking import Ranking

SIGNIFICANT_DIGITS = 6  # of a CSV cell; JSON keeps all
WORKLOAD = ("model", "isl", "osl", "prefix_len")


def check_save_dir(target: Path) -> None:
    """Nothing; raises ConfigError unless ``target`` is an empty or new directory in a writable place."""
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            what = "is not empty" if target.is_dir() else "is a file"
            raise ConfigError(f"{target} {what}", field="save_dir", hint="name a new directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent):
            pass
    except OSError as error:
        raise _unwritable(target, error) from error


def save_result(ranking: "Ranking", target: Path) -> None:
    """Nothing; writes the result directory ``target`` in one step."""
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            _write_files(ranking, staging)
            staging.chmod(0o755)
            if target.exists():
                target.rmdir()
            staging.rename(target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    except OSError as error:
        raise _unwritable(target, error) from error


def csv_frame(frame: "pl.DataFrame", columns: tuple[str, ...], problem: "Problem") -> "pl.DataFrame":
    """The frame under the column names of CSV files, with the workload in front."""
    import polars as pl

    chosen = contract.select(frame, columns)
    workload = [pl.lit(getattr(problem, name)).alias(name) for name in WORKLOAD]
    named = chosen.select(*workload, pl.all()).with_columns(pl.col(pl.Float64).round_sig_figs(SIGNIFICANT_DIGITS))
    return named.rename({name: csv_heading(name) for name in named.columns})


def _write_files(ranking: "Ranking", folder: Path) -> None:
    from serveopt.cli.pareto_figure import save_pareto_figure

    (folder / "result.json").write_text(contract.to_json(contract.result_document(ranking)) + "\n")
    for mode, columns in (("agg", contract.AGG_COLUMNS), ("disagg", contract.DISAGG_COLUMNS)):
        best: pl.DataFrame = getattr(ranking, mode)
        if best.is_empty():
            continue
        (folder / mode).mkdir()
        front = ranking.pareto.filter(ranking.pareto["serving_mode"] == mode)
        csv_frame(best, columns, ranking.problem).write_csv(folder / mode / "best_config_topn.csv")
        csv_frame(front, contract.PARETO_COLUMNS, ranking.problem).write_csv(folder / mode / "pareto.csv")
    save_pareto_figure(ranking, folder / "pareto_frontier.png")


def _unwritable(target: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write {target}: {error.strerror or error}", field="save_dir")
