"""``serveopt default``: rank every way of serving a model on a cluster."""

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serveopt.cli.flags import SEARCH_FLAGS, field_values, parameters
from serveopt.cli.progress import ProgressView
from serveopt.cli.save import check_save_dir, save_result
from serveopt.errors import ConfigError
from serveopt.solver.problem import Problem

if TYPE_CHECKING:
    from serveopt.solver.ranking import Ranking

HELP = "Rank aggregated and disaggregated configurations of a model on a cluster, within latency limits."
FORMATS = ("table", "json", "csv")
INTERRUPTED_EXIT = 130
KEYWORD = inspect.Parameter.KEYWORD_ONLY


def command(**values: Any) -> None:
    """Nothing; prints the ranking to stdout and saves it where asked."""
    check_format(values["format"], FORMATS)
    problem = Problem(**field_values(SEARCH_FLAGS, values))
    save_dir: Path | None = values["save_dir"]
    if save_dir is not None:
        check_save_dir(save_dir)
    ranking = search(problem, values["quiet"])
    show(ranking, values["format"], plot=not values["quiet"])
    if save_dir is not None:
        save_result(ranking, save_dir)
        if not values["quiet"]:
            print(f"saved to {save_dir}", file=sys.stderr)
    if ranking.partial:
        print("interrupted: partial, only what was priced until then is ranked", file=sys.stderr)
        raise typer.Exit(INTERRUPTED_EXIT)


def output_parameters(formats: tuple[str, ...]) -> list[inspect.Parameter]:
    """The options about output that commands share."""
    chosen = typer.Option("--format", help="Form of the output.", metavar="|".join(formats), rich_help_panel="Output")
    quiet = typer.Option("--quiet", "-q", help="No progress, no plot.", rich_help_panel="Output")
    return [
        inspect.Parameter("format", KEYWORD, default=formats[0], annotation=Annotated[str, chosen]),
        inspect.Parameter("quiet", KEYWORD, default=False, annotation=Annotated[bool, quiet]),
    ]


def _save_parameter() -> inspect.Parameter:
    option = typer.Option("--save-dir", help="New directory for tables, picture and JSON.", rich_help_panel="Output")
    return inspect.Parameter("save_dir", KEYWORD, default=None, annotation=Annotated[Path | None, option])


command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [*parameters(Problem, SEARCH_FLAGS), *output_parameters(FORMATS), _save_parameter()]
)


def check_format(name: str, formats: tuple[str, ...]) -> None:
    """Nothing; raises ConfigError for a form of output that does not exist."""
    if name not in formats:
        raise ConfigError(f"{name!r} is not allowed; choose one of {', '.join(formats)}", field="format")


def search(problem: Problem, quiet: bool) -> "Ranking":
    """The answer to ``problem``, with progress on stderr."""
    with ProgressView(quiet) as view:
        from serveopt.solver.solve import solve

        return solve(problem, on_event=view)


def show(ranking: "Ranking", form: str, plot: bool) -> None:
    """Nothing; prints a ranking to stdout."""
    if form == "json":
        from serveopt.cli.contract import result_document, to_json

        print(to_json(result_document(ranking)))
    elif form == "csv":
        print(ranking_csv(ranking), end="")
    else:
        from rich.console import Console

        from serveopt.cli.ranking_view import print_ranking

        print_ranking(ranking, Console(), plot)


def ranking_csv(ranking: "Ranking") -> str:
    """The rows of both serving modes as one CSV text; cells that a mode does not have are empty."""
    import polars as pl

    from serveopt.cli.contract import AGG_COLUMNS, DISAGG_COLUMNS
    from serveopt.cli.save import csv_frame

    parts = []
    for mode, columns in (("agg", AGG_COLUMNS), ("disagg", DISAGG_COLUMNS)):
        frame: pl.DataFrame = getattr(ranking, mode)
        if not frame.is_empty():
            named = csv_frame(frame, columns, ranking.problem)
            parts.append(named.select(pl.lit(mode).alias("serving_mode"), pl.all()))
    return pl.concat(parts, how="diagonal").write_csv() if parts else ""
