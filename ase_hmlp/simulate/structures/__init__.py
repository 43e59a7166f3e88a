"""Crystal structures of molecular hydrogen, relaxed with PBE: cells and coordinates, no labels.

`load` reads one by name. Each file's comment line says what the structure is and where it is from.
"""

from __future__ import annotations

from importlib.resources import as_file, files

from ase import Atoms
from ase.io import iread

#: Names `load` knows, and what they are.
NAMES = {
    "P21c-24-a": "P2₁/c, 24 atoms, layers of a distorted hexagonal lattice",
    "P21c-24-b": "P2₁/c, 24 atoms, a second candidate",
    "P21c-8": "P2₁/c, 8 atoms",
    "P63m-16": "P6₃/m, 16 atoms",
    "P6122-36": "P6₁22, 36 atoms",
    "Pca21-8": "Pca2₁, 8 atoms",
    "Pa3-8": "Pa-3, 8 atoms",
    "C2c-12": "C2/c, 12 atoms in the primitive cell, a candidate for Phase III",
}


def load(name: str) -> Atoms:
    """Read a structure.

    Parameters
    ----------
    name : str
        One of `NAMES`.

    Returns
    -------
    ase.Atoms
        Positions and cell in Å, no calculator. ``info`` has ``phase``, ``spacegroup``,
        ``provenance`` and, where known, ``pressure_GPa`` and ``pbe_enthalpy_eV_per_atom``.

    Raises
    ------
    KeyError
        For a name that is not in `NAMES`; the message lists those that are.
    """
    if name not in NAMES:
        raise KeyError(f"no structure {name!r}; there are {', '.join(NAMES)}")
    with as_file(files(__name__) / f"{name}.extxyz") as path:
        return next(iread(path, format="extxyz"))
