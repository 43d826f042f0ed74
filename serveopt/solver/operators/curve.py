"""A token curve: what one run of an operator costs at any number of tokens.

Curves are piecewise linear and exact at their knots. Lower end: the first segment starts at zero tokens. Upper end:
the last segment runs on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from serveopt.kernels.records import Curves

FAR_TOKENS = 1e9
Bound = Callable[[np.ndarray], np.ndarray]  # tokens float64[n] -> speed-of-light ms float64[n]
TAIL = np.geomspace(1.0, 64.0, 13)[1:]  # where a held tail may bend, in units of the last measurement
HEAD_KNOTS = 24


@dataclass(frozen=True, slots=True)
class TokenCurve:
    """Latency of one operator run: ``tokens`` float64[knots] increasing, ``latency_ms`` float64[knots]."""

    tokens: np.ndarray
    latency_ms: np.ndarray
    source: str  # silicon | empirical | sol | estimated | mixed

    def scaled(self, count: float) -> "TokenCurve":
        """The curve of ``count`` runs."""
        return TokenCurve(self.tokens, self.latency_ms * count, self.source)

    def shared(self, share: float) -> "TokenCurve":
        """The curve over tokens of the step of an operator that sees ``share`` tokens per token of the step."""
        return self if share == 1.0 else TokenCurve(self.tokens / share, self.latency_ms, self.source)

    def at(self, tokens: np.ndarray) -> np.ndarray:
        """float64[n]: ms at ``tokens``; the end segments run on.

        >>> line(1.0, 0.5, "sol").at(np.array([4.0])).round(6).tolist()
        [3.0]
        """
        if self.tokens.size == 1:
            return np.full(np.shape(tokens), self.latency_ms[0])
        left = np.clip(np.searchsorted(self.tokens, tokens, side="right") - 1, 0, self.tokens.size - 2)
        weight = (tokens - self.tokens[left]) / (self.tokens[left + 1] - self.tokens[left])
        return (1.0 - weight) * self.latency_ms[left] + weight * self.latency_ms[left + 1]


def line(fixed_ms: float, ms_per_token: float, source: str) -> TokenCurve:
    """The curve ``fixed + slope * tokens``.

    >>> line(1.0, 0.5, "sol").latency_ms.tolist()
    [1.0, 500000001.0]
    """
    return TokenCurve(np.array([0.0, FAR_TOKENS]), np.array([fixed_ms, fixed_ms + ms_per_token * FAR_TOKENS]), source)


def proportional_ends(size: np.ndarray, latency_ms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knots extended below and above in proportion to the size, which is how a bandwidth-bound transfer scales."""
    far = max(FAR_TOKENS, 2.0 * float(size[-1]))
    head_size, head_ms = np.array([0.0]), np.array([0.0])
    if size[0] <= 0:
        head_size, head_ms = head_size[:0], head_ms[:0]
    tail_size = np.array([far])
    tail_ms = np.array([latency_ms[-1] * far / size[-1]])
    return np.concatenate([head_size, size, tail_size]), np.concatenate([head_ms, latency_ms, tail_ms])


def held_ends(curve: TokenCurve, bound: Bound, flat_head: bool) -> TokenCurve:
    """The curve extended below and above its knots at the efficiency (bound / latency) of its ends.

    With ``flat_head`` nothing gets cheaper below the first knot, since launches do not. Source: op_model.md 1.1.
    """
    tokens, latency = curve.tokens, curve.latency_ms
    first, last = tokens[:1], tokens[-1:]
    below = np.round(np.geomspace(1.0, max(1.0, first[0]), min(HEAD_KNOTS, max(1, int(first[0])))))
    head = np.unique(below[below < first[0]])
    head_ms = np.full(head.size, latency[0]) if flat_head else bound(head) * (latency[0] / bound(first))
    tail = np.append(TAIL * last[0], FAR_TOKENS) if last[0] * TAIL[-1] < FAR_TOKENS else 2.0 * last
    tail_ms = bound(tail) * (latency[-1] / bound(last))
    slopes = np.diff(np.append(latency[-1:], tail_ms)) / np.diff(np.append(last, tail))
    if np.allclose(slopes, slopes[-1], rtol=1e-6):
        tail, tail_ms = tail[-1:], tail_ms[-1:]
    return TokenCurve(np.concatenate([head, tokens, tail]), np.concatenate([head_ms, latency, tail_ms]), curve.source)


def joint_source(sources: list[str]) -> str:
    """The source of a sum: that of its parts where they agree, else mixed.

    >>> joint_source(["silicon", "sol"])
    'mixed'
    """
    found = set(sources)
    return found.pop() if len(found) == 1 else "mixed" if found else "silicon"


def union(curves: list[TokenCurve]) -> np.ndarray:
    """float64[knots]: every knot of every curve."""
    return np.unique(np.concatenate([curve.tokens for curve in curves]))


def added(curves: list[TokenCurve]) -> TokenCurve:
    """The sum of the curves; what takes no time leaves no mark on the source."""
    busy = [curve for curve in curves if curve.latency_ms.any()]
    if not busy:
        return line(0.0, 0.0, "silicon")
    knots = union(busy)
    total = np.sum([curve.at(knots) for curve in busy], axis=0)
    return TokenCurve(knots, total, joint_source([curve.source for curve in busy]))


def larger(first: TokenCurve, second: TokenCurve) -> TokenCurve:
    """The larger of two curves, with knots where they cross.

    >>> larger(line(0.0, 1.0, "sol"), line(2.0, 0.0, "sol")).at(np.array([1.0, 2.0, 3.0])).round(6).tolist()
    [2.0, 2.0, 3.0]
    """
    knots = union([first, second])
    gap = first.at(knots) - second.at(knots)
    crossed = np.flatnonzero(gap[:-1] * gap[1:] < 0)
    share = gap[crossed] / (gap[crossed] - gap[crossed + 1])
    knots = np.union1d(knots, knots[crossed] + share * np.diff(knots)[crossed])
    busy = [curve.source for curve in (first, second) if curve.latency_ms.any()]
    return TokenCurve(knots, np.maximum(first.at(knots), second.at(knots)), joint_source(busy))


def blended(low: TokenCurve, high: TokenCurve, weight: float) -> TokenCurve:
    """(1 - weight) of ``low`` and ``weight`` of ``high``: between two measured neighbours, hence estimated."""
    knots = union([low, high])
    return TokenCurve(knots, (1.0 - weight) * low.at(knots) + weight * high.at(knots), "estimated")


def join(curves: list[TokenCurve]) -> Curves:
    """The curves one behind the other, as the kernels read them."""
    offset = np.zeros(len(curves) + 1, np.int64)
    offset[1:] = np.cumsum([curve.tokens.size for curve in curves])
    if not curves:
        return Curves(offset, np.zeros(0), np.zeros(0))
    return Curves(
        offset,
        np.ascontiguousarray(np.concatenate([curve.tokens for curve in curves]), np.float64),
        np.ascontiguousarray(np.concatenate([curve.latency_ms for curve in curves]), np.float64),
    )
