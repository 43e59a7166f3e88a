"""Close-packed layers of molecules: which way they are stacked, and whether as ABAB."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from ase_hmlp.errors import AnalysisError

#: A wave vector of layers has a structure factor of at least this.
_LAYERED = 0.4

#: In hcp only one pair of wave vectors is as strong as that; the next have 0.87 of it.
_UNIQUE = 0.95

#: Molecules, and wave vectors, that are left of a large crystal after a first look.
_SAMPLE, _PROMISING = 512, 16

#: How far the layer spacing may be off that of close-packed spheres.
_TOLERANCE = 0.12


@dataclass(frozen=True)
class Layers:
    """Two sublattices of layers that alternate.

    Attributes
    ----------
    normal : (3,) array
        Unit vector across the layers.
    basal : (2, 3) array
        Unit vectors in the layers, at right angles.
    signs : (m,) array
        1 and -1 for molecules in alternate layers.
    """

    normal: np.ndarray
    basal: np.ndarray
    signs: np.ndarray


def alternate_layers(centres, cell) -> Layers:
    """Find the layers of an hcp crystal, however it is turned.

    Layers scatter: among the cell's reciprocal vectors as long as the spacing of close-packed layers
    of this density asks for (2 pi / 0.816 a), hcp has one with a structure factor near 1, and no
    other above 0.87 times that. A face-centred crystal has four.

    Parameters
    ----------
    centres : (m, 3) array, Å
    cell : (3, 3) array, Å
        Periodic in all directions.

    Returns
    -------
    Layers

    Raises
    ------
    AnalysisError
        For a liquid, another lattice, or a cell that an odd number of layers fits in.
    """
    centres, cell = np.asarray(centres, dtype=float), np.asarray(cell, dtype=float)
    reciprocal = 2.0 * np.pi * np.linalg.inv(cell).T
    spacing = (abs(np.linalg.det(cell)) * np.sqrt(2.0) / len(centres)) ** (1 / 3) * np.sqrt(2 / 3)
    ideal = 2.0 * np.pi / spacing
    reach = np.ceil((1.0 + _TOLERANCE) * np.linalg.norm(cell, axis=1) / spacing).astype(int)
    indices = np.array(list(product(*(range(-n, n + 1) for n in reach))))
    vectors = indices @ reciprocal
    near = np.abs(np.linalg.norm(vectors, axis=1) / ideal - 1.0) <= _TOLERANCE
    # Of a vector and its opposite, one.
    h, k, l = indices.T
    half = (h > 0) | ((h == 0) & ((k > 0) | ((k == 0) & (l > 0))))
    indices, vectors = indices[near & half], vectors[near & half]
    # A sample of a large crystal tells which vectors are worth more work.
    sample = np.random.default_rng(0).permutation(len(centres))[:_SAMPLE]
    promising = np.argsort(-_structure_factors(centres[sample], vectors))[:_PROMISING]
    indices, vectors = indices[promising], vectors[promising]
    factors = _structure_factors(centres, vectors)
    order = np.argsort(-factors)
    if not len(order) or factors[order[0]] < _LAYERED:
        raise AnalysisError(
            "The molecules are in no layers: this is no hcp crystal (a liquid, or another lattice)."
        )
    if len(order) > 1 and factors[order[1]] > _UNIQUE * factors[order[0]]:
        raise AnalysisError(
            "The molecules are in layers along several directions, as in a face-centred crystal: "
            "only hcp has one stacking direction."
        )
    best = order[0]
    if (indices[best] % 2).any():
        raise AnalysisError(
            "The cell holds an odd number of layers: they cannot alternate as in hcp."
        )
    q = vectors[best]
    phase = np.exp(1j * (centres @ q)).mean()
    layer = np.round((centres @ q - np.angle(phase)) / (2.0 * np.pi)).astype(int)
    signs = np.where(layer % 2, -1.0, 1.0)
    if signs.sum():
        raise AnalysisError(
            f"Of alternate layers one holds {int(abs(signs.sum()))} molecules more than the other: "
            "this is no perfect hcp crystal."
        )
    normal = q / np.linalg.norm(q)
    basal = np.linalg.svd(normal[None])[2][1:]
    return Layers(normal, basal, signs)


def _structure_factors(centres, vectors) -> np.ndarray:
    """Magnitudes (k,), one where all centres scatter in phase."""
    return np.array([abs(np.exp(1j * (centres @ q)).mean()) for q in vectors])
