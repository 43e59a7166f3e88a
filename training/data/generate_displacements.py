#!/usr/bin/env python3
"""Label relaxed crystals with their molecules a little displaced, with Quantum ESPRESSO.

Phonons and librations are second derivatives at minima. Hot snapshots tell of them only through
what anharmonic forces leave, and the relaxations hold few directions. Here the molecules of DFT's
minima (the last frame of each relaxation in `h2-pbe-relaxations.extxyz.xz`) are moved, turned and
stretched at random, by as much as in a crystal at some tens of kelvin.

Frames are of the family ``displaced``; ``info`` has ``phase``, ``pressure`` (GPa, of the
relaxation), ``trajectory``, ``parent`` (the frame that was displaced) and its ``split``. They are
means of both meshes of k-points of the project's recipe. Run the script again after a kill and it
goes on.

Example
-------
::

    nice python generate_displacements.py --output h2-pbe-displacements.extxyz
"""

import argparse
import signal
from pathlib import Path

import numpy as np
from ase import Atoms
from scipy.spatial.transform import Rotation

from ase_hmlp.molecules import molecules_of
from ase_hmlp.training.data.generate_dynamics import bonds_of, label_and_pack
from ase_hmlp.training.frames import iterate_structures
from ase_hmlp.training.label_calculators import EspressoSection

RELAXATIONS = Path(__file__).parent / "h2-pbe-relaxations.extxyz.xz"
SEED = 2026

#: Phases by how many snapshots at each pressure; cells of 24 atoms take several times as long.
COUNTS = {"P21c-8": 10, "P63m-16": 5, "Pca21": 6, "Pa3": 4, "P21c-24-a": 4, "P21c-24-b": 4}

#: Standard deviations of what is done to a molecule: Å along each axis, degrees about each, Å.
MOVE, TURN, STRETCH = 0.04, 4.0, 0.01


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


def plan():
    """All frames to be labelled, in the order of their pressure."""
    minima = {}
    for atoms in iterate_structures(RELAXATIONS):
        minima[atoms.info["trajectory"]] = atoms
    frames = []
    for which, atoms in enumerate(minima.values()):
        info = atoms.info
        for number in range(COUNTS.get(info["phase"], 0)):
            frame = displaced(atoms, np.random.default_rng([SEED, which, number]))
            name = f"displaced-{info['phase']}-{info['pressure']:g}GPa"
            frame.info = {
                "group": "displaced",
                "source": f"displacements/{name}/{number}",
                "trajectory": name,
                "parent": info["source"],
                "split": info["split"],
                "phase": info["phase"],
                "pressure": info["pressure"],
                "temperature": 0.0,
            }
            frames.append(frame)
    return sorted(frames, key=lambda frame: frame.info["pressure"])


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
    frames = plan()
    # As on Ctrl-C, so that the calculations in flight end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    labeller = None
    if not arguments.pack:
        labeller = EspressoSection(
            command=arguments.command,
            pseudo_dir=str(arguments.pseudo_dir.resolve()),
            small_cell=0,
            both_meshes=True,
        ).labeller()
    label_and_pack(frames, arguments.output, labeller, arguments.workers)


if __name__ == "__main__":
    main()
