"""Which supercells of a unit cell a crystal's cell may be, however it is turned."""

from __future__ import annotations

import numpy as np

#: Candidates that are looked at, the least strained.
MOST = 64

#: Triples of lattice vectors among which there would be too much to look for.
MOST_TRIPLES = 2e7


def strain(matrix, unit, cell) -> np.ndarray:
    """How far cells are off the shape of supercells: the largest relative stretch, volume apart.

    Parameters
    ----------
    matrix : (..., 3, 3) integers
        Supercell vectors in those of the unit cell.
    unit, cell : (3, 3) arrays, Å

    Returns
    -------
    (...) array
    """
    stretches = np.linalg.svd(np.linalg.solve(matrix @ unit, cell), compute_uv=False)
    mean = np.cbrt(stretches.prod(axis=-1, keepdims=True))
    return abs(stretches / mean - 1.0).max(axis=-1)


def supercell_matrices(cell, unit, size: int, most_strain: float) -> np.ndarray:
    """Find the integer matrices that make a crystal's cell of a unit cell.

    The crystal may be turned, compressed and strained. A lattice with rotations has several of
    these matrices, which differ in where a basis would go.

    Parameters
    ----------
    cell, unit : (3, 3) arrays, Å
    size : int
        Unit cells in the crystal's cell.
    most_strain : float
        See `strain`.

    Returns
    -------
    (k, 3, 3) array of integers
        Up to `MOST`, the least strained first; none where the search would take too long.
    """
    cell, unit = np.asarray(cell, dtype=float), np.asarray(unit, dtype=float)
    scaled = unit * np.cbrt(abs(np.linalg.det(cell) / (size * np.linalg.det(unit))))
    lengths = np.linalg.norm(cell, axis=1)
    longest = (1.0 + most_strain) * lengths.max()
    reach = np.ceil(longest * np.linalg.norm(np.linalg.inv(scaled), axis=0)).astype(int)
    grid = np.indices(2 * reach + 1).reshape(3, -1).T - reach
    sizes = np.linalg.norm(grid @ scaled, axis=1)
    near = [grid[abs(sizes / length - 1.0) < most_strain] for length in lengths]
    # Of the pairs and triples of vectors, this share has angles that are near enough.
    if np.prod([float(len(some)) for some in near]) * (2.0 * most_strain) ** 3 > MOST_TRIPLES:
        return np.zeros((0, 3, 3), dtype=int)
    hand = np.sign(np.linalg.det(cell) * np.linalg.det(unit))
    found = [np.zeros((0, 3, 3), dtype=int)]
    for first in near[0]:
        second, third = (
            near[k][_angle_off(first, near[k], scaled, cell[0], cell[k]) < 2.0 * most_strain]
            for k in (1, 2)
        )
        normals = np.cross(first, second)
        volumes = normals @ third.T
        j, k = np.nonzero(volumes == hand * size)
        triples = np.stack([np.broadcast_to(first, (len(j), 3)), second[j], third[k]], axis=1)
        found.append(triples[strain(triples, unit, cell) < most_strain])
    matrices = np.concatenate(found)
    return matrices[np.argsort(strain(matrices, unit, cell), kind="stable")[:MOST]]


def _angle_off(first, others, unit, a, b) -> np.ndarray:
    """Difference of cosines (k,): between a lattice vector and others, and between two vectors."""
    u, v = first @ unit, others @ unit
    cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return abs(v @ u / (np.linalg.norm(u) * np.linalg.norm(v, axis=1)) - cosine)
