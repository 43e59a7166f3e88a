"""Which molecule of a crystal sits on which site of a reference cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from ase import Atoms
from scipy.linalg import polar

from ase_hmlp.analysis.supercell_matrices import strain, supercell_matrices
from ase_hmlp.analysis.trajectory import Snapshot, Trajectory
from ase_hmlp.errors import HMLPError, ReferenceMismatchError

#: A centre farther from its site than this share of the nearest-neighbour distance of a close
#: packing is nearer to another's.
FARTHEST = 0.5

#: A unit cell stretched along any direction by more than this share, against one of the same shape
#: and volume, is another lattice.
STRAIN = 0.2

#: Other supercells than multiples are looked for up to these strains, in turn. Those whose strains
#: differ by less than `SAME_STRAIN` are the same lattice, turned by one of its symmetries.
STRAINS, SAME_STRAIN = (0.03, 0.1), 0.02

#: Molecules aligned with the reference to this degree (mean second Legendre polynomial) are on the
#: right sites, and one supercell fits clearly better than another by this.
ALIGNED, CLEAR = 0.5, 0.2


@dataclass(frozen=True, eq=False)
class ReferenceLattice:
    """A crystal as a supercell of a reference cell: c unit cells of b molecules.

    Attributes
    ----------
    matrix : (3, 3) integers
        The crystal's cell is this matrix times the (deformed) reference cell.
    molecules : (c, b) integers
        The molecule in each unit cell on each site of the basis.
    cells : (c, 3) integers
        Unit cells, in vectors of the reference cell.
    sites : (c, b, 3)
        Sites in fractions of the crystal's cell, each within half a cell of the molecule's centre.
    axes : (b, 3) unit vectors
        The reference's molecular axes, turned as the crystal's cell is.
    """

    matrix: np.ndarray
    molecules: np.ndarray
    cells: np.ndarray
    sites: np.ndarray
    axes: np.ndarray

    def displacements(self, snapshot: Snapshot) -> np.ndarray:
        """Displacements of the centres from their sites (c, b, 3), Å, the common drift included."""
        fractional = np.linalg.solve(snapshot.cell.T, snapshot.centres.T).T
        return (fractional[self.molecules] - self.sites) @ snapshot.cell

    def separations(self, cell) -> tuple[np.ndarray, np.ndarray]:
        """Shortest lattice vectors between unit cells in a crystal's cell.

        Parameters
        ----------
        cell : (3, 3) Å

        Returns
        -------
        vectors : (d, 3) Å
            One for every difference of two unit cells.
        which : (c, c) integers
            ``vectors[which[i, j]]`` leads from unit cell i to j.
        """
        inverse = np.linalg.inv(self.matrix)
        size = len(self.cells)
        difference = (self.cells[None] - self.cells[:, None]) @ inverse
        # Multiples of 1/c: as whole numbers they can be compared.
        keys = np.round(difference * size).astype(int) % size
        code = keys @ np.array([size * size, size, 1])
        distinct, which = np.unique(code, return_inverse=True)
        fractional = np.array(np.unravel_index(distinct, (size,) * 3)).T / size
        images = np.array(list(product((-1, 0, 1), repeat=3)))
        fractional -= np.round(fractional)
        vectors = (fractional[:, None] + images) @ cell
        shortest = (vectors**2).sum(axis=2).argmin(axis=1)
        return vectors[np.arange(len(vectors)), shortest], which.reshape(size, size)


def match_reference(snapshot: Snapshot, reference: Atoms, repeat=None) -> ReferenceLattice:
    """Assign every molecule of a crystal to a site of a reference cell.

    The crystal may be strained, turned and shifted against the reference, and its atoms in any
    order.

    Parameters
    ----------
    snapshot : Snapshot
        Of the crystal.
    reference : ase.Atoms
        The unit cell with its molecules, periodic.
    repeat : three integers or (3, 3) integers, optional
        The crystal's cell vectors in those of the reference. If not given, multiples of the
        reference's own vectors that come closest to the crystal's shape; or, where these do not
        fit, or leave the molecules' axes off the reference's, any supercell in which they fit
        better.

    Raises
    ------
    ReferenceMismatchError
    """
    try:
        (unit,) = Trajectory(reference)
    except HMLPError as error:
        raise ReferenceMismatchError(f"The reference cell cannot be used: {error}") from error
    if not unit.pbc.all() or not snapshot.pbc.all():
        raise ReferenceMismatchError(
            "Crystal and reference cell must be periodic in all directions."
        )
    size, rest = divmod(len(snapshot.molecules), len(unit.molecules))
    if rest:
        raise ReferenceMismatchError(
            f"{snapshot.where} has {len(snapshot.molecules)} molecules, which is no multiple of "
            f"the reference cell's {len(unit.molecules)}."
        )
    if repeat is not None:
        return _assigned(snapshot, unit, _given(snapshot, size, repeat))
    return _best_assigned(snapshot, unit, size)


def _best_assigned(snapshot: Snapshot, unit: Snapshot, size: int) -> ReferenceLattice:
    best = None
    try:
        best = _assigned(snapshot, unit, _closest_multiples(snapshot, unit, size))
    except ReferenceMismatchError as error:
        refusal = error
    if best is not None and _alignment(snapshot, best) > ALIGNED:
        return best
    for most in STRAINS:
        others = _others(snapshot, unit, size, most)
        if others:
            other = max(others, key=partial(_alignment, snapshot))
            if best is None or _alignment(snapshot, other) > _alignment(snapshot, best) + CLEAR:
                return other
            break
    if best is None:
        raise refusal
    return best


def _others(snapshot: Snapshot, unit: Snapshot, size: int, most: float) -> list[ReferenceLattice]:
    """The least strained supercells in which all molecules have sites."""
    found, limit = [], np.inf
    for matrix in supercell_matrices(snapshot.cell, unit.cell, size, most):
        off = float(strain(matrix, unit.cell, snapshot.cell))
        if off > limit:
            break
        try:
            found.append(_assigned(snapshot, unit, matrix))
        except ReferenceMismatchError:
            continue
        limit = min(limit, off + SAME_STRAIN)
    return found


def _alignment(snapshot: Snapshot, lattice: ReferenceLattice) -> float:
    """Mean second Legendre polynomial of the angles between molecules and the reference's axes."""
    cosines = np.einsum("xbc,bc->xb", snapshot.axes[lattice.molecules], lattice.axes)
    return float(1.5 * np.mean(cosines**2) - 0.5)


def _assigned(snapshot: Snapshot, unit: Snapshot, matrix: np.ndarray) -> ReferenceLattice:
    size = len(snapshot.molecules) // len(unit.molecules)
    off = strain(matrix, unit.cell, snapshot.cell)
    if not off < STRAIN:
        raise ReferenceMismatchError(
            f"{snapshot.where} is no {_multiples(matrix)} supercell of the reference: its shape is "
            f"off by {100.0 * off:.0f} %."
        )
    turn, _ = polar(np.linalg.solve(matrix @ unit.cell, snapshot.cell))
    basis = np.linalg.solve(unit.cell.T, unit.centres.T).T
    fractional = np.linalg.solve(snapshot.cell.T, snapshot.centres.T).T @ matrix
    small = np.linalg.solve(matrix, snapshot.cell)  # the crystal's own unit cell
    nearest = (np.sqrt(2.0) * snapshot.volume / len(snapshot.molecules)) ** (1 / 3)
    shift, site, distance = _best_shift(fractional, basis, small)
    if distance.max() > FARTHEST * nearest:
        raise ReferenceMismatchError(
            f"{snapshot.where} is no {_multiples(matrix)} supercell of the reference: a molecule "
            f"is {distance.max():.2f} Å from the nearest site."
        )
    cells = np.round(fractional - basis[site] - shift).astype(int)
    keys = np.round(cells @ np.linalg.inv(matrix) * size).astype(int) % size
    order = np.lexsort((site, *keys.T))
    molecules = order.reshape(size, -1)
    same_cell = (keys[molecules] == keys[molecules[:, :1]]).all()
    if not same_cell or not (site[molecules] == np.arange(len(basis))).all():
        raise ReferenceMismatchError(
            f"{snapshot.where} is no {_multiples(matrix)} supercell of the reference: two "
            "molecules are nearest to one site."
        )
    # Unit cells as they lie nearest to the molecules on each site, images included.
    sites = (cells[molecules] + basis + shift) @ np.linalg.inv(matrix)
    return ReferenceLattice(matrix, molecules, cells[molecules[:, 0]], sites, unit.axes @ turn)


def _given(snapshot: Snapshot, size: int, repeat) -> np.ndarray:
    matrix = np.asarray(repeat)
    matrix = np.diag(matrix) if matrix.ndim == 1 else matrix
    if matrix.shape != (3, 3) or matrix.dtype.kind not in "iu":
        raise ReferenceMismatchError(
            "A supercell is three multiples or a 3 x 3 matrix, all whole numbers."
        )
    cells = round(abs(np.linalg.det(matrix)))
    if cells != size:
        raise ReferenceMismatchError(
            f"{_multiples(matrix)} reference cells are {cells}, but {snapshot.where} has "
            f"{size} times the reference's molecules."
        )
    return matrix


def _closest_multiples(snapshot: Snapshot, unit: Snapshot, size: int) -> np.ndarray:
    lengths = np.linalg.norm(snapshot.cell, axis=1) / np.linalg.norm(unit.cell, axis=1)
    trials = [
        (i, j, size // (i * j))
        for i in range(1, size + 1)
        if size % i == 0
        for j in range(1, size // i + 1)
        if size // i % j == 0
    ]
    # A common factor, the compression, is free.
    ratios = np.log(lengths / np.array(trials))
    return np.diag(trials[int(ratios.var(axis=1).argmin())])


def _best_shift(fractional, basis, cell):
    """Shift of a lattice with a basis that puts sites on centres.

    Returns
    -------
    shift (3,), the site each centre is nearest to (m,), and its distance (m,) in Å.
    """
    best = (np.inf,)
    for start in fractional[0] - basis:
        shift = start
        for _ in range(3):
            residual = fractional[:, None] - basis - shift
            residual -= np.round(residual)
            squared = ((residual @ cell) ** 2).sum(axis=2)
            site = squared.argmin(axis=1)
            rows = np.arange(len(site))
            found = (squared[rows, site].mean(), shift, site, np.sqrt(squared[rows, site]))
            if found[0] < best[0]:
                best = found
            shift = shift + residual[rows, site].mean(axis=0)
    return best[1:]


def _multiples(matrix) -> str:
    if (matrix == np.diag(np.diag(matrix))).all():
        return " x ".join(str(k) for k in np.diag(matrix))
    return str(matrix.tolist())
