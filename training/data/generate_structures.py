#!/usr/bin/env python3
"""Relax crystal structures that were put together by symmetry, with PBE.

``Pa3-8``
    molecules on a face-centred cubic lattice along the body diagonals (Pa-3, as alpha-N2);
``Pca21-8``
    molecules on a hexagonal close-packed lattice, tilted (Pca2_1);
``C2c-12``
    two layers of P6_1 22, the second the first inverted: C2/c, a candidate for Phase III.

The coordinates below are where a model left them. The shipped model relaxes them first; from there
Quantum ESPRESSO does at 100 GPa, within the space group, on a mesh of k-points of 0.06 1/Å, with
the model's second derivatives as a first guess. Each structure is written to
``<output>/<name>.extxyz`` as `ase_hmlp.simulate.structures` wants it; what is there already is not
computed again, and calculations are kept in ``<work>``: run the script again after a kill.

Example
-------
::

    nice python generate_structures.py --work structures --output ase_hmlp/simulate/structures
"""

import argparse
from pathlib import Path

from ase import Atoms
from ase.io import write
from ase.io.espresso import kspacing_to_grid
from ase.spacegroup import crystal

from ase_hmlp import HMLP
from ase_hmlp.simulate.relax import curvature_of, relax
from ase_hmlp.training.data.generate_fidelity import Laboratory
from ase_hmlp.training.data.generate_relaxations import KSPACING, Recorded
from ase_hmlp.training.fidelity.crystals import in_space_group

PRESSURE = 100.0  # GPa

#: Where the model is softer than this (eV/Å²) DFT need not be: a step too long costs more than
#: one too short.
SOFTEST = 3.0

#: Name, space group, cell (Å, degrees) and atoms that symmetry makes the others of.
STRUCTURES = {
    "Pa3-8": ("Pa-3", 205, (2.6593,) * 3 + (90.0,) * 3, [(0.0794, 0.0794, 0.0794)]),
    "Pca21-8": (
        "Pca2_1",
        29,
        (2.9521, 2.1037, 2.9781, 90.0, 90.0, 90.0),
        [(0.9389, 0.1436, 0.9243), (0.0615, 0.3565, 0.0757)],
    ),
    "C2c-12": (
        "C2/c",
        15,
        (5.7318, 3.3158, 3.4801, 90.0, 122.6842, 90.0),
        [
            (0.8817, 0.9265, 0.7596),
            (0.7414, 0.3826, 0.7347),
            (0.0, 0.5447, 0.75),
            (0.5, 0.824, 0.75),
        ],
    ),
}


def build(name: str) -> Atoms:
    """Primitive cell of a structure."""
    _, number, cell, sites = STRUCTURES[name]
    atoms = crystal("H" * len(sites), sites, spacegroup=number, cellpar=cell, primitive_cell=True)
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)


def generate(name: str, folder: Path, laboratory: Laboratory) -> None:
    """Relax and write one."""
    path = folder / f"{name}.extxyz"
    if path.exists():
        return
    atoms = in_space_group(build(name))
    atoms.calc = HMLP()
    relaxed = relax(atoms, PRESSURE, 5e-3, 0.1, curvature=curvature_of(atoms, PRESSURE)).atoms
    relaxed.calc = atoms.calc
    guess = curvature_of(relaxed, PRESSURE, softest=SOFTEST)
    dft = Recorded(laboratory, tuple(kspacing_to_grid(relaxed, KSPACING)))
    relaxed.calc = dft

    def report(step, fmax, stress):
        print(f"{name}: step {step}, {fmax:.3f} eV/Å, {stress:.2f} GPa", flush=True)

    # Pulay stress is within 1 GPa at this cutoff: no use in less.
    result = relax(relaxed, PRESSURE, 0.01, 0.3, 40, report, guess)
    bare = Atoms(atoms.numbers, result.atoms.positions, cell=result.atoms.cell, pbc=True)
    bare.info = {
        "phase": name,
        "spacegroup": STRUCTURES[name][0],
        "pressure_GPa": PRESSURE,
        "provenance": "static PBE structure, relaxed at the pressure given; "
        + dft.frames[-1].info["label"],
    }
    write(path, bare, format="extxyz")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("structures"))
    parser.add_argument("--output", type=Path, default=Path())
    parser.add_argument("--command", default="pw.x", help="how to start a serial pw.x")
    parser.add_argument("--pseudo-dir", default="/usr/share/espresso/pseudo")
    parser.add_argument("names", nargs="*", default=list(STRUCTURES))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    kept = Laboratory(arguments.work, arguments.command, arguments.pseudo_dir)
    for structure in arguments.names:
        generate(structure, arguments.output, kept)
