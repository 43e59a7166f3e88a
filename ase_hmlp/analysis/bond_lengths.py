"""Lengths of the molecular bonds: mean, spread, distribution (Zong et al. 2020, Fig. 2c)."""

from __future__ import annotations

import numpy as np

from ase_hmlp.analysis.result import Column, Quantity, Result, Table
from ase_hmlp.analysis.series import Series
from ase_hmlp.analysis.statistics import BlockedMean, estimate
from ase_hmlp.analysis.streaming import Analysis
from ase_hmlp.analysis.trajectory import Snapshot


class BondLengths(Analysis):
    """Mean bond length, its spread over molecules and time, and its distribution.

    Parameters
    ----------
    bins : int
        Of the distribution.
    span : (float, float), Å
        Its ends; bonds outside count for the mean only.
    """

    name = "bonds"

    def __init__(self, bins: int = 100, span: tuple[float, float] = (0.5, 1.1)):
        self._edges = np.linspace(*span, bins + 1)
        self._series = Series("bond_length_A", "squared_A2")
        self._density = BlockedMean()

    def parameters(self) -> dict:
        """Settings, for the record."""
        return {"bins": len(self._edges) - 1, "span_A": self._edges[[0, -1]]}

    def add(self, snapshot: Snapshot) -> None:
        """Take in a frame."""
        lengths = snapshot.bond_lengths
        self._series.add(snapshot, lengths.mean(), np.mean(lengths**2))
        width = self._edges[1] - self._edges[0]
        self._density.add(np.histogram(lengths, self._edges)[0] / (len(lengths) * width))

    def result(self) -> Result:
        """Quantities ``mean`` and ``spread`` (Å); table ``distribution``."""
        mean, square = map(self._series.estimate, self._series.names)
        spread = np.sqrt(max(0.0, square.value - mean.value**2))
        # d(spread) = d(<r^2> - <r>^2) / (2 spread), fluctuation by fluctuation.
        fluctuation = self._series["squared_A2"] - 2 * mean.value * self._series["bond_length_A"]
        error = estimate(fluctuation).error / (2.0 * spread) if spread else 0.0
        middles = 0.5 * (self._edges[1:] + self._edges[:-1])
        return Result(
            self.name,
            "Bond lengths",
            (
                Quantity("mean bond length", mean.value, mean.error, "Å"),
                Quantity("spread", float(spread), float(error), "Å"),
            ),
            (
                Table(
                    "bonds",
                    (
                        Column("bond_length_A", middles, "bond length (Å)"),
                        Column(
                            "density_per_A",
                            self._density.mean,
                            "probability density (1/Å)",
                            self._density.error,
                        ),
                    ),
                ),
            ),
        )
