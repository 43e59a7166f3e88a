"""Neighbour lists for any cell: triclinic, mixed periodicity, smaller than the cutoff."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ase_hmlp._core.neighbor_search import search
from ase_hmlp.errors import CellError


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


def neighbour_list(positions, cell, pbc, cutoff: float):
    """All ordered pairs within `cutoff`; see `ase_hmlp._core.neighbor_search.search`."""
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
    )


@dataclass
class NeighbourList:
    """Full neighbour list in compressed rows.

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
        unique = np.zeros((1, 3))
        shift_id = np.zeros(0, dtype=np.intc)
        if len(shift):
            # Shifts are few: encode them as one integer, which sorts much faster than rows.
            # 64 bits: spans multiply, and atoms never wrapped get far.
            shift = shift.astype(np.int64)
            low = shift.min(axis=0)
            span = shift.max(axis=0) - low + 1
            code = (shift - low) @ np.array([span[1] * span[2], span[2], 1])
            distinct, inverse = np.unique(code, return_inverse=True)
            unique = np.array(np.unravel_index(distinct, span), dtype=float).T + low
            shift_id = inverse.astype(np.intc).ravel()
        return cls(
            first,
            index,
            shift_id,
            unique,
            np.ascontiguousarray(unique @ cell),
        )

    def strained(self, cell) -> NeighbourList:
        """The same pairs in a changed cell."""
        return replace(self, shifts=np.ascontiguousarray(self.integer_shifts @ cell))

    @property
    def args(self) -> tuple:
        """Arguments in the order the core's loops take them."""
        return self.first, self.index, self.shift_id, self.shifts
