"""Labelled frames: reading, checking, grouping by family."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ase import Atoms
from ase.io import iread
from ase.units import GPa

from ase_hmlp.errors import DataError, HMLPError, LabelError
from ase_hmlp.geometry import Geometry, GeometryTracker
from ase_hmlp.molecules import find_molecules, molecules_of
from ase_hmlp.neighbors import complete_cell, neighbour_list

#: Name of what is over all families in tables of errors: no family may have it.
ALL = "all"

#: Family of frames that name none.
UNNAMED = "unnamed"

_DECOMPRESS = {".xz": lzma.decompress, ".gz": gzip.decompress}


@dataclass(eq=False)
class Frame:
    """One labelled structure of n atoms.

    Attributes
    ----------
    positions : (n, 3) Å
    cell : (3, 3) Å, completed in non-periodic directions
    pbc : (3,) bool
    molecules : (n / 2, 2) atom indices
    energy : float, eV
    forces : (n, 3) eV/Å
    stress : (6,) eV/Å³, ASE's sign and Voigt order, or None
    group : str
        The family: frames of one group are never split between training and test.
    source : str
    parent : str
        Source of the frame this one was made from, if any: it stays on its parent's side of any
        split.
    source_set : str
        Which labels share an energy zero with its own: one code, one set of settings.
    weight : float
        What its squared residuals are multiplied by in a fit.
    """

    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    molecules: np.ndarray
    energy: float
    forces: np.ndarray
    stress: np.ndarray | None
    group: str
    source: str
    parent: str = ""
    source_set: str = ""
    weight: float = 1.0
    split: str = ""
    _geometry: dict = field(default_factory=dict, repr=False)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.positions)

    @property
    def volume(self) -> float:
        """Cell volume, Å³."""
        return float(abs(np.linalg.det(self.cell)))

    @property
    def virial(self) -> np.ndarray | None:
        """dE/dstrain (6,), eV, or None without a stress label."""
        return None if self.stress is None else self.stress * self.volume

    @property
    def pressure(self) -> float:
        """A third of the trace of the stress with its sign changed, GPa; NaN without a label."""
        return float("nan") if self.stress is None else float(-self.stress[:3].mean() / GPa)

    @property
    def digest(self) -> int:
        """A number that identifies the structure and its energy, to recognise training frames."""
        data = np.concatenate(
            [np.round(self.positions, 5).ravel(), np.round(self.cell, 5).ravel(), [self.energy]]
        )
        return int.from_bytes(
            hashlib.blake2b(np.round(data, 5).tobytes(), digest_size=7).digest(), "little"
        )

    def bond_vectors(self) -> np.ndarray:
        """Vectors (m, 3) from the first to the second atom of each molecule, Å."""
        known = next(iter(self._geometry.values()), None)  # bonds do not depend on the cutoff
        return (self.geometry(1.0) if known is None else known).bonds

    @cached_property
    def shortest_contact(self) -> float:
        """Shortest distance between atoms of different molecules, Å; infinite beyond 2.5 Å."""
        bonds = self.bond_vectors()
        ends = self.positions[self.molecules[:, 0]], self.positions[self.molecules[:, 0]] + bonds
        points = np.stack(ends, axis=1).reshape(-1, 3)  # molecules in one piece, atoms adjacent
        first, index, shift = neighbour_list(points, self.cell, self.pbc, 2.5, half=True)
        owner = np.repeat(np.arange(len(points)), np.diff(first))
        d = points[index] + shift @ self.cell - points[owner]
        other = (index // 2 != owner // 2) | (shift != 0).any(axis=1)
        return float(np.sqrt((d[other] ** 2).sum(axis=1).min(initial=np.inf)))

    def geometry(self, cutoff: float) -> Geometry:
        """Pairs of molecules and bonds; the last one asked for is kept."""
        if cutoff not in self._geometry:
            tracker = GeometryTracker(cutoff, skin=0.0)
            self._geometry = {
                cutoff: tracker.update(self.positions, self.cell, self.pbc, self.molecules)
            }
        return self._geometry[cutoff]


def frame_from_atoms(atoms, where: str) -> Frame:
    """Check one labelled structure.

    Parameters
    ----------
    atoms : ase.Atoms
        With a calculator (or `ase.calculators.singlepoint`) that holds energy (the free energy, if
        there is one) and forces;
        ``info["group"]`` names the family (`UNNAMED` without it), ``info["source"]`` the origin,
        ``info["parent"]`` the source of the frame it was made from, ``info["source_set"]`` the set
        of labels with one energy zero, ``info["split"]`` is ``test`` where no fit may ever see it,
        ``info["pulay"]`` (eV/atom) what the pressure lacks times the volume per atom, and
        ``arrays["partner"]`` is the bonded partner of each atom; all of these may be missing.
    where : str
        How to call the frame in messages.

    Raises
    ------
    LabelError
        Without energy or forces, or with labels of the wrong shape or not finite.
    DataError
        If the structure is not molecular hydrogen, or its family is called `ALL`.
    """
    results = consistent_energy(getattr(atoms.calc, "results", {}))
    for name, shape in (("energy", ()), ("forces", (len(atoms), 3)), ("stress", (6,))):
        if name not in results:
            if name == "stress":
                continue
            raise LabelError(f"{where} has no {name}.")
        value = np.asarray(results[name], dtype=float)
        if value.shape != shape:
            raise LabelError(f"{where} has {name} of shape {value.shape}, not {shape}.")
        if not np.isfinite(value).all():
            verb = "are" if name == "forces" else "is"
            raise LabelError(f"{where} has {name} that {verb} not finite.")
    if (atoms.numbers != 1).any():
        raise DataError(f"{where} holds elements other than hydrogen.")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise DataError(f"{where} has positions or a cell that are not finite.")
    try:
        cell = complete_cell(atoms.cell.array, atoms.pbc)
        if "partner" in atoms.arrays:
            molecules = molecules_of(atoms.arrays["partner"])
        else:
            molecules = find_molecules(atoms.positions, cell, atoms.pbc)
    except HMLPError as error:
        raise DataError(f"{where}: {error}") from error
    group = str(atoms.info.get("group", atoms.info.get("config_type", UNNAMED)))
    check_family(group, where)
    return Frame(
        atoms.positions.copy(),
        cell,
        np.array(atoms.pbc),
        molecules,
        float(results["energy"]),
        np.array(results["forces"], dtype=float),
        corrected_stress(atoms) if "stress" in results and atoms.pbc.all() else None,
        group,
        str(atoms.info.get("source", where)),
        str(atoms.info.get("parent", "")),
        str(atoms.info.get("source_set", "")),
        split=str(atoms.info.get("split", "")),
    )


def check_family(name: str, where: str) -> None:
    """Refuse a family that could not be told from all families.

    Raises
    ------
    DataError
    """
    if name == ALL:
        raise DataError(f"{where} is of a family {ALL!r}, which tables call all families together.")


def consistent_energy(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results whose energy is the one that forces and stress are derivatives of.

    Where there is smearing, ASE's ``energy`` is, of VASP and CASTEP, extrapolated to none; forces
    are those of the ``free_energy`` beside it.

    Parameters
    ----------
    results : mapping
        Of an ASE calculator.
    """
    free = results.get("free_energy")
    return dict(results) if free is None else {**results, "energy": free}


def corrected_stress(atoms: Atoms) -> np.ndarray:
    """Stress (6), eV/Å³, with what it lacks by ``info["pulay"]`` (eV/atom, 0 if missing).

    A plane-wave stress is the derivative at a constant number of waves, the energies are at a
    constant cutoff: without the difference, the Pulay stress (Francis and Payne, J. Phys.: Condens.
    Matter 2, 4395, 1990), energies and stresses belong to two potentials.
    """
    stress = np.array(atoms.get_stress(apply_constraint=False), dtype=float)
    stress[:3] -= float(atoms.info.get("pulay", 0.0)) * len(atoms) / atoms.get_volume()
    return stress


def open_text(path) -> TextIO:
    """A text file, decompressed in memory if its suffix says so.

    Raises
    ------
    DataError
        If there is no such file, or its compression is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"Data file {path} does not exist.")
    if path.suffix not in _DECOMPRESS:
        return path.open()
    try:
        return io.StringIO(_DECOMPRESS[path.suffix](path.read_bytes()).decode())
    except Exception as error:  # whatever the libraries raise
        raise DataError(f"{path} cannot be read: {error}.") from error


def iterate_structures(path, format: str | None = None) -> Iterator[Atoms]:
    """Structures of a file that ASE reads, labelled or not; see `read_frames`.

    Parameters
    ----------
    path : str or Path
    format : str, optional
        ASE's name of the format; guessed unless given, extended XYZ in a compressed file.

    Raises
    ------
    DataError
        Naming the file and the frame that cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"Data file {path} does not exist.")
    n = 0
    try:
        if path.suffix in _DECOMPRESS:
            images = iread(open_text(path), index=":", format=format or "extxyz")
        else:
            images = iread(path, index=":", format=format)
        for atoms in images:
            yield atoms
            n += 1
    except DataError:
        raise
    except Exception as error:  # readers raise whatever they meet
        raise DataError(f"Frame {n} of {path} cannot be read: {error}.") from error


def read_frames(path) -> list[Frame]:
    """Read every frame of an extended XYZ file (or anything ASE reads), ``.xz`` and ``.gz`` too.

    A compressed file is decompressed once in memory: ASE's reader seeks, which is very slow on
    compressed handles.

    Raises
    ------
    DataError
        Naming the file and the frame that cannot be read.
    """
    frames: list[Frame] = []
    for n, atoms in enumerate(iterate_structures(path)):
        try:
            frames.append(frame_from_atoms(atoms, f"Frame {n} of {path}"))
        except HMLPError:
            raise
        except Exception as error:  # labels or arrays of an odd kind
            raise DataError(f"Frame {n} of {path} cannot be read: {error}.") from error
    if not frames:
        raise DataError(f"Data file {path} holds no frame.")
    return frames


def file_digest(path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
