"""What the levels see of a structure, kept up to date with a skin from step to step."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from ase_hmlp._core.evaluate import axes_of
from ase_hmlp.molecules import bond_shifts
from ase_hmlp.neighbors import NeighbourList, neighbour_list

#: How far (Å) the lists reach beyond the cutoff, so that they outlive many steps.
SKIN = 0.4


def default_threads() -> int:
    """Threads to use unless told: ``OMP_NUM_THREADS``, else every core this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class Geometry:
    """What the levels see of a structure; n atoms, m molecules.

    Attributes
    ----------
    positions : (n, 3) Å
    molecules : (m, 2) atom indices
    bonds : (m, 3) Å, from the first atom of each molecule to the second
    axes : (m, 4), unit vector and length (Å) of each bond
    centres : (m, 3) Å, bond midpoints (not centres of mass: HD has the same potential as H2)
    bond_length : (n,) Å, of the molecule each atom is in
    pairs, centre_pairs : NeighbourList of atoms without their partners, and of centres
    threads : int
    """

    positions: np.ndarray
    molecules: np.ndarray
    bonds: np.ndarray
    axes: np.ndarray
    centres: np.ndarray
    bond_length: np.ndarray
    pairs: NeighbourList
    centre_pairs: NeighbourList
    threads: int = 1

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.positions)


class GeometryTracker:
    """Turns positions into a `Geometry`, rebuilding neighbour lists only when they may be stale.

    Parameters
    ----------
    pair_cutoff, centre_cutoff : float, Å
    skin : float, Å
    """

    def __init__(self, pair_cutoff: float, centre_cutoff: float, skin: float = SKIN):
        self.pair_cutoff = pair_cutoff
        self.centre_cutoff = centre_cutoff
        self.skin = skin
        self.builds = 0
        # Positions, cell, pbc and molecules the lists were built for.
        self._reference: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None = None
        self._cell: np.ndarray
        self._bond_shifts: np.ndarray
        self._pairs: NeighbourList
        self._centre_pairs: NeighbourList

    def update(self, positions, cell, pbc, molecules, threads: int = 1) -> Geometry:
        """Geometry of the given structure.

        Parameters
        ----------
        positions : (n, 3) Å
        cell : (3, 3) Å, non-singular (see `complete_cell`)
        pbc : three booleans
        molecules : (m, 2) atom indices
        threads : int
        """
        positions = np.array(positions, dtype=float, order="C")
        cell = np.array(cell, dtype=float, order="C")
        if not self._still_valid(positions, cell, pbc, molecules):
            self._rebuild(positions, cell, pbc, molecules)
        elif not np.array_equal(cell, self._cell):
            # New lists: geometries handed out before keep their own shifts.
            self._pairs = self._pairs.strained(cell)
            self._centre_pairs = self._centre_pairs.strained(cell)
            self._cell = cell
        a, b = molecules.T
        bonds = np.ascontiguousarray(positions[b] + self._bond_shifts @ cell - positions[a])
        axes = axes_of(bonds)
        bond_length = np.empty(len(positions))
        bond_length[molecules] = axes[:, 3:]
        return Geometry(
            positions,
            molecules,
            bonds,
            axes,
            np.ascontiguousarray(positions[a] + 0.5 * bonds),
            bond_length,
            self._pairs,
            self._centre_pairs,
            threads,
        )

    def _still_valid(self, positions, cell, pbc, molecules) -> bool:
        """Whether no pair can have come within the cutoff that is not in the lists.

        With the homogeneous part F of the deformation taken out, a pair closes by at most twice
        the largest displacement plus ||F - 1|| times its separation.
        """
        if self._reference is None:
            return False
        old_positions, old_cell, old_pbc, old_molecules = self._reference
        if (
            positions.shape != old_positions.shape
            or not np.array_equal(pbc, old_pbc)
            or not np.array_equal(molecules, old_molecules)
        ):
            return False
        reach = max(self.pair_cutoff, self.centre_cutoff) + self.skin
        if np.array_equal(cell, old_cell):
            moved, stretch = positions - old_positions, 0.0
        else:
            deformation = np.linalg.solve(old_cell, cell)
            stretch = float(np.linalg.norm(deformation - np.eye(3), 2))
            moved = positions - old_positions @ deformation
        largest = np.sqrt((moved * moved).sum(axis=1).max())
        return bool(2.0 * largest + stretch * reach < self.skin)

    def _rebuild(self, positions, cell, pbc, molecules) -> None:
        shifts = bond_shifts(positions, cell, pbc, molecules)
        a, b = molecules.T
        centres = positions[a] + 0.5 * (positions[b] + shifts @ cell - positions[a])
        first, index, shift = neighbour_list(positions, cell, pbc, self.pair_cutoff + self.skin)
        partner = np.empty(len(positions), dtype=np.intc)
        own_shift = np.empty((len(positions), 3), dtype=np.intc)
        partner[a], partner[b], own_shift[a], own_shift[b] = b, a, shifts, -shifts
        counts = np.diff(first)
        owner = np.repeat(np.arange(len(positions)), counts)
        bonded = index == partner[owner]
        bonded[bonded] = (shift[bonded] == own_shift[owner[bonded]]).all(axis=1)
        removed = np.bincount(owner[bonded], minlength=len(positions))
        first = np.concatenate([[0], np.cumsum(counts - removed)]).astype(np.intc)
        self._pairs = NeighbourList.from_search((first, index[~bonded], shift[~bonded]), cell)
        self._centre_pairs = NeighbourList.from_search(
            neighbour_list(centres, cell, pbc, self.centre_cutoff + self.skin), cell
        )
        self._bond_shifts = shifts
        self._cell = cell
        self._reference = (
            positions.copy(),
            cell.copy(),
            np.array(pbc, dtype=bool),
            molecules.copy(),
        )
        self.builds += 1
