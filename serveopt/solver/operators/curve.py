"""A token curve: what one run of an operator costs at any number of tokens.

Curves are piecewise linear and exact at their knots. Lower end: the first segment starts at zero tokens. Upper end:
the last segment runs on.
"""

from dataclasses import dataclass

import numpy as np

from serveopt.kernels.records import Curves

FAR_TOKENS = 1e9


@dataclass(frozen=True, slots=True)
class TokenCurve:
    """Latency of one operator run: ``tokens`` float64[knots] increasing, ``latency_ms`` float64[knots]."""

    tokens: np.ndarray
    latency_ms: np.ndarray
    source: str  # silicon | empirical | sol | estimated | mixed

    def scaled(self, count: float) -> "TokenCurve":
        """The curve of ``count`` runs."""
        return TokenCurve(self.tokens, self.latency_ms * count, self.source)


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

