"""What the levels see of a structure, kept up to date with a skin from step to step."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from ase_hmlp.molecules import bond_shifts
from ase_hmlp.neighbors import NeighbourList, neighbour_list

#: How far (Å) the list reaches beyond the cutoff, so that it outlives many steps.
SKIN = 0.6

#: An atom that moved farther (Å) may have been put elsewhere by a cell vector: no cell of molecules
#: is so narrow.
WRAPPED = 1.0


def default_threads() -> int:
    """Threads to use unless told: ``OMP_NUM_THREADS``, else every core this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Forked:
    """Whether this process is a fork of one that had shared loops among threads.

    GNU's OpenMP keeps its threads for the next loop; a fork does not have them, and its first
    shared loop would wait for them for ever.
    """

    shared = False
    here = False

    @classmethod
    def note(cls) -> None:
        """Called in a process that has just been forked."""
        cls.here = cls.shared


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Forked.note)


def usable_threads(threads: int) -> int:
    """Threads that this process can share loops among: one, where a fork has lost them."""
    if _Forked.here:
        return 1
    _Forked.shared |= threads > 1
    return threads


@dataclass
class Geometry:
    """What the levels see of a structure; n atoms, m molecules.

    Attributes
    ----------
    positions : (n, 3) Å
    molecules : (m, 2) atom indices
    bonds : (m, 3) Å, from the first atom of each molecule to the second
    bond_length : (m,) Å
    pairs : NeighbourList
        Of bond midpoints (not centres of mass: HD has the same potential as H2), each pair of
        molecules once.
    threads : int
    """

    positions: np.ndarray
    molecules: np.ndarray
    bonds: np.ndarray
    bond_length: np.ndarray
    pairs: NeighbourList
    threads: int = 1

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.positions)

    @property
    def axes(self) -> np.ndarray:
        """Unit vectors (m, 3) along the bonds."""
        return self.bonds / self.bond_length[:, None]


class GeometryTracker:
    """Turns positions into a `Geometry`, rebuilding the list of pairs only when it may be stale.

    Parameters
    ----------
    cutoff : float, Å, between the centres of molecules
    skin : float, Å
    """

    def __init__(self, cutoff: float, skin: float = SKIN):
        self.cutoff = cutoff
        self.skin = skin
        self.builds = 0
        # Positions, cell, pbc and molecules the list was built for.
        self._reference: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None = None
        self._cell: np.ndarray
        self._inverse: np.ndarray  # of the reference's cell
        self._bond_shifts: np.ndarray
        self._pairs: NeighbourList

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
        threads = usable_threads(threads)
        positions = np.array(positions, dtype=float, order="C")
        cell = np.array(cell, dtype=float, order="C")
        if not self._still_valid(positions, cell, pbc, molecules):
            self._rebuild(positions, cell, pbc, molecules, threads)
        elif not identical(cell, self._cell):
            # A new list: geometries handed out before keep their own shifts.
            self._pairs = self._pairs.strained(cell)
            self._cell = cell
        bonds = _bonds(positions, cell, molecules, self._bond_shifts)
        return Geometry(
            positions,
            molecules,
            bonds,
            np.sqrt(np.einsum("ij,ij->i", bonds, bonds)),
            self._pairs,
            threads,
        )

    def _still_valid(self, positions, cell, pbc, molecules) -> bool:
        """Whether no pair can have come within the cutoff that is not in the list.

        With the homogeneous part F of the deformation taken out, a pair closes by at most twice
        the largest displacement of a centre plus ||F - 1|| times its separation.
        """
        if self._reference is None:
            return False
        old_positions, old_cell, old_pbc, old_molecules = self._reference
        if (
            positions.shape != old_positions.shape
            or not identical(np.asarray(pbc, dtype=bool), old_pbc)
            or not identical(molecules, old_molecules)
        ):
            return False
        reach = self.cutoff + self.skin
        if identical(cell, old_cell):
            moved, stretch = positions - old_positions, 0.0
        else:
            deformation = self._inverse @ cell
            strain = (deformation - np.eye(3)).ravel()
            # Frobenius' norm, not below the spectral one and a fifth of its time.
            stretch = float(np.sqrt(strain @ strain))
            moved = positions - old_positions @ deformation
        if abs(moved).max() > WRAPPED:
            return False
        centres = moved[molecules[:, 0]] + moved[molecules[:, 1]]  # twice what they moved by
        largest = np.sqrt(np.einsum("ij,ij->i", centres, centres).max())
        return bool(largest + stretch * reach < self.skin)

    def _rebuild(self, positions, cell, pbc, molecules, threads: int) -> None:
        shifts = bond_shifts(positions, cell, pbc, molecules)
        centres = positions[molecules[:, 0]] + 0.5 * _bonds(positions, cell, molecules, shifts)
        self._pairs = NeighbourList.from_search(
            neighbour_list(centres, cell, pbc, self.cutoff + self.skin, True, threads), cell
        )
        self._bond_shifts = shifts
        self._cell = cell
        self._inverse = np.linalg.inv(cell)
        self._reference = (
            positions.copy(),
            cell.copy(),
            np.array(pbc, dtype=bool),
            molecules.copy(),
        )
        self.builds += 1


def identical(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are the same, bit by bit.

    For the few numbers of a cell in a tenth of the time of `numpy.array_equal`.
    """
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())


def _bonds(positions, cell, molecules, shifts) -> np.ndarray:
    """Bond vectors (m, 3), Å."""
    bonds = shifts @ cell
    bonds += positions[molecules[:, 1]]
    bonds -= positions[molecules[:, 0]]
    return bonds
