"""Phases of molecular hydrogen and supercells of them."""

from __future__ import annotations

from math import ceil

import numpy as np
from ase import Atoms

from ase_hmlp.simulate import structures

#: A supercell may have this many times the atoms asked for, where that makes it more compact.
GENEROSITY = 1.25


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
    where that can be, the one whose closest pair of faces is farthest apart for its volume.

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
    repeats = np.indices((least,) * 3).reshape(3, -1).T + 1
    cells = repeats.prod(axis=1)
    most = max(GENEROSITY * min_atoms / len(atoms), least)
    repeats, cells = (x[(cells >= least) & (cells <= most)] for x in (repeats, cells))
    # Of equally compact ones the smallest.
    compactness = (repeats * thickness(atoms.cell)).min(axis=1) / np.cbrt(cells)
    best = repeats[np.lexsort((cells, -compactness.round(9)))[0]].tolist()
    result = atoms.repeat(best)
    result.info["repeat"] = best
    return result
