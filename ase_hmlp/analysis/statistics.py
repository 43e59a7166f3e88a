"""Means of correlated samples and their standard errors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ase_hmlp.errors import TooFewFramesError

# On import pymbar recommends JAX, which its time series do not use, to whoever runs a command.
_log = logging.getLogger("pymbar")
_level = _log.level
_log.setLevel(logging.ERROR)
from pymbar import timeseries  # noqa: E402

_log.setLevel(_level)

#: Fewest samples, or blocks, a standard error is estimated from.
FEWEST = 8

#: A stream is kept in at most this many blocks; half as many once it is long.
MOST_BLOCKS = 64


@dataclass(frozen=True)
class Estimate:
    """A mean and how well it is known.

    Attributes
    ----------
    value : float
    error : float
        Standard error; NaN where the samples are too few or too correlated to tell.
    inefficiency : float
        Statistical inefficiency g: samples per independent one, one plus twice the autocorrelation
        time in samples.
    samples : int
    """

    value: float
    error: float
    inefficiency: float
    samples: int


def statistical_inefficiency(values) -> float:
    """Samples per independent one, by the integrated autocorrelation time (pymbar).

    Chodera and others, J. Chem. Theory Comput. 3, 26 (2007). One where the series is constant.

    Parameters
    ----------
    values : (n,) array, evenly spaced in time
    """
    values = np.asarray(values, dtype=float)
    # pymbar refuses a series without fluctuations; rounding of its mean must not make one.
    if len(values) < 2 or _constant(values):
        return 1.0
    return float(timeseries.statistical_inefficiency(values))


def _constant(values: np.ndarray) -> bool:
    """Whether what a series varies by is rounding."""
    return bool(np.ptp(values) <= 1e-12 * abs(values).max())


def estimate(values) -> Estimate:
    """Mean of a time series with the standard error its autocorrelation leaves.

    ``sqrt(s^2 g / (n - g))`` with the variance s^2 over all n samples and the statistical
    inefficiency g.

    Parameters
    ----------
    values : (n,) array, evenly spaced in time

    Returns
    -------
    Estimate
        Its error is NaN with fewer than `FEWEST` samples or two independent ones, and 0 for what
        is constant but for rounding.

    Raises
    ------
    TooFewFramesError
        Without a sample.
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    if not n:
        raise TooFewFramesError("There is no sample to average.")
    g = statistical_inefficiency(values)
    known = n >= FEWEST and n >= 2.0 * g
    variance = 0.0 if _constant(values) else values.var()
    error = float(np.sqrt(variance * g / (n - g))) if known else float("nan")
    return Estimate(float(values.mean()), error, g, n)


class BlockedMean:
    """Running mean of arrays with a standard error, in bounded memory.

    Samples are summed in blocks of equal length. When there are `MOST_BLOCKS` blocks, neighbours
    are joined: the online form of reblocking (Flyvbjerg and Petersen, J. Chem. Phys. 91, 461,
    1989). Samples behind the last full block count for the mean, not for the error.

    Parameters
    ----------
    most_blocks : int, even
    """

    def __init__(self, most_blocks: int = MOST_BLOCKS):
        self._most = most_blocks
        self._blocks: list[np.ndarray] = []
        self._length = 1
        self._open: np.ndarray | float = 0.0
        self._in_open = 0
        self.samples = 0

    def add(self, values) -> None:
        """Add a sample.

        Parameters
        ----------
        values : array, of one shape for all samples
        """
        self._open = self._open + np.asarray(values, dtype=float)
        self._in_open += 1
        self.samples += 1
        if self._in_open < self._length:
            return
        self._blocks.append(np.asarray(self._open))
        self._open, self._in_open = 0.0, 0
        if len(self._blocks) == self._most:
            pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
            self._blocks = [a + b for a, b in pairs]
            self._length *= 2

    @property
    def mean(self) -> np.ndarray:
        """Mean over all samples.

        Raises
        ------
        TooFewFramesError
            Without a sample.
        """
        if not self.samples:
            raise TooFewFramesError("There is no sample to average.")
        return np.asarray(sum(self._blocks) + self._open) / self.samples

    @property
    def blocks(self) -> np.ndarray:
        """Means of the full blocks (b, ...), in order of time."""
        return np.array(self._blocks) / self._length

    @property
    def error(self) -> np.ndarray:
        """Standard error of the mean: the largest over block lengths with `FEWEST` blocks or more.

        NaN with fewer than `FEWEST` blocks.
        """
        if not self._blocks:
            return np.full(np.shape(self._open), np.nan)
        return _largest_error(self.blocks)

    def jackknife(self, function: Callable[[np.ndarray], np.ndarray]) -> tuple:
        """Value and standard error of a function of the mean, by leaving out one block at a time.

        Neighbouring blocks are joined until `FEWEST` to twice as many are left, so that they are as
        long, and as independent, as can be.

        Parameters
        ----------
        function : callable
            Takes a mean, returns a number or an array.

        Returns
        -------
        value, error
            The error is NaN with fewer than `FEWEST` blocks.
        """
        value = np.asarray(function(self.mean), dtype=float)
        blocks = self.blocks
        while len(blocks) >= 2 * FEWEST:
            blocks = _joined(blocks)
        if len(blocks) < FEWEST:
            return value, np.full_like(value, np.nan)
        return value, jackknife_error(blocks, function)


def jackknife_error(blocks, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Standard error of ``function(blocks.mean(axis=0))``, by leaving out one block at a time.

    Parameters
    ----------
    blocks : (b, ...) array of independent samples
    function : callable
    """
    blocks = np.asarray(blocks, dtype=float)
    n = len(blocks)
    without = (blocks.sum(axis=0) - blocks) / (n - 1)
    values = np.array([function(mean) for mean in without])
    return np.sqrt((n - 1) * values.var(axis=0))


def _largest_error(blocks: np.ndarray) -> np.ndarray:
    error = np.full(blocks.shape[1:], np.nan)
    while len(blocks) >= FEWEST:
        error = np.fmax(error, blocks.std(axis=0, ddof=1) / np.sqrt(len(blocks)))
        blocks = _joined(blocks)
    return error


def _joined(blocks: np.ndarray) -> np.ndarray:
    """Means of neighbouring pairs; of an odd number, the first is left out."""
    odd = len(blocks) % 2
    return 0.5 * (blocks[odd::2] + blocks[odd + 1 :: 2])
