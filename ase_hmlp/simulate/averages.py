"""Averages of correlated samples, with standard errors."""

from __future__ import annotations

import numpy as np

#: Fewest blocks a standard error is estimated from.
FEWEST_BLOCKS = 5


def block_average(values) -> tuple[float, float]:
    """Mean and its standard error by reblocking.

    Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989): neighbouring samples are averaged in
    pairs, again and again; the naive error grows until blocks are longer than the correlation
    time. Returned is the largest, with at least `FEWEST_BLOCKS` blocks. Where even those are
    shorter than the correlation time it is too small.

    Parameters
    ----------
    values : (n,) array
        Evenly spaced in time.

    Returns
    -------
    mean, error : float
        Units of `values`; the error is NaN with fewer than `FEWEST_BLOCKS` samples.
    """
    blocks = np.asarray(values, dtype=float)
    mean = float(blocks.mean()) if len(blocks) else float("nan")
    error = float("nan")
    while len(blocks) >= FEWEST_BLOCKS:
        error = np.fmax(error, blocks.std(ddof=1) / np.sqrt(len(blocks)))
        even = len(blocks) // 2 * 2
        blocks = blocks[len(blocks) - even :].reshape(-1, 2).mean(axis=1)
    return mean, float(error)


def drift(time, values) -> tuple[float, float]:
    """Slope of a straight line through a series, with a standard error.

    The error is a delete-one-block jackknife over `FEWEST_BLOCKS` blocks, because neighbouring
    samples are correlated.

    Parameters
    ----------
    time, values : (n,) arrays

    Returns
    -------
    slope, error : float
        Units of `values` over units of `time`; NaN with too few samples.
    """
    time, values = np.asarray(time, dtype=float), np.asarray(values, dtype=float)
    if len(time) < 3 * FEWEST_BLOCKS:
        return float("nan"), float("nan")
    blocks = np.array_split(np.arange(len(time)), FEWEST_BLOCKS)
    slopes = [np.polyfit(np.delete(time, b), np.delete(values, b), 1)[0] for b in blocks]
    spread = np.sqrt((FEWEST_BLOCKS - 1) * np.var(slopes))
    return float(np.polyfit(time, values, 1)[0]), float(spread)
