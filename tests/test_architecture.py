"""The shape of the code, as numbers: who may import whom, how long things may be, what an import may cost."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "serveopt"
MODULES = sorted(PACKAGE.rglob("*.py"))
# A room may import the rooms after it; perfdata and kernels never import each other.
MAY_IMPORT = {
    "cli": {"cli", "deploy", "solver", "perfdata", "kernels", "errors"},
    "deploy": {"deploy", "solver", "perfdata", "kernels", "errors"},
    "solver": {"solver", "perfdata", "kernels", "errors"},
    "perfdata": {"perfdata", "errors"},
    "kernels": {"kernels"},
    "errors": set(),
}
FILE_CEILING, FUNCTION_CEILING, KERNEL_CEILING, PARAMETER_CEILING = 400, 60, 80, 7
HEAVY = {"numba", "numpy", "polars", "matplotlib", "plotext", "rich", "typer", "yaml"}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.Module) -> Iterator[str]:
    """Rooms of serveopt that a module names in an import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "serveopt":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from (parts[1] for parts in names if parts[0] == "serveopt" and len(parts) > 1)


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


@each_module
def test_imports_point_one_way(path: Path) -> None:
    here = room(path)
    if here in MAY_IMPORT:
        wrong = set(imported_rooms(ast.parse(path.read_text()))) - MAY_IMPORT[here]
        assert not wrong, f"{here} must not import {wrong}"


@each_module
def test_nothing_is_too_long(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= FILE_CEILING
    ceiling = KERNEL_CEILING if room(path) == "kernels" else FUNCTION_CEILING
    for function in functions(ast.parse(text)):
        lines = (function.end_lineno or 0) - function.lineno + 1
        assert lines <= ceiling, f"{function.name} has {lines} lines"


@each_module
def test_no_function_takes_too_many_parameters(path: Path) -> None:
    for function in functions(ast.parse(path.read_text())):
        parameters = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        count = len([parameter for parameter in parameters if parameter.arg not in ("self", "cls")])
        assert count <= PARAMETER_CEILING, f"{function.name} has {count} parameters"


@each_module
def test_no_handler_catches_everything(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None and ast.unparse(node.type) != "Exception", f"line {node.lineno}"


def test_rooms_are_known() -> None:
    assert {room(path) for path in MODULES} <= {*MAY_IMPORT, "__init__", "__main__"}


def test_import_loads_nothing_heavy() -> None:
    script = "import sys, serveopt; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & HEAVY


def test_public_names_exist() -> None:
    import serveopt

    for name in serveopt.__all__:
        assert getattr(serveopt, name) is not None
    assert set(serveopt.__all__) <= set(dir(serveopt))
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        serveopt.missing  # noqa: B018
