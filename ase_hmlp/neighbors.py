"""Neighbour lists for any cell: triclinic, mixed periodicity, smaller than the cutoff."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ase_hmlp._core.neighbor_search import number_shifts, search, shift_range
from ase_hmlp.errors import CellError

#: Shifts are numbered without looking which there are up to this many.
MOST_SHIFTS = 20_000


def complete_cell(cell, pbc) -> np.ndarray:
    """Replace non-periodic cell vectors by unit vectors normal to the rest.

    Raises
    ------
    CellError
        If the periodic vectors are zero or span no volume.
    """
    cell = np.array(cell, dtype=float)
    periodic = np.flatnonzero(pbc)
    kept = cell[periodic]
    sizes = np.linalg.norm(kept, axis=1)
    # The volume spanned, relative to a rectangular box of the same edges.
    if len(kept) and (
        (sizes < 1e-6).any() or np.linalg.svd(kept / sizes[:, None], compute_uv=False)[-1] < 1e-6
    ):
        raise CellError(
            f"The cell has no volume along its periodic directions {periodic.tolist()}: "
            f"{np.round(cell, 4).tolist()}."
        )
    missing = np.flatnonzero(~np.asarray(pbc, dtype=bool))
    if len(missing):
        rows = np.linalg.svd(kept, full_matrices=True)[2] if len(kept) else np.eye(3)
        cell[missing] = rows[len(kept) :]
    return cell


def neighbour_list(positions, cell, pbc, cutoff: float, half: bool = False, threads: int = 1):
    """All ordered pairs within `cutoff`, or half: `ase_hmlp._core.neighbor_search.search`."""
    cell = np.ascontiguousarray(cell, dtype=float)
    inverse = np.linalg.inv(cell)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    return search(
        np.ascontiguousarray(positions, dtype=float),
        cell,
        np.ascontiguousarray(inverse),
        heights,
        pbc,
        cutoff,
        half,
        threads,
    )


@dataclass
class NeighbourList:
    """Neighbour list in compressed rows.

    ``points[index[p]] + shifts[shift_id[p]] - points[i]`` for p in ``first[i]:first[i + 1]``.
    """

    first: np.ndarray
    index: np.ndarray
    shift_id: np.ndarray
    integer_shifts: np.ndarray
    shifts: np.ndarray

    @classmethod
    def from_search(cls, found, cell) -> NeighbourList:
        """Number the distinct shifts, so that a strained cell costs one small product.

        Parameters
        ----------
        found : first, index, shift as `neighbour_list` returns them
        cell : (3, 3) Å
        """
        first, index, shift = found
        low, span = np.zeros(3, dtype=np.int64), np.ones(3, dtype=np.int64)
        if len(shift):
            low, high = shift_range(shift)
            span = high - low + 1
        if span.prod(dtype=float) <= MOST_SHIFTS:
            # All there could be: cheaper than finding out which there are.
            unique = np.indices(span.tolist()).reshape(3, -1).T + low
            shift_id = number_shifts(shift, low, span)
        else:  # atoms never wrapped get far
            unique, inverse = np.unique(shift, axis=0, return_inverse=True)
            shift_id = inverse.astype(np.intc).ravel()
        unique = unique.astype(float)
        return cls(first, index, shift_id, unique, np.ascontiguousarray(unique @ cell))

    def strained(self, cell) -> NeighbourList:
        """The same pairs in a changed cell."""
        return replace(self, shifts=np.ascontiguousarray(self.integer_shifts @ cell))

    @property
    def args(self) -> tuple:
        """Arguments in the order the core's loops take them."""
        return self.first, self.index, self.shift_id, self.shifts
