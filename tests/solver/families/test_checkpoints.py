"""The catalogue's facts of every model that the reference was asked to build."""

from typing import Any

import pytest

from serveopt.perfdata.architectures import ARCHITECTURES
from serveopt.perfdata.catalogue import load_model
from tests.solver.families.conformance import read_rows


@pytest.mark.parametrize("row", read_rows(*ARCHITECTURES.values()))
def test_shapes_are_those_of_the_checkpoint(row: dict[str, Any]) -> None:
    """Architecture, family, layers, widths and heads."""
    model = load_model(row["model"])
    own = (model.architecture, model.family, model.num_layers, model.hidden_size, model.num_heads, model.head_dim)
    assert own == tuple(row[name] for name in ("architecture", "family", "layers", "hidden", "heads", "head_size"))
