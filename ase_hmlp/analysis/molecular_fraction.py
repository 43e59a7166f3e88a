"""How many atoms are in molecules, frame by frame, whatever their neighbours were before."""

from __future__ import annotations

import numpy as np

from ase_hmlp.analysis.result import Result
from ase_hmlp.analysis.series import Series
from ase_hmlp.analysis.streaming import Analysis
from ase_hmlp.analysis.trajectory import Snapshot
from ase_hmlp.errors import AnalysisError
from ase_hmlp.neighbors import neighbour_list


def molecular_atoms(positions, cell, pbc, longest: float) -> np.ndarray:
    """Which atoms are in molecules: each other's nearest neighbours, closer than `longest`.

    Parameters
    ----------
    positions : (n, 3) Å
    cell : (3, 3) Å, completed where not periodic
    pbc : three booleans
    longest : float, Å

    Returns
    -------
    (n,) booleans
    """
    n = len(positions)
    first, index, shift = neighbour_list(positions, cell, pbc, longest)
    owner = np.repeat(np.arange(n), np.diff(first))
    vectors = positions[index] + shift @ cell - positions[owner]
    order = np.lexsort((np.linalg.norm(vectors, axis=1), owner))
    some = np.diff(first) > 0
    partner = np.full(n, -1)
    partner[some] = index[order][first[:-1][some]]
    mutual = some & (partner != np.arange(n))
    return mutual & (partner[np.where(mutual, partner, 0)] == np.arange(n))


class MolecularFraction(Analysis):
    """Share of atoms in molecules, and its time series.

    Parameters
    ----------
    longest : float, Å
        Nearest neighbours farther apart than this are no molecule.
    """

    name = "fraction"
    molecular = False

    def __init__(self, longest: float = 1.0):
        if not 0.0 < longest < np.inf:
            raise AnalysisError(f"The longest bond must be positive, not {longest} Å.")
        self.longest = float(longest)
        self._series = Series("molecular_fraction")

    def parameters(self) -> dict:
        """Settings, for the record."""
        return {"longest_A": self.longest}

    def add(self, snapshot: Snapshot) -> None:
        """Take in a frame."""
        paired = molecular_atoms(snapshot.positions, snapshot.cell, snapshot.pbc, self.longest)
        self._series.add(snapshot, paired.mean())

    def result(self) -> Result:
        """Quantity ``molecular fraction``; table ``fraction``, against time."""
        return Result(
            self.name,
            f"Atoms in molecules: mutual nearest neighbours within {self.longest:g} Å",
            (self._series.quantity("molecular_fraction", "molecular fraction", ""),),
            (self._series.table(self.name, ("molecular fraction",)),),
        )
