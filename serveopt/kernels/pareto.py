"""Which rows are not dominated when two metrics are to be large."""

from serveopt.kernels.jit import kernel


@kernel
def mark_front(order, x, y, keep):
    """Nothing; sets keep[i] (bool[n]) for rows not dominated in (x, y), both maximised.

    ``order`` int64[n] sorts the rows by x descending, then y descending. Of equal rows the first in ``order`` is
    kept. A row is dominated when another is at least as large in both and larger in one.
    """
    best = -1.0
    for k in range(order.size):
        i = order[k]
        keep[i] = y[i] > best
        if keep[i]:
            best = y[i]
