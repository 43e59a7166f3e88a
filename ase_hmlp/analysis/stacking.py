"""Close-packed layers of molecules: which way they are stacked, and whether as ABAB."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from ase_hmlp.errors import AnalysisError

#: A wave vector of layers has a structure factor of at least this.
_LAYERED = 0.4

#: Of others only those at least this strong relative to the strongest are looked at; in hcp the
#: next have 0.87 of it, and displaced molecules may make them stronger.
_AS_STRONG = 0.8

#: Two layers on, most molecules are above a site to this share of the layer spacing; where layers
#: follow one another as ABC, the nearest is 0.7 away.
_SAME_SITE, _MOST = 0.5, 0.9

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
    unique : bool
        No other layers alternate, too.
    """

    normal: np.ndarray
    basal: np.ndarray
    signs: np.ndarray
    unique: bool


def alternate_layers(centres, cell) -> Layers:
    """Find the layers of an hcp crystal, however it is turned.

    Layers scatter: of the cell's reciprocal vectors as long as the spacing of close-packed layers
    of this density asks for (2 pi / 0.816 a), it is the one with the largest structure factor for
    which every other layer is above the first.

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
    leading = np.take_along_axis(indices, (indices != 0).argmax(axis=1)[:, None], axis=1)[:, 0]
    half = leading > 0
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
    alternating = [
        k
        for k in order[factors[order] > _AS_STRONG * factors[order[0]]]
        if _repeats(centres[sample], centres, cell, _two_layers(vectors[k]), _SAME_SITE * spacing)
    ]
    if not alternating:
        raise AnalysisError(
            "The molecules are in layers, but not in those of hcp, where every other layer is "
            "above the first (a face-centred crystal, say)."
        )
    best = alternating[0]
    q = vectors[best]
    if (indices[best] % 2).any():
        raise AnalysisError(
            "The cell repeats after an odd number of layers: they cannot alternate as in hcp."
        )
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
    return Layers(normal, basal, signs, len(alternating) == 1)


def _two_layers(q) -> np.ndarray:
    """Across two layers, each a wavelength of `q` thick."""
    return 4.0 * np.pi * q / (q @ q)


def _repeats(some, centres, cell, vector, tolerance: float) -> bool:
    """Whether most of some centres have another at a vector from them."""
    inverse = np.linalg.inv(cell)
    found = 0
    for centre in some:
        fractional = (centres - centre - vector) @ inverse
        offsets = (fractional - np.round(fractional)) @ cell
        found += (np.einsum("mc,mc->m", offsets, offsets) < tolerance**2).any()
    return found > _MOST * len(some)


def _structure_factors(centres, vectors) -> np.ndarray:
    """Magnitudes (k,), one where all centres scatter in phase."""
    return np.array([abs(np.exp(1j * (centres @ q)).mean()) for q in vectors])
