#!/usr/bin/env python3
"""Relax crystal structures that were put together by symmetry, with PBE.

``Pa3-8``
    molecules on a face-centred cubic lattice along the body diagonals (Pa-3, as alpha-N2);
``Pca21-8``
    molecules on a hexagonal close-packed lattice, tilted (Pca2_1);
``C2c-12``
    two layers of P6_1 22, the second the first inverted: C2/c, a candidate for Phase III.

The coordinates below are those relaxed with the shipped model. Quantum ESPRESSO relaxes cell and
positions at 100 GPa with the recipe of the project's data and a fixed mesh of k-points. Cell and
positions keep the symmetry they start with. Each structure is written to ``<output>/<name>.extxyz``
as `ase_hmlp.simulate.structures` wants it; what is there already is not computed again.

Example
-------
::

    nice python generate_structures.py --output ase_hmlp/simulate/structures
"""

import argparse
import tempfile
from pathlib import Path

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.io import write
from ase.spacegroup import crystal

from ase_hmlp.simulate.relax import relax
from ase_hmlp.training.label_calculators import EspressoSection

PRESSURE = 100.0  # GPa

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


class PBE(Calculator):
    """Quantum ESPRESSO with the project's recipe, as an ASE calculator."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self):
        super().__init__()
        # The same mesh for every cell on the way: 0.05 1/Å asks for more than it needs.
        self.labeller = EspressoSection(small_cell=16).labeller()
        self.label = ""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Run pw.x once."""
        super().calculate(atoms, properties, system_changes)
        with tempfile.TemporaryDirectory() as scratch:
            labels = self.labeller.compute(atoms, Path(scratch))
        self.label = labels.label
        self.results = {
            "energy": labels.energy,
            "forces": labels.forces,
            "stress": labels.stress,
        }


def build(name: str) -> Atoms:
    """Primitive cell of a structure."""
    _, number, cell, sites = STRUCTURES[name]
    atoms = crystal("H" * len(sites), sites, spacegroup=number, cellpar=cell, primitive_cell=True)
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)


def generate(name: str, folder: Path) -> None:
    """Relax and write one."""
    path = folder / f"{name}.extxyz"
    if path.exists():
        return
    atoms, calculator = build(name), PBE()
    atoms.calc = calculator

    def report(step, fmax, stress):
        print(f"{name}: step {step}, {fmax:.3f} eV/Å, {stress:.2f} GPa", flush=True)

    # Pulay stress is within 1 GPa at this cutoff: no use in less.
    result = relax(atoms, PRESSURE, fmax=0.02, stress_tolerance=0.3, progress=report)
    relaxed = Atoms(atoms.numbers, result.atoms.positions, cell=result.atoms.cell, pbc=True)
    relaxed.info = {
        "phase": name,
        "spacegroup": STRUCTURES[name][0],
        "pressure_GPa": PRESSURE,
        "provenance": f"static PBE structure, relaxed at the pressure given; {calculator.label}",
    }
    write(path, relaxed, format="extxyz")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path())
    parser.add_argument("names", nargs="*", default=list(STRUCTURES))
    arguments = parser.parse_args()
    for structure in arguments.names:
        generate(structure, arguments.output)
