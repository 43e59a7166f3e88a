"""Electrostatic energy of the molecules' quadrupoles: Zong et al. 2020, equations 6 and 7, Table 1.

The molecules are taken for linear quadrupoles at their bond midpoints. Energies follow the seed's
convention: the prefactor ``3 Q^2 / (4 pi eps0)`` with Q = 0.26 D Å, every pair counted from both
ends, divided by the number of molecules.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import units

from ase_hmlp.analysis.pairs import pairs_within
from ase_hmlp.analysis.result import Result
from ase_hmlp.analysis.series import Series
from ase_hmlp.analysis.statistics import BlockedMean
from ase_hmlp.analysis.streaming import Analysis
from ase_hmlp.analysis.trajectory import Snapshot
from ase_hmlp.errors import AnalysisError

#: Quadrupole moment of H2 in equation 6, e Å² (0.26 D Å).
QUADRUPOLE = 0.26 * units.Debye

#: e²/(4 pi eps0), eV Å.
COULOMB = units._e / (4.0 * np.pi * units._eps0) * 1e10


def orientational_factor(axes_i, axes_j, direction) -> np.ndarray:
    """Orientational factor of two linear quadrupoles, equation 7.

    Parameters
    ----------
    axes_i, axes_j : (..., 3) unit vectors along the molecules
    direction : (..., 3) unit vectors from one centre to the other

    Returns
    -------
    (...) array
        1 for crossed (X), 3 for parallel (H), -4 for T-shaped, 8 for collinear molecules.
    """
    a = np.einsum("...c,...c->...", axes_i, direction)
    b = np.einsum("...c,...c->...", axes_j, direction)
    c = np.einsum("...c,...c->...", axes_i, axes_j)
    return 35 * a**2 * b**2 - 5 * a**2 - 5 * b**2 + 2 * c**2 - 20 * a * b * c + 1


def quadrupole_energy(
    centres, axes, cell, pbc, cutoff: float, edges: Sequence[float] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Energy of linear quadrupoles, equation 6, by shells of distance.

    Parameters
    ----------
    centres : (m, 3) Å
    axes : (m, 3) unit vectors
    cell : (3, 3) Å, completed where not periodic
    pbc : three booleans
    cutoff : float, Å
        May exceed the cell: images count.
    edges : sequence of float, Å
        Where shells end and the next begin, rising, below `cutoff`.

    Returns
    -------
    energy : (len(edges) + 1,) array, meV per molecule
        Sums over ordered pairs.
    neighbours : (len(edges) + 1,) array
        Mean number of molecules in each shell of one.
    """
    sums, counts = np.zeros(len(edges) + 1), np.zeros(len(edges) + 1)
    for pairs in pairs_within(centres, cell, pbc, cutoff):
        direction = pairs.vectors / pairs.distances[:, None]
        factor = orientational_factor(axes[pairs.i], axes[pairs.j], direction)
        shells = np.searchsorted(edges, pairs.distances, side="right")
        sums += np.bincount(shells, factor / pairs.distances**5, minlength=len(sums))
        counts += np.bincount(shells, minlength=len(sums))
    strength = 3.0 * QUADRUPOLE**2 * COULOMB
    return 1000.0 * strength * sums / len(centres), counts / len(centres)


class QuadrupoleEnergy(Analysis):
    """Mean <EQQ> of a trajectory (Table 1) and its split by shells of neighbours.

    Parameters
    ----------
    cutoff : float, Å
        The sum converges fast: at 8 Å the shipped crystals are within 0.2 meV/molecule of the
        limit.
    shells : sequence of float
        Where shells end, in units of the distance between nearest neighbours in a close packing of
        the same density. By default the twelve nearest of a close packing, up to its fifth
        neighbours, and the rest.
    """

    name = "eqq"

    def __init__(self, cutoff: float = 8.0, shells: Sequence[float] = (1.2, 1.8)):
        shells = tuple(float(edge) for edge in shells)
        if any(b <= a for a, b in zip((0.0, *shells), shells, strict=False)):
            raise AnalysisError(f"Shells must end at rising distances, not {list(shells)}.")
        if not cutoff > 0.0:
            raise AnalysisError(f"The cutoff must be positive, not {cutoff} Å.")
        self.cutoff, self.shells = float(cutoff), shells
        self._series = Series(*self._names())
        self._neighbours = BlockedMean()

    def _names(self) -> tuple[str, ...]:
        return ("eqq_meV", *(f"shell_{k + 1}_meV" for k in range(len(self.shells) + 1)))

    def parameters(self) -> dict:
        """Settings, for the record."""
        return {"cutoff_A": self.cutoff, "shells": self.shells, "quadrupole_e_A2": QUADRUPOLE}

    def add(self, snapshot: Snapshot) -> None:
        """Take in a frame."""
        molecules = len(snapshot.molecules)
        nearest = (np.sqrt(2.0) * snapshot.volume / molecules) ** (1 / 3)
        edges = nearest * np.array(self.shells)
        if len(edges) and edges[-1] >= self.cutoff:
            raise AnalysisError(
                f"{snapshot.where}: the last shell begins at {edges[-1]:.2f} Å, beyond the cutoff "
                f"of {self.cutoff:g} Å."
            )
        energy, neighbours = quadrupole_energy(
            snapshot.centres, snapshot.axes, snapshot.cell, snapshot.pbc, self.cutoff, edges
        )
        self._series.add(snapshot, energy.sum(), *energy)
        self._neighbours.add(neighbours)

    def result(self) -> Result:
        """Quantities ``<EQQ>`` and ``shell 1`` ... (meV/molecule); table ``eqq``, against time."""
        unit, ends = "meV/molecule", [*self.shells, None]
        quantities = [self._series.quantity("eqq_meV", "<EQQ>", unit)]
        labels = ["all"]
        for k, (end, neighbours) in enumerate(zip(ends, self._neighbours.mean, strict=True), 1):
            reach = f"R < {end:g} d" if end else f"R < {self.cutoff:g} Å"
            quantities.append(self._series.quantity(f"shell_{k}_meV", f"shell {k}", unit))
            labels.append(f"shell {k}: {reach}, {neighbours:.1f} molecules")
        return Result(
            self.name,
            "Quadrupole-quadrupole energy",
            tuple(quantities),
            (self._series.table(self.name, labels, label=f"⟨EQQ⟩ ({unit})"),),
            (
                *(f"{label}." for label in labels[1:]),
                "d: nearest neighbours in a close packing of the same density.",
            ),
        )
