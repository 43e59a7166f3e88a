"""Hypothesis strategies: random molecular-hydrogen structures and what may be done to them.

Structures are built from a drawn integer seed, so that examples shrink to few molecules and
simple cells rather than to round coordinates.
"""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st
from oracle import images

from ase_hmlp.molecules import find_molecules
from ase_hmlp.neighbors import complete_cell

#: No two atoms of different molecules (or images) are closer than this, Å.
CLOSEST_CONTACT = 1.0

seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Structure:
    """Positions (n, 3) and non-singular cell (3, 3) in Å, periodicity, molecules (m, 2)."""

    positions: np.ndarray
    cell: np.ndarray
    pbc: tuple[bool, bool, bool]
    molecules: np.ndarray

    def __len__(self):
        return len(self.positions)

    def geometry(self, potential, threads=1):
        """What the potential's levels see of it, from a fresh tracker."""
        return potential.tracker().update(
            self.positions, self.cell, self.pbc, self.molecules, threads
        )

    def evaluate(self, potential, threads=1):
        """Evaluation of a potential."""
        return potential.evaluate(self.geometry(potential, threads))

    def moved(self, positions, cell=None):
        """The same molecules elsewhere."""
        return replace(self, positions=positions, cell=self.cell if cell is None else cell)

    def deformed(self, deformation):
        """Positions and cell times a (3, 3) matrix."""
        return self.moved(self.positions @ deformation, self.cell @ deformation)

    @classmethod
    def of(cls, atoms):
        """From ASE atoms."""
        pbc = tuple(bool(p) for p in atoms.pbc)
        cell = complete_cell(atoms.cell.array, pbc)
        return cls(atoms.positions, cell, pbc, find_molecules(atoms.positions, cell, pbc))


def _clear(positions, cell, pbc):
    """Whether no contact but the bonds of adjacent atoms is shorter than CLOSEST_CONTACT."""
    n = len(positions)
    vectors = positions[None, :] - positions[:, None]
    shifts = images(cell, pbc, positions, CLOSEST_CONTACT)
    d = np.linalg.norm(vectors[None] + (shifts @ cell)[:, None, None], axis=-1)
    home = (shifts == 0).all(axis=1)
    same = np.arange(n)[:, None] // 2 == np.arange(n)[None, :] // 2
    return (d[~home] > CLOSEST_CONTACT).all() and (d[home][:, ~same] > CLOSEST_CONTACT).all()


def build_structure(seed, n_molecules, volume, skew, pbc, scatter):
    """Random molecules in a random triclinic cell; see `structures`."""
    rng = np.random.default_rng(seed)
    cell = np.eye(3) + 0.25 * rng.uniform(-1, 1, size=(3, 3))
    cell *= (2 * n_molecules * volume / abs(np.linalg.det(cell))) ** (1 / 3)
    for row, other, times in skew:
        if row != other:
            cell[row] += times * cell[other]
    for attempt in range(10_000):
        if attempt % 10 == 9:
            cell = 1.03 * cell
        centres = rng.uniform(size=(n_molecules, 3)) @ cell
        axes = rng.normal(size=(n_molecules, 3))
        axes *= rng.uniform(0.68, 0.82, n_molecules)[:, None] / np.linalg.norm(
            axes, axis=1, keepdims=True
        )
        positions = np.stack([centres - axes / 2, centres + axes / 2], axis=1).reshape(-1, 3)
        if _clear(positions, cell, pbc):
            break
    else:
        raise AssertionError("no room for the molecules")
    order = rng.permutation(2 * n_molecules)
    where = np.argsort(order).reshape(-1, 2)
    molecules = np.sort(where, axis=1)
    molecules = molecules[np.argsort(molecules[:, 0])].astype(np.intc)
    shifts = rng.integers(-2, 3, size=(2 * n_molecules, 3)) * np.array(pbc) * scatter
    positions = positions[order] + shifts @ cell
    return Structure(positions, complete_cell(cell, pbc), pbc, molecules)


PERIODIC = (True, True, True)
VACUUM = (False, False, False)

#: Hypothesis prefers what comes first.
PBC = [
    PERIODIC,
    (True, True, False),
    (True, False, True),
    VACUUM,
    (False, True, True),
    (False, True, False),
    PERIODIC,
    (True, False, False),
]


@st.composite
def structures(draw, max_molecules=8, pbc=None, scatter=True):
    """Random molecular hydrogen: 1 to `max_molecules` molecules, triclinic cell, any periodicity.

    Cells go down to one molecule, 2 Å wide, and may be skewed by whole cell vectors.  Atoms are in
    random order and, with `scatter`, up to two cells outside.
    """
    sizes = [1, 2, 4, 3, 8, 6, 5, 7]
    sizes = [n for n in sizes if n <= max_molecules]
    row = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(-2, 2))
    return build_structure(
        seed=draw(seeds),
        n_molecules=draw(st.sampled_from(sizes)),
        volume=draw(st.sampled_from([4.0, 3.2, 2.6, 6.0, 15.0])),
        skew=draw(st.lists(row, max_size=1)),
        pbc=draw(st.sampled_from(PBC)) if pbc is None else pbc,
        scatter=scatter,
    )


@st.composite
def rotations(draw, improper=True):
    """Orthogonal (3, 3) matrices."""
    q, _ = np.linalg.qr(np.random.default_rng(draw(seeds)).normal(size=(3, 3)))
    flip = improper and draw(st.booleans())
    return q * np.sign(np.linalg.det(q)) * (-1.0 if flip else 1.0)


@st.composite
def translations(draw, size=10.0):
    """Vectors, Å."""
    return np.random.default_rng(draw(seeds)).uniform(-size, size, 3)


@st.composite
def permutations(draw, n):
    """Orders of n atoms."""
    return np.random.default_rng(draw(seeds)).permutation(n)


@st.composite
def wrappings(draw, n, pbc):
    """Whole cells (n, 3) to move single atoms by, along periodic directions."""
    shifts = np.random.default_rng(draw(seeds)).integers(-3, 4, size=(n, 3))
    return shifts * np.array(pbc, dtype=int)


def multiples(pbc):
    """Supercells of 2 to 6 cells along periodic directions."""
    options = [(2, 1, 1), (1, 2, 1), (1, 1, 3), (2, 1, 2), (1, 2, 3)]
    return st.sampled_from(options).map(
        lambda m: tuple(k if p else 1 for k, p in zip(m, pbc, strict=True))
    )


@st.composite
def strains(draw, size=0.02):
    """Symmetric (3, 3) matrices."""
    e = np.random.default_rng(draw(seeds)).uniform(-size, size, size=(3, 3))
    return 0.5 * (e + e.T)


@st.composite
def candidates(draw, max_frames=8):
    """Environments of candidate frames, how uncertain each atom is, and environments known.

    Returns
    -------
    frames, weights : lists of (a, 3) and (a,) arrays
    known : (k, 3) array
    """
    rng = np.random.default_rng(draw(seeds))
    sizes = rng.integers(1, 5, size=draw(st.integers(1, max_frames)))
    frames = [rng.normal(size=(n, 3)) for n in sizes]
    weights = [rng.uniform(0.1, 1.0, size=n) for n in sizes]
    return frames, weights, rng.normal(size=(draw(st.integers(1, 10)), 3))
