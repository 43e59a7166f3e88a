"""What LAMMPS reads: model files of pair style hmlp, and data files."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import units

from ase_hmlp import __version__
from ase_hmlp._core.levels import BLOCK, N_FINGERPRINTS
from ase_hmlp.errors import StructureError, UnsupportedElementError
from ase_hmlp.files import write_whole
from ase_hmlp.model_io import Model, load_model
from ase_hmlp.molecules import (
    bond_shifts,
    check_molecules,
    find_molecules,
    molecules_of,
)
from ase_hmlp.neighbors import complete_cell

#: Version of the model file's layout; the reader is ``hmlp_model.h``.
SCHEMA = 5

#: Room (Å) left around the atoms in directions that are not periodic.
MARGIN = 10.0

#: Atoms whose masses differ by less than this (u) are of one type.
SAME_MASS = 1e-6

#: Å/ps in ASE's units of velocity.
ANGSTROM_PER_PS = 1.0 / (1000.0 * units.fs)


def write_model(model, path) -> Path:
    """Write the file that ``pair_coeff`` of pair style hmlp reads.

    Parameters
    ----------
    model : str, path or Model
        Name of a shipped model, path of a model file, or a loaded model.
    path : str or path

    Returns
    -------
    Path
    """
    model = model if isinstance(model, Model) else load_model(model)
    lines = [f"{key} {len(values)} {' '.join(values)}" for key, values in _records(model)]
    body = "".join(line.rstrip() + "\n" for line in lines).encode()
    header = f"hmlp-lammps {SCHEMA}\nbytes {len(body)} crc32 {zlib.crc32(body):08x}\n"
    return write_whole(path, header.encode() + body)


def _records(model: Model) -> Iterator[tuple[str, list[str]]]:
    """Keys and numbers of the file: the fields of the kernel's structs."""
    potential, domain = model.potential, model.domain
    yield "rep_block", _numbers(BLOCK)
    yield "fingerprints", _numbers(N_FINGERPRINTS)
    yield "e0", _numbers(potential.e0)
    for name in ("bond_limits", "bond_length", "contact", "contact_limit"):
        yield name, _numbers(getattr(domain, name))
    for name, value in potential.bond.curve.record.items():
        yield f"bond.{name}", _numbers(value)
    for name, value in potential.interaction.record.items():
        yield f"interaction.{name}", _numbers(value)
    if potential.environment is None:
        yield "environment.n_fingerprints", _numbers(0)
    else:
        yield "environment.n_fingerprints", _numbers(N_FINGERPRINTS)
        for name, value in potential.environment.regressor.machine.record.items():
            yield f"environment.{name}", _numbers(value)
    # Last: restart files know a model by what is before it.
    yield "volume", _numbers(domain.volume)


def _numbers(values) -> list[str]:
    # repr is the shortest decimal number that reads back as the same double.
    return [repr(x) for x in np.ravel(np.asarray(values, dtype=float)).tolist()]


@dataclass(frozen=True)
class LammpsData:
    """A data file and how its coordinates differ from the structure's.

    Attributes
    ----------
    path : Path
    masses : tuple of float, u, by atom type
    rotation : (3, 3) array
        Orthogonal; vectors (rows) of the structure times it are LAMMPS's. A reflection where the
        cell is left-handed.
    """

    path: Path
    masses: tuple[float, ...]
    rotation: np.ndarray


def write_data(atoms, path, bonds=None) -> LammpsData:
    """Write a LAMMPS data file: atom_style bond, units metal, a bond for each molecule.

    Atoms of one mass are one atom type, the lightest first. Velocities are written if there are
    any. LAMMPS wants the first cell vector along x and the second in the xy plane: the structure
    is turned. Directions that are not periodic get a box with room around the atoms.

    Parameters
    ----------
    atoms : ase.Atoms
    path : str or path
    bonds : (m, 2) integers, optional
        Which atoms are bonded; if not given, those that ``arrays["partner"]`` states, or found as
        the calculator finds them.

    Returns
    -------
    LammpsData

    Raises
    ------
    StructureError
        If there are no atoms, other elements, or atoms that do not pair up.
    """
    if len(atoms) == 0:
        raise StructureError("The structure has no atoms.")
    if (atoms.numbers != 1).any():
        i = int((atoms.numbers != 1).argmax())
        raise UnsupportedElementError(
            f"Atom {i} is {atoms.symbols[i]}: the potential knows hydrogen only."
        )
    pbc = atoms.pbc
    cell = complete_cell(atoms.cell.array, pbc)
    if bonds is not None:
        molecules = check_molecules(bonds, len(atoms))
    elif "partner" in atoms.arrays:
        molecules = molecules_of(atoms.arrays["partner"])
    else:
        molecules = find_molecules(atoms.positions, cell, pbc)
    box, origin = _box(atoms.positions, cell, pbc)
    lower, rotation = _lower_triangular(box)
    masses, types = _types(atoms.get_masses())
    # Molecules in one piece, or LAMMPS finds image flags of bonded atoms inconsistent.
    positions = atoms.positions.copy()
    positions[molecules[:, 1]] += bond_shifts(positions, cell, pbc, molecules) @ cell
    positions = (positions - origin) @ rotation

    yes = ("no", "yes")
    lines = [
        f"LAMMPS data file of ase_hmlp {__version__}: units metal, atom_style bond; "
        f"periodic: {' '.join(yes[int(p)] for p in pbc)}",
        "",
        f"{len(atoms)} atoms",
        f"{len(molecules)} bonds",
        f"{len(masses)} atom types",
        "1 bond types",
        "",
    ]
    for k, axis in enumerate("xyz"):
        lines.append(f"{_join(0.0, lower[k, k])} {axis}lo {axis}hi")
    lines.append(f"{_join(lower[1, 0], lower[2, 0], lower[2, 1])} xy xz yz")
    lines += ["", "Masses", ""]
    lines += [f"{k} {_join(mass)}" for k, mass in enumerate(masses, 1)]
    molecule = np.empty(len(atoms), dtype=int)
    molecule[molecules] = np.arange(1, len(molecules) + 1)[:, None]
    lines += ["", "Atoms # bond", ""]
    for i in range(len(atoms)):
        lines.append(f"{i + 1} {molecule[i]} {types[i]} {_join(*positions[i])}")
    if atoms.has("momenta"):
        velocities = atoms.get_velocities() @ rotation / ANGSTROM_PER_PS
        lines += ["", "Velocities", ""]
        lines += [f"{i} {_join(*v)}" for i, v in enumerate(velocities, 1)]
    lines += ["", "Bonds", ""]
    lines += [f"{m} 1 {a + 1} {b + 1}" for m, (a, b) in enumerate(molecules, 1)]
    written = write_whole(path, ("\n".join(lines) + "\n").encode())
    return LammpsData(written, masses, rotation)


def _join(*values: float) -> str:
    return " ".join(repr(float(x)) for x in values)


def _types(masses) -> tuple[tuple[float, ...], list[int]]:
    """Masses by type and the type of each atom, from 1."""
    kinds: list[float] = []
    for mass in np.unique(masses).tolist():
        if mass <= 0.0:
            raise StructureError(f"LAMMPS needs positive masses, not {mass} u.")
        if not kinds or mass - kinds[-1] > SAME_MASS:
            kinds.append(mass)
    limits = np.array(kinds) - 0.5 * SAME_MASS
    return tuple(kinds), np.searchsorted(limits, masses).tolist()


def _box(positions, cell, pbc) -> tuple[np.ndarray, np.ndarray]:
    """Box that holds every atom along directions that are not periodic, and its origin."""
    box, origin = np.array(cell, dtype=float), np.zeros(3)
    fractional = positions @ np.linalg.inv(cell)
    for k in range(3):
        if pbc[k]:
            continue
        length = float(np.linalg.norm(cell[k]))
        low, high = (x * length for x in (fractional[:, k].min(), fractional[:, k].max()))
        unit = cell[k] / length
        box[k] = (high - low + 2.0 * MARGIN) * unit
        origin += (low - MARGIN) * unit
    return box, origin


def _lower_triangular(cell) -> tuple[np.ndarray, np.ndarray]:
    """LAMMPS's cell, ``cell @ rotation``, and the orthogonal matrix that makes it."""
    q, r = np.linalg.qr(np.transpose(cell))
    signs = np.sign(np.diag(r))
    return np.tril((signs[:, None] * r).T), q * signs
