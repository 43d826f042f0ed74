"""Curves of one expert shape under the measured loads of its experts.

A load is "balanced" (also called "uniform") or a power law of some exponent. An exponent between two measured ones is
interpolated, one outside is held at the nearest; a shape measured without any power law serves its balanced load.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from serveopt.solver.operators.curve import TokenCurve, blended
from serveopt.solver.operators.curve_tables import CurveTable, Key

POWER_LAW = re.compile(r"power_law_([0-9.]+)(_eplb)?")
EVEN = ("balanced", "uniform")


@dataclass
class LoadTable:
    """Expert tables: ``loads`` maps a shape to {load: key}, ``tables`` the tables the keys may be in, best first."""

    tables: tuple[CurveTable, ...]
    loads: dict[Key, dict[str, list[tuple[CurveTable, Key]]]]

    @classmethod
    def read(
        cls, tables: Iterable[tuple[CurveTable, Mapping[str, str | int | None]]], shape: tuple[str, ...]
    ) -> "LoadTable":
        """The tables by ``shape``: names of key columns; a table's mapping supplies those it lacks.

        A mapping value of None means: as many as num_experts.
        """
        loads: dict[Key, dict[str, list[tuple[CurveTable, Key]]]] = {}
        kept = []
        for table, supplied in tables:
            kept.append(table)
            place = {name: i for i, name in enumerate(table.names)}
            load_at = place["distribution"]
            same = place["num_experts"]
            for key in table:
                parts = [
                    key[place[name]] if name in place else key[same] if supplied[name] is None else supplied[name]
                    for name in shape
                ]
                held = loads.setdefault(tuple(parts), {})  # type: ignore[arg-type]
                held.setdefault(str(key[load_at]), []).append((table, key))
        return cls(tuple(kept), loads)

    def curve(self, shape: Key, load: str) -> TokenCurve | None:
        """The points of a shape under a load; None where the shape was not measured at all."""
        held = self.loads.get(shape)
        if held is None:
            return None
        exact = self._exact(held, load)
        return exact if exact is not None else self._between(held, load)

    def _exact(self, held: dict[str, list[tuple[CurveTable, Key]]], load: str) -> TokenCurve | None:
        names = EVEN if load in EVEN else (load,)
        for name in names:
            for table, key in held.get(name, ()):
                return table.curve(key)
        return None

    def _between(self, held: dict[str, list[tuple[CurveTable, Key]]], load: str) -> TokenCurve:
        wanted = POWER_LAW.fullmatch(load)
        known = sorted(
            (float(match[1]), name)
            for name in held
            if (match := POWER_LAW.fullmatch(name)) and wanted and match[2] == wanted[2]
        )
        if not known or wanted is None:
            plain = next(name for name in (*EVEN, *held) if name in held)
            return self._estimated(held, plain)
        alpha = float(wanted[1])
        even = next((name for name in EVEN if name in held), None)
        if even is not None and not wanted[2] and alpha < known[0][0]:
            # A power law of exponent 0 is an even load; some backends measured that one slower than an uneven one.
            least = self._estimated(held, known[0][1])
            flat = blended(self._estimated(held, even), least, alpha / known[0][0])
            knots = np.union1d(flat.tokens, least.tokens)
            return replace(flat, tokens=knots, latency_ms=np.minimum(flat.at(knots), least.at(knots)))
        below = [entry for entry in known if entry[0] < alpha]
        above = [entry for entry in known if entry[0] > alpha]
        if not below or not above:
            return self._estimated(held, (below[-1] if below else above[0])[1])
        (low, low_name), (high, high_name) = below[-1], above[0]
        ends = self._estimated(held, low_name), self._estimated(held, high_name)
        return blended(*ends, (alpha - low) / (high - low))

    def _estimated(self, held: dict[str, list[tuple[CurveTable, Key]]], load: str) -> TokenCurve:
        table, key = held[load][0]
        curve = table.curve(key)
        assert curve is not None
        return replace(curve, source="estimated")
