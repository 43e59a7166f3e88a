#!/usr/bin/env python3
"""Label very long and very short bonds, alone and among hot molecules, with Quantum ESPRESSO.

At 1,500 K one bond in some thousands is longer than 1.1 Å at any time: snapshots of dynamics, some
dozen molecules each, hardly ever show one, and a run of many picoseconds meets them all the time.
Here they are made. In hot and dense snapshots that are labelled already, one or two molecules are
stretched to a length between 0.95 and 1.38 Å, or one compressed to 0.48 to 0.56 Å, and held there,
while dynamics at 1,500 K makes their neighbours give way. A last series, with the shipped potential
of a later day, has one molecule of 1.36 to 1.70 Å: what runs of 50 ps meet at 1,500 K.

Frames are of the family ``stretched``; ``info`` has ``parent`` (the snapshot), ``trajectory``,
``split`` and ``phase`` (all of the parent). They are means of both meshes of k-points of the
project's recipe. With them come isolated molecules (``molecule``) of bonds beyond those of
`generate_contacts.py`, in the same box.

The shipped potential moves the neighbours; snapshots are kept in ``<output stem>.explored``. Run
the script again after a kill and it goes on; what ``<output>.xz`` holds already stays as it is.

Example
-------
::

    nice python generate_stretched.py --output h2-pbe-stretched.extxyz
"""

import argparse
import signal
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.constraints import FixBondLengths
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta

from ase_hmlp import HMLP
from ase_hmlp.errors import DomainWarning, HMLPError
from ase_hmlp.files import write_whole
from ase_hmlp.molecules import molecules_of
from ase_hmlp.training.data.generate_contacts import make_molecule, van_der_corput
from ase_hmlp.training.data.generate_dynamics import (
    CALCULATOR,
    MODEL,
    bonds_of,
    label_and_pack,
    labelled_before,
)
from ase_hmlp.training.frames import iterate_structures
from ase_hmlp.training.label import extxyz_text
from ase_hmlp.training.label_calculators import EspressoSection

FOLDER = Path(__file__).parent
PARENTS = ("h2-pbe-dynamics.extxyz.xz", "h2-pbe-learned.extxyz.xz")
SEED = 2027
#: Frames with one or two long bonds; after them those with a short one, and with a longer one.
COUNT, COUNT_SHORT, COUNT_LONGER = 96, 24, 48

#: Families and the temperature (K) from which on their snapshots may be parents, and their atoms.
HOT = {"fluid": 800.0, "phase-I": 500.0, "learned": 0.0}
ATOMS = (16, 24)

#: What a frame has of its parent, where that has it.
INHERITED = ("trajectory", "split", "phase")

LENGTHS, SHORT, LONGER = (0.95, 1.38), (0.48, 0.56), (1.36, 1.70)  # Å
#: Parents of the longer ones, Å³/atom: at 160 GPa and 1,500 K no molecule would hold.
LEAST_VOLUME = 2.0
ALONE = (0.46, 0.48, 1.2, 1.25, 1.3, 1.35, 1.4, 1.45, 1.5, 1.55, 1.6, 1.65, 1.7)  # Å
TEMPERATURE = 1500.0  # K
STEP, STEPS = 0.4, 75  # fs
FRICTION = 0.1  # 1/fs


def parents():
    """Hot snapshots, by volume per atom."""
    found = [
        atoms
        for name in PARENTS
        for atoms in iterate_structures(FOLDER / name)
        if atoms.info.get("temperature", 0.0) >= HOT.get(atoms.info["group"], np.inf)
        and ATOMS[0] <= len(atoms) <= ATOMS[1]
    ]
    return sorted(found, key=lambda atoms: atoms.get_volume() / len(atoms))


def widened():
    """The shipped model, without its limits of bond lengths: long bonds are held, not computed."""
    model = HMLP(MODEL).model
    return replace(model, domain=replace(model.domain, bond_limits=(0.3, 2.0)))


def stretched(parent, number, model):
    """Stretch or compress molecules of a snapshot and let the others adapt.

    Parameters
    ----------
    parent : ase.Atoms
        With ``partner``.
    number : int
        Of the frame: below `COUNT` even ones get one long bond, odd ones two; then come those with
        one short bond, and those with a longer one.
    model : ase_hmlp.model_io.Model

    Returns
    -------
    ase.Atoms
    """
    rng = np.random.default_rng([SEED, number])
    partner = parent.arrays["partner"]
    molecules = molecules_of(partner)
    atoms = Atoms(parent.symbols, parent.positions, cell=parent.cell, pbc=True)
    bonds = bonds_of(atoms, molecules)
    long = number < COUNT
    lengths = LENGTHS if long else SHORT if number < COUNT + COUNT_SHORT else LONGER
    chosen = rng.choice(len(molecules), 1 + number % 2 if long else 1, replace=False)
    for k in chosen:
        first, second = molecules[k]
        centre = atoms.positions[first] + 0.5 * bonds[k]
        length = rng.uniform(*lengths)
        half = 0.5 * length * bonds[k] / np.linalg.norm(bonds[k])
        atoms.positions[first], atoms.positions[second] = centre - half, centre + half
    atoms.calc = HMLP(model, bonds=molecules, threads=1)
    atoms.set_constraint(FixBondLengths(molecules[chosen]))
    thermalize_momenta(atoms, temperature_K=TEMPERATURE, rng=rng)
    dynamics = Langevin(
        atoms,
        STEP * units.fs,
        temperature_K=TEMPERATURE,
        friction=FRICTION / units.fs,
        fixcm=False,
        rng=rng,
    )
    dynamics.run(STEPS)
    # Six digits, so that the file holds exactly what was labelled.
    out = Atoms(
        atoms.symbols,
        np.round(atoms.positions, 6),
        cell=np.round(atoms.cell.array, 6),
        pbc=True,
    )
    out.set_array("partner", partner)
    out.info = {
        "group": "stretched",
        "source": f"stretched/{number}",
        "parent": parent.info["source"],
        "temperature": TEMPERATURE,
        **{key: parent.info[key] for key in INHERITED if key in parent.info},
    }
    return out


def explored(folder, known):
    """All stretched snapshots: those that are known, and those that are made now.

    Parameters
    ----------
    folder : pathlib.Path
        For snapshots that are not labelled yet.
    known : dict
        Labelled ones by their source.

    Returns
    -------
    list of ase.Atoms
    """
    folder.mkdir(parents=True, exist_ok=True)
    choice, model, frames = parents(), widened(), []
    wide = [atoms for atoms in choice if atoms.get_volume() / len(atoms) > LEAST_VOLUME]
    for number in range(COUNT + COUNT_SHORT + COUNT_LONGER):
        if f"stretched/{number}" in known:
            frames.append(known[f"stretched/{number}"])
            continue
        path = folder / f"{number:03d}.extxyz"
        if not path.exists():
            # Snapshots far apart in volume first, so that what is finished is a small whole set.
            which = wide if number >= COUNT + COUNT_SHORT else choice
            parent = which[int(van_der_corput(number) * len(which))]
            try:
                atoms = stretched(parent, number, model)
            except HMLPError as error:
                print(f"{number}: {error}", flush=True)
                continue
            write_whole(path, extxyz_text(atoms))
        frames += list(iterate_structures(path))
    return frames


def alone():
    """Isolated molecules of long and short bonds."""
    frames = []
    for bond in ALONE:
        atoms = make_molecule(bond)
        atoms.info = {"group": "molecule", "source": f"stretched/molecule/{bond:g}"}
        frames.append(atoms)
    return frames


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("h2-pbe-stretched.extxyz"),
        help="file to append to; the result is <output>.xz",
    )
    parser.add_argument("--workers", type=int, default=2, help="simultaneous pw.x (serial each)")
    parser.add_argument("--pseudo-dir", type=Path, default=Path("/usr/share/espresso/pseudo"))
    parser.add_argument("--command", default="pw.x", help="how to start a serial pw.x")
    parser.add_argument("--pack", action="store_true", help="only pack what is labelled")
    arguments = parser.parse_args()
    known = {atoms.info["source"]: atoms for atoms in labelled_before(arguments.output)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DomainWarning)
        frames = alone() + explored(arguments.output.with_suffix(".explored"), known)
    # As on Ctrl-C, so that the calculations in flight end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    labeller = None
    if not arguments.pack:
        labeller = EspressoSection(
            command=arguments.command, pseudo_dir=str(arguments.pseudo_dir.resolve()), **CALCULATOR
        ).labeller()
    label_and_pack(frames, arguments.output, labeller, arguments.workers)


if __name__ == "__main__":
    main()
