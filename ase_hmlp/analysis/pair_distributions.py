"""Radial distribution functions of atoms and molecular centres (Zong et al. 2020, Fig. 3b, 4)."""

from __future__ import annotations

from functools import partial

import numpy as np

from ase_hmlp.analysis.pairs import pairs_within
from ase_hmlp.analysis.result import Column, Quantity, Result, Table
from ase_hmlp.analysis.statistics import BlockedMean
from ase_hmlp.analysis.streaming import Analysis
from ase_hmlp.analysis.trajectory import Snapshot, Trajectory
from ase_hmlp.errors import AnalysisError

#: Rows of `pair_counts`.
BONDED, ATOM_ATOM, ATOM_MOLECULE, MOLECULE_MOLECULE = range(4)

#: Columns of tables, of `PairDistributions.result`.
NAMES = ("atom_atom", "atom_atom_intermolecular", "atom_molecule", "molecule_molecule")

#: A peak is where a parabola through the points above this share of its height has its top.
TOP = 0.85


def pair_counts(positions, centres, molecules, cell, pbc, cutoff, bins, longest) -> np.ndarray:
    """Histogram the distances of ordered pairs of atoms and molecular centres, by kind.

    Parameters
    ----------
    positions : (n, 3) Å
    centres : (m, 3) Å
    molecules : (m, 2) atom indices
    cell : (3, 3) Å, completed where not periodic
    pbc : three booleans
    cutoff : float, Å
    bins : int
        Of equal width from 0 to `cutoff`.
    longest : float, Å
        Atoms of one molecule closer than this are bonded, not images of each other.

    Returns
    -------
    (4, bins) array
        Rows `BONDED` atoms, other `ATOM_ATOM` pairs, `ATOM_MOLECULE` without each atom's own, and
        `MOLECULE_MOLECULE`.
    """
    n = len(positions)
    owner = np.concatenate([np.full(n, -1), np.arange(len(centres))])
    owner[molecules] = np.arange(len(molecules))[:, None]
    counts = np.zeros(4 * bins)
    for pairs in pairs_within(np.concatenate([positions, centres]), cell, pbc, cutoff):
        from_centre, to_centre = pairs.i >= n, pairs.j >= n
        kind = np.where(to_centre, np.where(from_centre, MOLECULE_MOLECULE, ATOM_MOLECULE), 1)
        own = (owner[pairs.i] == owner[pairs.j]) & (owner[pairs.i] >= 0)
        own &= (from_centre != to_centre) & (pairs.distances < 0.5 * longest) | (
            (kind == ATOM_ATOM) & (pairs.distances < longest)
        )
        kind[own] = BONDED
        # A centre with an atom is the same pair from its other end; with its own, none.
        kept = ~(from_centre & ~to_centre) & ~(own & to_centre)
        # Rounding must not put a distance just below the cutoff beyond the last bin.
        where = np.minimum((pairs.distances * (bins / cutoff)).astype(np.intp), bins - 1)
        counts += np.bincount((kind * bins + where)[kept], minlength=4 * bins)
    return counts.reshape(4, bins)


def first_peak(r, g) -> tuple[float, float]:
    """Position and height of the first peak: of the first stretch above 1.

    Parameters
    ----------
    r, g : (n,) arrays

    Returns
    -------
    position, height : float
        NaN where there is none.
    """
    smooth = np.convolve(np.pad(g, 1, mode="edge"), (0.25, 0.5, 0.25), mode="valid")
    above = smooth > 1.0
    if not above.any():
        return float("nan"), float("nan")
    start = int(above.argmax())
    below = ~above[start:]
    end = start + int(below.argmax()) if below.any() else len(r)
    top = start + int(smooth[start:end].argmax())
    if not 0 < top < len(r) - 1:
        return float("nan"), float("nan")
    low = high = top
    while low > 0 and smooth[low - 1] > TOP * smooth[top]:
        low -= 1
    while high < len(r) - 1 and smooth[high + 1] > TOP * smooth[top]:
        high += 1
    around = slice(min(low, top - 1), max(high, top + 1) + 1)
    curvature, slope, offset = np.polyfit(r[around] - r[top], g[around], 2)
    if curvature >= 0.0:
        return float(r[top]), float(g[top])
    shift = -0.5 * slope / curvature
    return float(r[top] + shift), float(offset + 0.5 * slope * shift)


class PairDistributions(Analysis):
    """g(r) of atoms with atoms, atoms with molecular centres, and centres with centres.

    Normalised by the mean density of the cell, so that far away g is 1, in an ideal gas of N
    particles (N - 1) / N. Any cell; beyond half of the smallest distance between its faces
    particles meet images of others they have met already.

    Parameters
    ----------
    cutoff : float, Å, optional
        Half of the smallest distance between faces of the first cell if not given.
    width : float, Å
        Of a bin.
    molecular : bool
        False for atoms that form no molecules: atom-atom only.
    """

    name = "rdf"

    def __init__(self, cutoff: float | None = None, width: float = 0.02, molecular: bool = True):
        if cutoff is not None and not 0.0 < cutoff < np.inf:
            raise AnalysisError(f"The cutoff must be positive, not {cutoff} Å.")
        if not 0.0 < width < np.inf:
            raise AnalysisError(f"Bins must have a positive width, not {width} Å.")
        self.cutoff, self.width, self.molecular = cutoff, float(width), molecular
        self._cutoff = 0.0  # chosen at the start
        self._distributions, self._scaled = BlockedMean(), BlockedMean()

    def parameters(self) -> dict:
        """Settings, for the record."""
        return {"cutoff_A": self._cutoff, "width_A": self.width, "molecular": self.molecular}

    def start(self, trajectory: Trajectory) -> None:
        """Choose cutoff and bins."""
        self._longest = trajectory.longest
        self._cutoff = self.cutoff or 0.0
        if self.cutoff is None:
            if not trajectory.first.pbc.all():
                raise AnalysisError(
                    "Radial distribution functions need a cell that is periodic in all directions."
                )
            faces = 1.0 / np.linalg.norm(np.linalg.inv(trajectory.first.cell.array), axis=0)
            self._cutoff = 0.5 * float(faces.min())
        self._bins = round(self._cutoff / self.width)
        if self._bins < 3:
            raise AnalysisError(
                f"Bins of {self.width:g} Å are too wide for distances up to {self._cutoff:.3g} Å."
            )

    def add(self, snapshot: Snapshot) -> None:
        """Take in a frame."""
        rows = self._relative_densities(snapshot, self._cutoff)
        self._distributions.add(rows)
        if not self.molecular:
            return
        spacing = (snapshot.volume / len(snapshot.molecules)) ** (1 / 3)
        if not self._scaled.samples:
            self._reach = self._cutoff / spacing
        cutoff = self._reach * spacing
        # At constant volume they are the same.
        same = abs(cutoff / self._cutoff - 1.0) < 1e-12
        self._scaled.add(rows if same else self._relative_densities(snapshot, cutoff))

    def _relative_densities(self, snapshot: Snapshot, cutoff: float) -> list[np.ndarray]:
        """All g(r) of a frame, in the order of `NAMES`, in bins up to a cutoff (Å)."""
        n, m = len(snapshot), len(snapshot.molecules)
        counts = pair_counts(
            snapshot.positions,
            snapshot.centres,
            snapshot.molecules,
            snapshot.cell,
            snapshot.pbc,
            cutoff,
            self._bins,
            self._longest,
        )
        edges = np.linspace(0.0, cutoff, self._bins + 1)
        per_density = 4.0 * np.pi / 3.0 * np.diff(edges**3) / snapshot.volume
        atoms = [(counts[BONDED] + counts[ATOM_ATOM]) / (n * n * per_density)]
        if not self.molecular:
            return atoms
        return [
            *atoms,
            counts[ATOM_ATOM] / (n * n * per_density),
            counts[ATOM_MOLECULE] / (n * m * per_density),
            counts[MOLECULE_MOLECULE] / (m * m * per_density),
        ]

    def result(self) -> Result:
        """First peaks as quantities; tables ``rdf`` and, in units of density, ``scaled``."""
        r = _middles(self._cutoff, self._bins)
        columns = _columns(self._distributions)
        quantities: list[Quantity] = []
        tables = [Table(self.name, (Column("r_A", r, "r (Å)"), *columns), "g(r)")]
        for row in (1, 3) if self.molecular else (0,):
            peak, error = self._distributions.jackknife(partial(_peak_of_row, r, row))
            name = columns[row].label
            quantities.append(Quantity(f"first peak, {name}", peak[0], error[0], "Å"))
            quantities.append(Quantity(f"its height, {name}", peak[1], error[1], ""))
        if self.molecular:
            x = _middles(self._reach, self._bins)
            along = Column("r_scaled", x, "r × (molecules per volume)$^{1/3}$")
            tables.append(Table("scaled", (along, *_columns(self._scaled)), "g(r)"))
        return Result(self.name, "Radial distribution functions", tuple(quantities), tuple(tables))


def _columns(distributions: BlockedMean) -> list[Column]:
    return [
        Column(name, g, name.replace("_", "–", 1).replace("_", ", "), error)
        for name, g, error in zip(NAMES, distributions.mean, distributions.error, strict=False)
    ]


def _peak_of_row(r, row: int, g) -> np.ndarray:
    return np.array(first_peak(r, g[row]))


def _middles(end: float, bins: int) -> np.ndarray:
    return end / bins * (0.5 + np.arange(bins))
