"""Phases of molecular hydrogen: crystals, supercells, orthogonal cells, isotopes, pressure.

Liquids, and slabs of solid and liquid, are in `ase_hmlp.simulate.melt`.
"""

from __future__ import annotations

from math import ceil
from typing import Literal

import numpy as np
from ase import Atoms
from ase.data import atomic_masses_iupac2016
from ase.units import GPa
from scipy.linalg import polar
from scipy.optimize import brentq

from ase_hmlp.errors import NotConvergedError, StructureError
from ase_hmlp.molecules import bond_shifts, find_molecules, molecules_of
from ase_hmlp.simulate import structures
from ase_hmlp.simulate.relax import relax
from ase_hmlp.stated_bonds import repeated

#: A supercell may have this many times the atoms asked for, where that makes it more compact, and
#: this many if all others are needles: cells that are more than so many times longer than thin.
GENEROSITY, MOST_GENEROSITY, NEEDLE = 1.25, 2.0, 2.5

#: Masses of the atoms of each kind of molecule, u. Deuterium: CODATA's 2.013553 and an electron.
ISOTOPES = {
    "H2": (atomic_masses_iupac2016[1], atomic_masses_iupac2016[1]),
    "HD": (atomic_masses_iupac2016[1], 2.014102),
    "D2": (2.014102, 2.014102),
}

#: Bond length (Å) of molecules that are put together here.
BOND_LENGTH = 0.74

#: Angles of an orthogonal cell may be this far (degrees) from 90; the cell is then strained.
ALMOST_RIGHT = 0.1

#: An orthogonal cell may have this many of the cells it is made of; among more there is always one
#: that is nearly orthogonal by chance.
MOST_CELLS = 16


def phase(name: str) -> Atoms:
    """Look up a crystal structure by name; see `ase_hmlp.simulate.structures`.

    Parameters
    ----------
    name : str
        One of ``structures.NAMES``.

    Returns
    -------
    ase.Atoms
        The published cell, Å, without a calculator.
    """
    return structures.load(name)


def thickness(cell) -> np.ndarray:
    """Distances (Å) between opposite faces of a cell.

    Parameters
    ----------
    cell : (3, 3) array or ase.cell.Cell, Å

    Returns
    -------
    (3,) array, Å
    """
    return 1.0 / np.linalg.norm(np.linalg.inv(np.asarray(cell)), axis=0)


def supercell(atoms: Atoms, min_atoms: int) -> Atoms:
    """Repeat a cell along its own vectors into one as compact as possible.

    Among the repeats that have `min_atoms` atoms, and not more than `GENEROSITY` times as many
    where that can be, the one whose closest pair of faces is farthest apart for its volume and no
    more than `NEEDLE` times closer than the others. If there is none, the smallest of such a shape
    that has up to `MOST_GENEROSITY` times as many atoms; else what is least of a needle.

    Parameters
    ----------
    atoms : ase.Atoms
    min_atoms : int
        Fewest atoms in the supercell.

    Returns
    -------
    ase.Atoms
        The supercell, without a calculator; ``info["repeat"]`` has the three multiples.
    """
    if min_atoms < 1:
        raise ValueError(f"min_atoms must be positive, not {min_atoms}")
    least = ceil(min_atoms / len(atoms))
    few = max(int(GENEROSITY * min_atoms / len(atoms)), least)
    most = max(int(MOST_GENEROSITY * min_atoms / len(atoms)), least)
    repeats = np.array(
        [
            (i, j, k)
            for i in range(1, most + 1)
            for j in range(1, most // i + 1)
            for k in range(ceil(least / (i * j)), most // (i * j) + 1)
        ]
    )
    cells = repeats.prod(axis=1)
    thick = repeats * thickness(atoms.cell)
    # Rounded, so that equal ones are. In each order below the last key decides first.
    slenderness = (thick.max(axis=1) / thick.min(axis=1)).round(9)
    compactness = (thick.min(axis=1) / np.cbrt(cells)).round(9)
    small, shapely = cells <= few, slenderness <= NEEDLE
    order: tuple[np.ndarray, ...]
    if (small & shapely).any():
        among, order = small & shapely, (cells, -compactness)
    elif shapely.any():
        among, order = shapely, (-compactness, cells)
    else:
        among, order = small, (cells, -compactness, slenderness)
    best = repeats[among][np.lexsort([key[among] for key in order])[0]].tolist()
    result = atoms.repeat(best)
    result.info["repeat"] = best
    return result


def hcp(
    min_atoms: int = 8,
    volume: float = 2.4,
    orientations="random",
    c_over_a: float = np.sqrt(8.0 / 3.0),
    rng: np.random.Generator | int = 0,
) -> Atoms:
    """Molecules on a hexagonal close-packed lattice, in an orthogonal cell: Phase I.

    Parameters
    ----------
    min_atoms : int
        Fewest atoms in the supercell.
    volume : float, Å³/atom
    orientations : "random", (3,), or (m, 3) array
        Uniform on the sphere and independent, or the axis of all molecules, or of each.
    c_over_a : float
    rng : numpy.random.Generator or int
        Of random orientations.

    Returns
    -------
    ase.Atoms
        Atoms of a molecule adjacent, bonds of `BOND_LENGTH`.
    """
    a = (8.0 * volume / (np.sqrt(3.0) * c_over_a)) ** (1.0 / 3.0)  # 4 molecules in a, √3 a, c
    sites = np.array([[0, 0, 0], [1 / 2, 1 / 2, 0], [0, 1 / 3, 1 / 2], [1 / 2, 5 / 6, 1 / 2]])
    # Two atoms stand for a molecule.
    cell = Atoms("H8", cell=a * np.array([1.0, np.sqrt(3.0), c_over_a]), pbc=True)
    cell.set_scaled_positions(np.repeat(sites, 2, axis=0))
    atoms = supercell(cell, min_atoms)
    m = len(atoms) // 2
    if isinstance(orientations, str):
        if orientations != "random":
            raise ValueError(f"orientations are random or vectors, not {orientations!r}")
        axes = np.random.default_rng(rng).normal(size=(m, 3))
    else:
        axes = np.asarray(orientations, dtype=float)
        if axes.shape not in ((3,), (m, 3)):
            raise ValueError(f"orientations of {m} molecules cannot have shape {axes.shape}")
        axes = np.broadcast_to(axes, (m, 3))
    lengths = np.linalg.norm(axes, axis=1, keepdims=True)
    if not (lengths > 0.0).all():
        raise ValueError("an orientation cannot be a vector of no length")
    half = 0.5 * BOND_LENGTH * axes / lengths
    atoms.positions += np.stack([-half, half], axis=1).reshape(-1, 3)
    atoms.info["phase"] = "hcp"
    return atoms


def orthogonal(atoms: Atoms, tolerance: float = ALMOST_RIGHT, reach: int = 4) -> Atoms:
    """Find the smallest supercell whose vectors are at right angles.

    Parameters
    ----------
    atoms : ase.Atoms, periodic in all directions
    tolerance : float, degrees
        Angles this close to 90 are taken for it, and the cell is strained to make them so.
    reach : int
        Largest multiple of a cell vector that is tried.

    Returns
    -------
    ase.Atoms
        Vectors along x, y and z, without a calculator. Momenta are turned with the cell, or dropped
        where one cell becomes several; bonds that an array ``partner`` states are kept.

    Raises
    ------
    StructureError
        If there is none.
    """
    cell = atoms.cell.array
    grid = np.indices((2 * reach + 1,) * 3).reshape(3, -1).T - reach
    # One of each pair of opposite vectors, none that is a multiple of another.
    first = grid[np.arange(len(grid)), (grid != 0).argmax(axis=1)]
    grid = grid[(first > 0) & (np.gcd.reduce(grid, axis=1) == 1)]
    vectors = grid @ cell
    lengths = np.linalg.norm(vectors, axis=1)
    order = np.argsort(lengths, kind="stable")
    grid, vectors, lengths = grid[order], vectors[order], lengths[order]
    cosines = vectors @ vectors.T / np.outer(lengths, lengths)
    right = abs(cosines) < np.sin(np.radians(tolerance))
    best, smallest = None, (MOST_CELLS + 0.5) * atoms.get_volume()
    for i, row in enumerate(right):
        if lengths[i] ** 3 >= smallest:
            break  # the shortest vector of what is left
        for j in np.flatnonzero(row[i:]) + i:
            third = np.flatnonzero(row & right[j])
            third = third[third > j]
            if len(third):
                k = int(third[0])
                volume = lengths[i] * lengths[j] * lengths[k]
                if volume < smallest * (1.0 - 1e-9):
                    best, smallest = (i, int(j), k), volume
    if best is None:
        raise StructureError(
            f"There is no orthogonal supercell of up to {MOST_CELLS} cells "
            f"(angles {', '.join(f'{x:.2f}' for x in atoms.cell.angles())} degrees)."
        )
    matrix = grid[list(best)]
    if np.linalg.det(matrix @ cell) < 0:
        matrix[2] = -matrix[2]
    found = repeated(atoms, matrix)
    straight = np.diag(found.cell.lengths())
    turn, _ = polar(np.linalg.solve(found.cell.array, straight))
    found.set_cell(straight, scale_atoms=True)
    if found.has("momenta"):
        found.set_momenta(found.get_momenta() @ turn)
    return found


def isotopes(atoms: Atoms, kind: str, rng: np.random.Generator | int = 0) -> Atoms:
    """Give the molecules the masses of an isotope; the potential is the same for all.

    Parameters
    ----------
    atoms : ase.Atoms
        Molecules are found, if the array ``partner`` does not say which atoms are bonded.
    kind : "H2", "HD" or "D2"
    rng : numpy.random.Generator or int
        Decides which of the atoms of each HD molecule is the heavy one.

    Returns
    -------
    ase.Atoms
        A copy without a calculator. Momenta, where there are any, are those of the same
        temperature.
    """
    if kind not in ISOTOPES:
        raise ValueError(f"no isotope {kind!r}; there are {', '.join(ISOTOPES)}")
    if "partner" in atoms.arrays:
        molecules = molecules_of(atoms.arrays["partner"])
    else:
        molecules = find_molecules(atoms.positions, atoms.cell.array, atoms.pbc)
    masses = np.empty(len(atoms))
    masses[molecules] = ISOTOPES[kind]
    if kind == "HD":
        turned = molecules[np.random.default_rng(rng).random(len(molecules)) < 0.5]
        masses[turned] = masses[turned[:, ::-1]]
    result = atoms.copy()
    result.set_masses(masses)
    if atoms.has("momenta"):
        result.set_momenta(np.sqrt(masses / atoms.get_masses())[:, None] * atoms.get_momenta())
    return result


def scale_centres(atoms: Atoms, factor: float) -> Atoms:
    """Scale a cell and the centres of its molecules; bonds stay as long as they are.

    Parameters
    ----------
    atoms : ase.Atoms, periodic in all directions
    factor : float
        Of lengths.
    """
    molecules = find_molecules(atoms.positions, atoms.cell.array, atoms.pbc)
    return _scaled(atoms, factor, *_centres(atoms, molecules))


def _centres(atoms: Atoms, molecules) -> tuple[np.ndarray, np.ndarray]:
    """Centre of the molecule of each atom, and the atom's place relative to it (n, 3)."""
    shifts = bond_shifts(atoms.positions, atoms.cell.array, atoms.pbc, molecules)
    first, second = molecules.T
    half = 0.5 * (atoms.positions[second] + shifts @ atoms.cell.array - atoms.positions[first])
    relative = np.empty((len(atoms), 3))
    relative[first], relative[second] = -half, half
    return atoms.positions - relative, relative


def _scaled(atoms, factor, centres, relative) -> Atoms:
    result = atoms.copy()
    result.set_cell(factor * atoms.cell.array)
    result.positions = factor * centres + relative
    return result


def at_pressure(
    atoms: Atoms, pressure: float, relaxation: Literal["full", "volume"] = "full", **options
) -> Atoms:
    """Bring a structure to a pressure, at rest.

    Parameters
    ----------
    atoms : ase.Atoms with a calculator, periodic in all directions
    pressure : float, GPa
    relaxation : "full" or "volume"
        Relax positions and cell to a minimum (`ase_hmlp.simulate.relax.relax`), or scale the
        centres of the molecules and nothing else.
    **options
        Of `relax`.

    Returns
    -------
    ase.Atoms
        With the calculator.

    Raises
    ------
    NotConvergedError
        If the pressure is not reached.
    """
    scaled = _at_volume_of(atoms, pressure)
    return scaled if relaxation == "volume" else relax(scaled, pressure, **options).atoms


#: Scaling towards a pressure goes in steps of this factor of length, so many at the most.
STEP, MOST_STEPS = 1.03, 30


def _at_volume_of(atoms: Atoms, pressure: float) -> Atoms:
    """Scale centres until a third of the trace of the stress is minus the pressure."""
    molecules = find_molecules(atoms.positions, atoms.cell.array, atoms.pbc)
    centres = _centres(atoms, molecules)
    made: dict[float, Atoms] = {}

    def excess(exponent: float) -> float:
        made[exponent] = _scaled(atoms, STEP**exponent, *centres)
        made[exponent].calc = atoms.calc
        stress = made[exponent].get_stress()
        return float(-stress[:3].mean() / GPa) - pressure

    try:
        before = excess(0.0)
        side = 1.0 if before > 0.0 else -1.0  # expand if the pressure is too high
        for k in range(1, MOST_STEPS + 1):
            now = excess(side * k)
            if now * before <= 0.0:
                root = brentq(excess, side * (k - 1), side * k, xtol=1e-6)
                excess(root)
                return made[root]
            before = now
    except StructureError as error:
        raise NotConvergedError(f"No volume has {pressure:g} GPa on the way there: {error}") from (
            error
        )
    raise NotConvergedError(
        f"No volume between {STEP ** (3 * MOST_STEPS):.0f} times the present and its inverse has "
        f"{pressure:g} GPa."
    )
