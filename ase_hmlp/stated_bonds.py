"""Structures that say which atoms are bonded: read from files, and repeated.

Bonds of hot molecules cannot always be found from distances. ``arrays["partner"]`` of a structure
is the bonded partner of each atom; `hmlp run` writes bonds into the header of its trajectories.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.io import read
from ase.io.formats import UnknownFileTypeError

from ase_hmlp.analysis.source import Source
from ase_hmlp.errors import DataError, StructureError
from ase_hmlp.molecules import (
    bond_shifts,
    check_molecules,
    molecules_of,
    partners,
    stated_molecules,
)
from ase_hmlp.neighbors import complete_cell


def read_structure(path, index: int = -1) -> Atoms:
    """Read a frame, and which atoms are bonded, where its file says so.

    Parameters
    ----------
    path : str or path
        Any file ASE reads, or the folder of a run.
    index : int
        Of the frame.

    Returns
    -------
    ase.Atoms
        ``arrays["partner"]`` is the bonded partner of each atom, where the file has this column,
        or a column ``mol`` in which every number is that of two atoms, or is a trajectory of
        `hmlp run`.

    Raises
    ------
    DataError, TrajectoryError
        If there is no such frame, or none that can be read.
    """
    Path(path).stat()  # what is not there is no trajectory either
    source = Source(path)
    try:
        frame = read(str(source.path), index=index, do_not_split_by_at_sign=True)
    except OSError as exc:
        if exc.filename:
            raise
        raise DataError(f"{path} cannot be read as a structure: {_reason(exc)}.") from exc
    except UnknownFileTypeError as exc:
        raise DataError(f"{path} has no format that ASE reads.") from exc
    except Exception as exc:  # ASE's readers raise whatever they stumble over
        # So do frames that are not there: nothing is said, and of formats of one frame even less.
        if isinstance(exc, (StopIteration, AssertionError)) and not str(exc):
            what = "no structure" if index in (0, -1) else f"no frame {index}"
            raise DataError(f"{path} holds {what} that can be read.") from exc
        raise DataError(f"{path} cannot be read as a structure: {_reason(exc)}.") from exc
    atoms = cast(Atoms, frame)
    stated = stated_molecules(atoms.arrays) or source.molecules
    if "partner" not in atoms.arrays and stated is not None:
        atoms.set_array("partner", partners(check_molecules(stated[0], len(atoms))))
    return atoms


def _reason(exc: Exception) -> str:
    return str(exc).rstrip(".") or type(exc).__name__


def repeated(atoms, repeat) -> Atoms:
    """Supercell that keeps the bonds ``arrays["partner"]`` states, and has no velocities.

    Copies with the velocities of one cell would be periodic copies for ever.

    Parameters
    ----------
    atoms : ase.Atoms
    repeat : three int, or (3, 3) int
        Multiples of the cell's vectors, or the supercell's vectors in the cell's.

    Returns
    -------
    ase.Atoms

    Raises
    ------
    StructureError
        If there is no cell vector along which to repeat.
    """
    multiples = np.asarray(repeat)
    diagonal = multiples.ndim == 1
    for k in range(3 if diagonal else 0):
        if repeat[k] > 1 and not atoms.cell[k].any():
            raise StructureError(f"Cell vector {k + 1} of 3 is missing: nothing repeats along it.")
    copies = int(np.prod(repeat)) if diagonal else round(abs(np.linalg.det(multiples)))
    whole = atoms.copy()
    if copies > 1:
        whole.arrays.pop("momenta", None)
    if "partner" in atoms.arrays:
        # In one piece, both atoms of a molecule are of the same copy.
        molecules = molecules_of(atoms.arrays["partner"])
        cell = complete_cell(atoms.cell.array, atoms.pbc)
        shifts = bond_shifts(atoms.positions, cell, atoms.pbc, molecules)
        whole.positions[molecules[:, 1]] += shifts @ cell
    if diagonal:
        supercell = whole.repeat(repeat)
    else:
        supercell = make_supercell(whole, multiples)
        supercell.info.update(whole.info)
    if "partner" in atoms.arrays:
        supercell.arrays["partner"] += np.repeat(np.arange(copies) * len(atoms), len(atoms))
    return supercell
