#!/usr/bin/env python3
"""Label relaxed crystals with their molecules a little displaced, with Quantum ESPRESSO.

Phonons and librations are second derivatives at minima. Hot snapshots tell of them only through
what anharmonic forces leave, and the relaxations hold few directions. Here the molecules of DFT's
minima (the last frame of each relaxation in `h2-pbe-relaxations.extxyz.xz`) are moved, turned and
stretched at random, by as much as in a crystal at some tens of kelvin.

What is soft is lost in such frames among what is stiff. So P2₁/c-8 has more of them: first one atom
displaced at a time, as phonopy asks for, which gives DFT's phonons at Gamma; then all atoms along
DFT's soft modes, each with the same energy.

Frames are of the family ``displaced``; ``info`` has ``phase``, ``pressure`` (GPa, of the
relaxation), ``trajectory``, ``parent`` (the frame that was displaced) and its ``split``. They are
means of both meshes of k-points of the project's recipe. Run the script again after a kill and it
goes on; what ``<output>.xz`` holds already is not labelled again.

Example
-------
::

    nice python generate_displacements.py --output h2-pbe-displacements.extxyz
"""

import argparse
import signal
from pathlib import Path

import numpy as np
from ase import Atoms, units
from scipy.spatial.transform import Rotation

from ase_hmlp.molecules import molecules_of
from ase_hmlp.training.data.generate_dynamics import (
    bonds_of,
    label_and_pack,
    labelled_before,
)
from ase_hmlp.training.fidelity.crystals import displaced_cells, modes
from ase_hmlp.training.frames import iterate_structures
from ase_hmlp.training.label_calculators import EspressoSection

RELAXATIONS = Path(__file__).parent / "h2-pbe-relaxations.extxyz.xz"
SEED = 2026

#: Phases by how many snapshots at each pressure; cells of 24 atoms take several times as long.
COUNTS = {"P21c-8": 10, "P63m-16": 5, "Pca21": 6, "Pa3": 4, "P21c-24-a": 4, "P21c-24-b": 4}

#: Standard deviations of what is done to a molecule: Å along each axis, degrees about each, Å.
MOVE, TURN, STRETCH = 0.04, 4.0, 0.01

#: Of this phase some have one atom displaced, and so many at each pressure go along modes
#: that are softer than SOFT (1/cm), in turns, each with the energy kT of so many kelvin.
SOFT_PHASE, N_SOFT = "P21c-8", 48
SOFT = ((1200.0, 40.0), (1200.0, 120.0), (500.0, 40.0), (500.0, 120.0))

#: Small forces need it.
TIGHT = {"conv_thr": 1e-9}


def displaced(atoms, rng):
    """Move, turn and stretch every molecule.

    Parameters
    ----------
    atoms : ase.Atoms
        With ``partner``.
    rng : numpy.random.Generator

    Returns
    -------
    ase.Atoms
    """
    molecules = molecules_of(atoms.arrays["partner"])
    bonds = bonds_of(atoms, molecules)
    centres = atoms.positions[molecules[:, 0]] + 0.5 * bonds
    centres += rng.normal(0.0, MOVE, centres.shape)
    turns = Rotation.from_rotvec(rng.normal(0.0, np.radians(TURN), bonds.shape))
    lengths = np.linalg.norm(bonds, axis=1)
    longer = 1.0 + rng.normal(0.0, STRETCH, len(bonds)) / lengths
    bonds = turns.apply(bonds) * longer[:, None]
    positions = np.empty_like(atoms.positions)
    positions[molecules[:, 0]], positions[molecules[:, 1]] = (
        centres - bonds / 2,
        centres + bonds / 2,
    )
    # Six digits, so that the file holds exactly what was labelled.
    out = Atoms(atoms.symbols, np.round(positions, 6), cell=np.round(atoms.cell.array, 6), pbc=True)
    out.set_array("partner", atoms.arrays["partner"])
    return out


def minima():
    """DFT's minima: the last frame of each relaxation, by its trajectory."""
    return {atoms.info["trajectory"]: atoms for atoms in iterate_structures(RELAXATIONS)}


def described(frame, minimum, kind, number):
    """Say in a frame what it is.

    Parameters
    ----------
    frame, minimum : ase.Atoms
    kind : str
    number : int

    Returns
    -------
    ase.Atoms
        `frame`, rounded to six digits, so that the file holds exactly what is labelled.
    """
    info = minimum.info
    name = f"{kind}-{info['phase']}-{info['pressure']:g}GPa"
    out = Atoms(
        frame.symbols, np.round(frame.positions, 6), cell=np.round(minimum.cell.array, 6), pbc=True
    )
    out.set_array("partner", minimum.arrays["partner"])
    out.info = {
        "group": "displaced",
        "source": f"displacements/{name}/{number}",
        "trajectory": name,
        "parent": info["source"],
        "split": info["split"],
        "phase": info["phase"],
        "pressure": info["pressure"],
        "temperature": 0.0,
    }
    return out


def plan():
    """All frames with molecules displaced at random, in the order of their pressure."""
    frames = [
        described(
            displaced(atoms, np.random.default_rng([SEED, which, number])),
            atoms,
            "displaced",
            number,
        )
        for which, atoms in enumerate(minima().values())
        for number in range(COUNTS.get(atoms.info["phase"], 0))
    ]
    return sorted(frames, key=lambda frame: frame.info["pressure"])


def soft_minima():
    """Minima that are displaced along their soft modes, in the order of their pressure."""
    chosen = [atoms for atoms in minima().values() if atoms.info["phase"] == SOFT_PHASE]
    return sorted(chosen, key=lambda atoms: atoms.info["pressure"])


def plan_of_one_atom():
    """Frames with one atom displaced, for phonons at Gamma."""
    return [
        described(frame, atoms, "one-atom", number)
        for atoms in soft_minima()
        for number, frame in enumerate(displaced_cells(atoms))
    ]


def plan_along_modes(labelled):
    """Frames with all atoms displaced along DFT's soft modes.

    Parameters
    ----------
    labelled : list of ase.Atoms
        Those of `plan_of_one_atom`, with forces.

    Returns
    -------
    list of ase.Atoms
        Displacements are normal with the covariance ``kT M^-1/2 P D^-1 P M^-1/2``: D is the
        dynamical matrix at Gamma, P projects on its modes softer than a limit. Molecules turn: a
        bond is as long as what it is displaced by along itself makes it, or librations would
        stretch it in second order.
    """
    frames = []
    for which, atoms in enumerate(soft_minima()):
        own = [frame for frame in labelled if frame.info["parent"] == atoms.info["source"]]
        gamma = modes(atoms, own)
        vector = np.real(gamma.vector)  # at Gamma, up to a phase that is 1
        omega = 2 * np.pi * 100 * units._c * gamma.frequency / units.second
        for number in range(N_SOFT):
            limit, temperature = SOFT[number % len(SOFT)]
            soft = (gamma.frequency > 1.0) & (gamma.frequency < limit)
            rng = np.random.default_rng([SEED, 1000 + which, number])
            normal = rng.normal(size=3 * len(atoms))
            # Through the root of the matrix, whatever the signs of its eigenvectors.
            root = (vector[:, soft] / omega[soft]) @ vector[:, soft].T
            shift = np.sqrt(units.kB * temperature) * (root @ normal).reshape(-1, 3)
            frame = atoms.copy()
            frame.positions += shift / np.sqrt(atoms.get_masses())[:, None]
            frames.append(described(turned(frame, atoms), atoms, "along", number))
    return frames


def turned(frame, minimum):
    """Give the bonds of a displaced frame the lengths that are of first order in displacements.

    Parameters
    ----------
    frame, minimum : ase.Atoms
        The same atoms; `minimum` with ``partner``.

    Returns
    -------
    ase.Atoms
    """
    molecules = molecules_of(minimum.arrays["partner"])
    before, bonds = bonds_of(minimum, molecules), bonds_of(frame, molecules)
    centres = frame.positions[molecules[:, 0]] + 0.5 * bonds
    axes = before / np.linalg.norm(before, axis=1)[:, None]
    lengths = (bonds * axes).sum(axis=1) / np.linalg.norm(bonds, axis=1)
    half = 0.5 * lengths[:, None] * bonds
    out = frame.copy()
    out.positions[molecules[:, 0]], out.positions[molecules[:, 1]] = centres - half, centres + half
    return out


def whole_plan(found):
    """All frames, those along modes if it is known what they are.

    Parameters
    ----------
    found : list of ase.Atoms
        What is labelled.
    """
    single = plan_of_one_atom()
    sources = {frame.info["source"] for frame in single}
    known = [frame for frame in found if frame.info["source"] in sources]
    return plan() + single + (plan_along_modes(known) if len(known) == len(single) else [])


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("h2-pbe-displacements.extxyz"),
        help="file to append to; the result is <output>.xz",
    )
    parser.add_argument("--workers", type=int, default=2, help="simultaneous pw.x (serial each)")
    parser.add_argument("--pseudo-dir", type=Path, default=Path("/usr/share/espresso/pseudo"))
    parser.add_argument("--command", default="pw.x", help="how to start a serial pw.x")
    parser.add_argument("--pack", action="store_true", help="only pack what is labelled")
    arguments = parser.parse_args()
    # As on Ctrl-C, so that the calculations in flight end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    labeller = None
    if not arguments.pack:
        labeller = EspressoSection(
            command=arguments.command,
            pseudo_dir=str(arguments.pseudo_dir.resolve()),
            small_cell=0,
            both_meshes=True,
            input_data=TIGHT,
        ).labeller()
    found, frames = labelled_before(arguments.output), None
    # Twice at most: modes are known when the frames with one atom displaced are labelled.
    while frames is None or len(whole_plan(found)) > len(frames):
        frames = whole_plan(found)
        found = label_and_pack(frames, arguments.output, labeller, arguments.workers)


if __name__ == "__main__":
    main()
