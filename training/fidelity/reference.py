"""The DFT results that models are compared with: output of ``data/generate_fidelity.py``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from ase import Atoms

from ase_hmlp.errors import DataError
from ase_hmlp.training.frames import frame_from_atoms, iterate_structures

#: File of the package's own results.
FILE = "h2-pbe-fidelity.extxyz.xz"

#: Crystals whose enthalpies are compared, the one the others are measured from first.
PHASES = ("P63m-16", "P21c-8", "P6122-36", "P21c-24-a", "P21c-24-b")

#: Where they are, GPa.
PRESSURES = (60.0, 100.0, 150.0)

#: The crystal of which there are P(V), at every pressure it was relaxed at, and phonons.
CRYSTAL = "P21c-8"

#: Arrangements of two molecules, the separation along z: axes of the first and the second one,
#: as frames have them (a T alone would be read as true).
ARRANGEMENTS = {"H": "xx", "X": "xy", "T": "xz", "L": "zz"}

#: What each group of frames must say in its ``info``.
_KEYS = {
    "molecule": ("bond",),
    "dimer": ("axes", "separation"),
    "relaxed": ("phase", "pressure_GPa"),
    "phonon": ("phase", "pressure_GPa"),
    "convergence": ("check",),
}


@dataclass(frozen=True)
class Reference:
    """Labelled structures, each with energy, forces and (crystals) stress of its calculator.

    Attributes
    ----------
    molecule : list of ase.Atoms
        Isolated molecules, by bond length.
    dimers : dict of list of ase.Atoms
        For each arrangement, by ``info["separation"]``.
    relaxed : dict of dict of ase.Atoms
        By phase, then by pressure (GPa), both ascending.
    phonon : list of ase.Atoms
        ``relaxed[CRYSTAL][100.0]`` with one atom displaced.
    convergence : list of ase.Atoms
        The same as others under better settings, for people to look at.
    label : str
        Code and settings of the labels, without what differs from frame to frame.
    digests : frozenset of int
        `ase_hmlp.training.frames.Frame.digest` of every frame, to see that none was trained on.
    """

    molecule: list[Atoms]
    dimers: dict[str, list[Atoms]]
    relaxed: dict[str, dict[float, Atoms]]
    phonon: list[Atoms]
    convergence: list[Atoms]
    label: str
    digests: frozenset[int]


def bonds(atoms: Atoms) -> np.ndarray:
    """Bonded pairs (m, 2) from the array ``partner``, which is right where distances mislead."""
    partner = atoms.arrays["partner"].astype(int)
    first = np.flatnonzero(np.arange(len(atoms)) < partner)
    return np.column_stack([first, partner[first]])


def arrangement(atoms: Atoms) -> str:
    """Name of the arrangement of two molecules, from ``info["axes"]``.

    Raises
    ------
    DataError
        If it is none of `ARRANGEMENTS`.
    """
    axes = atoms.info["axes"]
    for name, known in ARRANGEMENTS.items():
        if axes == known:
            return name
    raise DataError(f"Axes of two molecules are {', '.join(ARRANGEMENTS.values())}, not {axes!r}.")


def read_reference(path=None) -> Reference:
    """Read and check DFT results.

    Parameters
    ----------
    path : str or Path, optional
        Output of ``generate_fidelity.py``; the package's own if not given.

    Raises
    ------
    DataError
        If the file is not such an output, or something is missing from it.
    """
    if path is None:
        with as_file(files("ase_hmlp.training.data") / FILE) as own:
            return read_reference(own)
    path = Path(path)
    groups: dict[str, list[Atoms]] = {name: [] for name in _KEYS}
    digests = []
    for n, atoms in enumerate(iterate_structures(path)):
        where = f"Frame {n} of {path}"
        frame = frame_from_atoms(atoms, where)  # refuses what is no labelled molecular hydrogen
        digests.append(frame.digest)
        group = atoms.info.get("group")
        if group not in groups:
            raise DataError(f"{where} is of group {group!r}, not {', '.join(groups)}.")
        if missing := [key for key in _KEYS[group] if key not in atoms.info]:
            raise DataError(f"{where}, a {group} frame, does not say its {' and '.join(missing)}.")
        if "partner" not in atoms.arrays:
            raise DataError(f"{where} does not say which atoms are partners.")
        groups[group].append(atoms)

    molecule = sorted(groups["molecule"], key=lambda atoms: atoms.get_distance(0, 1))
    dimers: dict[str, list[Atoms]] = {}
    for atoms in sorted(groups["dimer"], key=lambda atoms: atoms.info["separation"]):
        dimers.setdefault(arrangement(atoms), []).append(atoms)
    relaxed: dict[str, dict[float, Atoms]] = {}
    for atoms in sorted(groups["relaxed"], key=lambda atoms: atoms.info["pressure_GPa"]):
        of_phase = relaxed.setdefault(str(atoms.info["phase"]), {})
        of_phase[float(atoms.info["pressure_GPa"])] = atoms
    lacks = [
        what
        for what, there in (
            ("five bond lengths of the molecule", len(molecule) >= 5),
            ("four separations each of X and T", all(len(dimers.get(k, ())) >= 4 for k in "XT")),
            (f"{CRYSTAL}, relaxed", CRYSTAL in relaxed),
            ("displaced atoms for phonons", bool(groups["phonon"])),
        )
        if not there
    ]
    if not lacks:
        about = groups["phonon"][0].info
        if float(about["pressure_GPa"]) not in relaxed.get(str(about["phase"]), {}):
            lacks.append("the relaxed structure its phonons belong to")
    if lacks:
        raise DataError(f"DFT results {path} lack {', '.join(lacks)}.")
    return Reference(
        molecule,
        dimers,
        relaxed,
        groups["phonon"],
        groups["convergence"],
        _common_label(groups),
        frozenset(digests),
    )


def _common_label(groups: dict[str, list[Atoms]]) -> str:
    """Return those settings in the labels that all frames but the convergence checks share."""
    frames = [atoms for name in groups if name != "convergence" for atoms in groups[name]]
    labels = [str(atoms.info.get("label", "")).split("; ") for atoms in frames]
    return "; ".join(part for part in labels[0] if all(part in other for other in labels))
