"""The Pareto front of points with a cost and an error, and its knee."""

from __future__ import annotations

import numpy as np


def front(cost, error, resolution: float = 0.0) -> np.ndarray:
    """Indices of the points that no other one is as good as in both and better in one.

    Parameters
    ----------
    cost, error : (k,) arrays
    resolution : float
        Costs that differ by a smaller share of them are taken for equal where it spares a point:
        one that another is as cheap as but for this, and better.

    Returns
    -------
    (f,) integers
        By rising cost, hence falling error; of equal points the first.
    """
    cost, error = np.asarray(cost, dtype=float), np.asarray(error, dtype=float)
    order = np.lexsort((error, cost))
    cost, error = cost[order], error[order]
    before = np.concatenate([[np.inf], np.minimum.accumulate(error)])
    # The least error among all that cost hardly more.
    within = np.searchsorted(cost, cost * (1.0 + resolution), side="right")
    return order[(error < before[:-1]) & (error <= before[within])]


def knee(cost, error) -> int | None:
    """Where a front bends most: farthest below the line that joins its ends, on log axes.

    Stretching an axis changes all these distances by one factor, so units do not matter.

    Parameters
    ----------
    cost, error : (f,) arrays
        Of the points of a front, by rising cost; positive.

    Returns
    -------
    int or None
        Index into the front; None if no point is below the line.
    """
    x, y = np.log(np.asarray(cost, dtype=float)), np.log(np.asarray(error, dtype=float))
    if len(x) < 3:
        return None
    dx, dy = x[-1] - x[0], y[-1] - y[0]
    below = dy * (x - x[0]) - dx * (y - y[0])
    best = int(below.argmax())
    # The ends are on the line but for round-off.
    return best if below[best] > 1e-12 * abs(dx * dy) else None
