#!/usr/bin/env python3
"""What the stress of the recipe lacks: the Pulay stress, by Quantum ESPRESSO at other cutoffs.

At a constant number of plane waves, which is what pw.x's stress is the derivative at, a cell that
shrinks has a higher cutoff. The energy at a constant cutoff E_c has the pressure

    P + (-2/3 dE/d ln E_c) / V

(G. P. Francis and M. C. Payne, J. Phys.: Condens. Matter 2, 4395, 1990). The numerator per atom is
what ``info["pulay"]`` of every frame says, one number for all, as this script shows: it takes
small labelled frames of many densities and prints it for each, from the cutoffs 44 and 48 Ry, and
what the pressure really gains at 80 Ry.

Example
-------
::

    python measure_pulay.py h2-pbe-dynamics.extxyz.xz
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from ase import units

from ase_hmlp.training.data.generate_dynamics import CALCULATOR
from ase_hmlp.training.frames import iterate_structures
from ase_hmlp.training.label_calculators import RECIPE, EspressoSection

VOLUMES = (1.75, 2.25, 3.2, 4.2, 6.0)  # Å³/atom
BELOW, ABOVE, HIGH = 44.0, 48.0, 80.0  # Ry


def nearest(frames, volume):
    """The bulk frame of at most 16 atoms nearest to a volume per atom (Å³)."""
    small = [a for a in frames if a.pbc.all() and 4 < len(a) <= 16]
    return min(small, key=lambda a: abs(np.log(a.get_volume() / len(a) / volume)))


def label(atoms, settings, **keys):
    """Labels by the recipe but for some keys of `EspressoSection`."""
    section = EspressoSection(**settings, **CALCULATOR | keys)
    with tempfile.TemporaryDirectory() as scratch:
        return section.labeller().compute(atoms.copy(), Path(scratch))


def pressure(stress):
    """Pressure (GPa) of a stress (6), eV/Å³."""
    return -stress[:3].mean() / units.GPa


def at_cutoff(cutoff):
    """Variables of pw.x for a cutoff (Ry), that of the density in proportion."""
    return {"ecutwfc": cutoff, "ecutrho": RECIPE["ecutrho"] / RECIPE["ecutwfc"] * cutoff}


def read_command_line(description):
    """Labelled frames, and settings of `EspressoSection`, that a command line gives."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("frames", type=Path, help="labelled with the recipe")
    parser.add_argument("--pseudo-dir", type=Path, default=Path("/usr/share/espresso/pseudo"))
    parser.add_argument("--command", default="pw.x", help="how to start a serial pw.x")
    arguments = parser.parse_args()
    settings = {
        "command": arguments.command,
        "pseudo_dir": str(arguments.pseudo_dir.resolve()),
    }
    return list(iterate_structures(arguments.frames)), settings


def main():
    """Run the command line."""
    frames, settings = read_command_line(__doc__.split("\n")[0])
    found = []
    print(f"Å³/atom   meV/atom   GPa   GPa gained at {HIGH:g} Ry")
    for volume in VOLUMES:
        atoms = nearest(frames, volume)
        below, above, high = (
            label(atoms, settings, input_data=at_cutoff(cutoff)) for cutoff in (BELOW, ABOVE, HIGH)
        )
        slope = (above.energy - below.energy) / np.log(ABOVE / BELOW) / len(atoms)
        lacking = -2.0 / 3.0 * slope
        volume = atoms.get_volume() / len(atoms)
        gained = pressure(high.stress) - pressure(atoms.get_stress())
        found.append(1e3 * lacking)
        print(
            f"{volume:7.2f} {found[-1]:10.2f} {lacking / volume / units.GPa:5.2f} {gained:6.2f}"
            f"   {atoms.info['source']}",
            flush=True,
        )
    print(f"{np.mean(found):.1f} ± {np.std(found, ddof=1):.1f} meV/atom")


if __name__ == "__main__":
    main()
