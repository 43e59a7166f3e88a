"""Phases of molecular hydrogen and supercells of them."""

from __future__ import annotations

from itertools import product
from math import ceil

import numpy as np
from ase import Atoms

from ase_hmlp.simulate import structures

#: A supercell may have this many times the atoms asked for, where that makes it more compact.
GENEROSITY = 1.25


def phase(name: str) -> Atoms:
    """A crystal structure by name; see `ase_hmlp.simulate.structures`.

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
    unless no repeat has fewer, the one whose closest pair of faces is farthest apart for its
    volume.

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
    multiples = range(1, least + 1)
    repeats = [r for r in product(multiples, repeat=3) if np.prod(r) >= least]
    most = max(GENEROSITY * min_atoms / len(atoms), min(np.prod(r) for r in repeats))
    faces = thickness(atoms.cell)

    def compactness(repeat):
        return (faces * repeat).min() / np.prod(repeat) ** (1 / 3), -np.prod(repeat)

    best = max((r for r in repeats if np.prod(r) <= most), key=compactness)
    result = atoms.repeat(best)
    result.info["repeat"] = list(best)
    return result
