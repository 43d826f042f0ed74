"""What sequence operators cost: prompts in prefill, batches at cached lengths in decode.

    GridPrice    a measured slice, or its efficiency under another roofline (data modes hybrid, empirical, sol)
    CurvePrice   decode kernels whose cost depends on the batch alone
    SumPrice     weighted sums of the above
    LessPrice    a price less a measured share of it

Prefill behind a cached prefix p: plain and latent attention were measured without one and take the square rule

    t(s, p) = t(s + p) * ((s + p)^2 - p^2) / (s + p)^2

sparse attention was measured with prefixes and is linear between them, or linear in the roofline (``by_bound``): its
indexer starts at a length that lies between two measured ones. Context parallel ranks each run the first and
the last of 2 cp pieces of a prompt (zig-zag), which levels their work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from serveopt.kernels.attention import SPREAD, fill_decode_attention, fill_prompts
from serveopt.kernels.grids import fill_bounds
from serveopt.kernels.records import FEATURES, Roofline
from serveopt.solver.operators.curve import TokenCurve
from serveopt.solver.operators.slices import Measured

TOKENS = 2  # place of the feature that counts tokens, see kernels.grids.bound_ms


class SequencePrice(Protocol):
    """Latency of one layer's operator."""

    @property
    def source(self) -> str:
        """silicon | empirical | sol | estimated | mixed."""

    def prefill(self, new_tokens: int, prefix: int, out: np.ndarray) -> None:
        """Nothing; fills out[b] (float64[batch + 1], ms) for 0 .. batch whole prompts; out[0] = 0."""

    def decode(
        self, lengths: np.ndarray, repeats: np.ndarray, batches: np.ndarray, out: np.ndarray, drafts: int = 1
    ) -> None:
        """Nothing; fills out[i] (float64[n], ms) for batches[i] float64[n], summed over lengths int64[k] x repeats.

        Every sequence brings ``drafts`` tokens, which share its cache.
        """


@dataclass(frozen=True)
class GridPrice:
    """A price read from a measured slice; ``roof`` is the operator's own bound, the slice may be another's.

    ``rule``: "square" or "planes", how a cached prefix enters; ``spread``: decode lengths averaged per step.
    ``power``: the latency to this power is linear in the prompt; ``by_bound``: between measured prefixes the latency is
    linear in the bound, else in the prefix. ``extra_ms`` and ``extra_ms_per_token`` are fused
    kernels beside prefill attention.
    """

    measured: Measured
    roof: Roofline
    heads: float
    source: str
    rule: str = "planes"
    power: float = 1.0
    by_bound: bool = False
    spread: int = 1
    cp: int = 1
    transferred: bool = False  # the slice belongs to another operator: only its efficiency counts
    extra_ms: float = 0.0
    extra_ms_per_token: float = 0.0

    def prefill(self, new_tokens: int, prefix: int, out: np.ndarray) -> None:
        """Nothing; fills out[b] with prefill of b prompts."""
        if self.cp == 1:
            self._fill(new_tokens, prefix, out)
        else:
            piece = max(1, -(-new_tokens // (2 * self.cp)))
            last = np.zeros(out.size)
            self._fill(piece, prefix, out)
            self._fill(piece, prefix + new_tokens - piece, last)
            out += last
        out[1:] += self.extra_ms + self.extra_ms_per_token * new_tokens / self.cp * np.arange(1, out.size)

    def _fill(self, tokens: int, prefix: int, out: np.ndarray) -> None:
        if self.rule == "square":
            full = tokens + prefix
            self._plane(0.0, full, out)
            out *= (full * full - prefix * prefix) / (full * full)
            return
        if self.roof.step_window and self.roof.cap > 0.0:
            prefix = min(prefix, int(self.roof.cap))  # a window does not see what lies before it
        known = self.measured.prefixes
        if known.size == 1 and prefix != known[0]:
            self._plane(float(known[0]), tokens + prefix, out)
            out *= self._ratio(tokens, prefix, tokens + prefix, 0, out.size)
            alone = np.zeros(out.size)
            self._plane(float(known[0]), tokens, alone)
            np.maximum(out, alone, out=out)  # a prefix never makes the new tokens faster
            return
        at = int(np.clip(np.searchsorted(known, prefix, side="right") - 1, 0, known.size - 1))
        self._plane(known[at], tokens, out)
        if known[at] == prefix:
            return
        if prefix > known[-1] or prefix < known[0]:
            if self.by_bound and prefix > known[-1]:
                self._beyond(tokens, prefix, known, out)
            else:
                out *= self._ratio(tokens, prefix, tokens, known[at], out.size)
            return
        above = np.zeros(out.size)
        self._plane(known[at + 1], tokens, above)
        weight = self._weight(tokens, prefix, (float(known[at]), float(known[at + 1])), out.size)
        out *= 1.0 - weight
        out += weight * above

    def _beyond(self, tokens: int, prefix: int, known: np.ndarray, out: np.ndarray) -> None:
        """Adds to ``out``, read at the largest measured prefix, what the roofline adds behind a longer one.

        The addition runs at the efficiency of the whole prompt without a prefix, which also bounds the sum: short
        prompts are mostly launches, which a longer prefix does not multiply.
        """
        whole = np.zeros(out.size)
        self._plane(float(known[0]), tokens + prefix, whole)
        own, at, full = (
            self._bounds(self.roof._replace(prefix=float(p)), n, out.size)
            for p, n in ((prefix, tokens), (known[-1], tokens), (known[0], tokens + prefix))
        )
        out[1:] += np.maximum(own - at, 0.0) * whole[1:] / full
        np.minimum(out, whole, out=out)

    def _weight(self, tokens: int, prefix: float, between: tuple[float, float], size: int) -> np.ndarray:
        """float64[size]: weight of the upper of the two prefixes that ``prefix`` lies between."""
        plain = np.full(size, (prefix - between[0]) / (between[1] - between[0]))
        if self.by_bound:
            low, own, high = (
                self._bounds(self.roof._replace(prefix=p), tokens, size)
                for p in (between[0], float(prefix), between[1])
            )
            rising = high > low
            plain[1:][rising] = ((own - low)[rising] / (high - low)[rising]).clip(0.0, 1.0)
        return plain

    def _plane(self, prefix: float, tokens: float, out: np.ndarray) -> None:
        """Fills out[b] from the plane measured at ``prefix``."""
        roof = self.measured.plane_roof(prefix)
        fill_prompts(self.measured.grid(prefix), roof, self.heads, float(tokens), self.power, out)
        if self.transferred:
            own = self.roof._replace(prefix=float(prefix)) if self.rule == "planes" else self.roof
            out[1:] *= self._bounds(own, tokens, out.size) / self._bounds(roof, tokens, out.size)

    def _bounds(self, roof: Roofline, tokens: float, size: int) -> np.ndarray:
        """float64[size - 1]: the bound of 1 .. size - 1 prompts."""
        out = np.zeros(size - 1)
        fill_bounds(roof, self.heads, np.full(size - 1, float(tokens)), np.arange(1.0, size), out)
        return out

    def _ratio(self, tokens: float, prefix: float, at_tokens: float, at_prefix: float, size: int) -> np.ndarray:
        """float64[size]: bound at (tokens, prefix) over the bound where the latency was read."""
        own = self._bounds(self.roof._replace(prefix=float(prefix)), tokens, size)
        return np.append(1.0, own / self._bounds(self.roof._replace(prefix=float(at_prefix)), at_tokens, size))

    def decode(
        self, lengths: np.ndarray, repeats: np.ndarray, batches: np.ndarray, out: np.ndarray, drafts: int = 1
    ) -> None:
        """Nothing; fills out[i] with decode of batches[i]."""
        grid, roof = self.measured.grid(), self.measured.roof
        fill_decode_attention(grid, roof, self.heads, (lengths, repeats), batches, self.spread, out)
        if self.transferred and repeats.sum() > 0:
            middle = np.full(batches.size, np.average(lengths, weights=repeats))
            own, other = np.zeros(batches.size), np.zeros(batches.size)
            fill_bounds(self.roof, self.heads, batches, middle, own)
            fill_bounds(roof, self.heads, batches, middle, other)
            out *= own / other
        if drafts > 1:
            out *= self.draft_ratio(drafts, lengths, repeats, batches)

    def draft_ratio(self, drafts: int, lengths: np.ndarray, repeats: np.ndarray, batches: np.ndarray) -> np.ndarray:
        """float64[n]: how much longer a step takes when every sequence brings ``drafts`` tokens, by the roofline.

        The cache and the weights are read once, arithmetic grows with the tokens.
        """
        middle = np.full(batches.size, np.average(lengths, weights=repeats) if repeats.sum() else 1.0)
        one, many = np.zeros(batches.size), np.zeros(batches.size)
        fill_bounds(self.roof, self.heads, batches, middle, one)
        busy = self.roof._replace(math=tuple(drafts * value for value in self.roof.math))
        fill_bounds(busy, self.heads, batches, middle, many)
        return many / one


def averaged(spread: bool) -> int:
    """Lengths over which a decode step is averaged."""
    return SPREAD if spread else 1


@dataclass(frozen=True)
class CurvePrice:
    """A decode kernel whose cost depends on the batch alone.

    ``bound``: (roofline, heads) of a kernel that keeps a state per sequence, which drafts share; None where drafts
    count as sequences.
    """

    curve: TokenCurve
    bound: tuple[Roofline, float] | None = None

    @property
    def source(self) -> str:
        """The source of the curve."""
        return self.curve.source

    def prefill(self, new_tokens: int, prefix: int, out: np.ndarray) -> None:
        """Nothing; fills out[b] as if every new token were a sequence."""
        out[:] = np.interp(np.arange(out.size) * float(new_tokens), self.curve.tokens, self.curve.latency_ms)
        out[0] = 0.0

    def decode(
        self, lengths: np.ndarray, repeats: np.ndarray, batches: np.ndarray, out: np.ndarray, drafts: int = 1
    ) -> None:
        """Nothing; fills out[i] with decode of batches[i]."""
        rows = batches if self.bound else batches * drafts
        out[:] = np.interp(rows, self.curve.tokens, self.curve.latency_ms) * repeats.sum()
        if self.bound and drafts > 1:
            out *= self._draft_ratio(self.bound, drafts, batches)

    @staticmethod
    def _draft_ratio(bound: tuple[Roofline, float], drafts: int, batches: np.ndarray) -> np.ndarray:
        """float64[n]: the bound with ``drafts`` tokens per sequence over that with one; states move once."""
        roof, heads = bound
        tokens = (TOKENS, TOKENS + FEATURES)
        math, memory = (
            tuple(value * (drafts if at in tokens else 1) for at, value in enumerate(weights))
            for weights in (roof.math, roof.memory)
        )
        one, many = np.zeros(batches.size), np.zeros(batches.size)
        fill_bounds(roof, heads, batches, np.ones(batches.size), one)
        fill_bounds(roof._replace(math=math, memory=memory), heads, batches, np.ones(batches.size), many)
        return many / one


@dataclass(frozen=True)
class SumPrice:
    """A weighted sum of prices."""

    terms: Sequence[tuple[float, SequencePrice]]

    @property
    def source(self) -> str:
        """The common source of the terms, else mixed."""
        sources = {term.source for weight, term in self.terms if weight}
        return sources.pop() if len(sources) == 1 else "mixed"

    def prefill(self, new_tokens: int, prefix: int, out: np.ndarray) -> None:
        """Nothing; fills out[b] with the sum."""
        part = np.zeros(out.size)
        out[:] = 0.0
        for weight, term in self.terms:
            term.prefill(new_tokens, prefix, part)
            out += weight * part

    def decode(
        self, lengths: np.ndarray, repeats: np.ndarray, batches: np.ndarray, out: np.ndarray, drafts: int = 1
    ) -> None:
        """Nothing; fills out[i] with the sum."""
        part = np.zeros(out.size)
        out[:] = 0.0
        for weight, term in self.terms:
            term.decode(lengths, repeats, batches, part, drafts)
            out += weight * part
