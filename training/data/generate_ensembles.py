#!/usr/bin/env python3
"""Label snapshots of a model's own dynamics, to see what DFT's would average: `hmlp reweight`.

Ensembles (``info["ensemble"]``) at constant volume and temperature, sampled by independent walkers
of small cells of Phase I, each started from molecules in random directions. Frames carry what they
were sampled with, for they are worth something only together with it: ``info["sampled_energy"]``
(eV, of the positions as they are labelled), ``model_sha256``, ``temperature`` (K), ``pressure``
(GPa, roughly what the model has there), ``walker``.

Nothing in the output is ever trained on.

Run the script again after a kill and it goes on with what is missing: snapshots are kept in
``<output stem>.sampled.extxyz``, labels in ``<output stem>.extxyz``.

Example
-------
::

    nice python generate_ensembles.py --output h2-pbe-ensembles.extxyz --workers 2
"""

import argparse
import signal
import warnings
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta

from ase_hmlp import HMLP
from ase_hmlp.errors import DomainWarning
from ase_hmlp.files import write_whole
from ase_hmlp.model_io import model_hash
from ase_hmlp.molecules import partners
from ase_hmlp.training.data.generate_dynamics import (
    CALCULATOR,
    close_packed,
    settled,
    write_packed,
)
from ase_hmlp.training.frames import iterate_structures
from ase_hmlp.training.label import RunSection, extxyz_text, label_frames
from ase_hmlp.training.label_calculators import EspressoSection

SEED = 20201006
CELL = ("ortho", 3, 1, 1)  # 24 atoms
#: Name; pressure, GPa; volume, Å³/atom; temperature, K.
ENSEMBLES = (
    ("I-140GPa-150K", 140.0, 2.033, 150.0),
    ("I-100GPa-150K", 100.0, 2.329, 150.0),
    ("I-60GPa-150K", 60.0, 2.843, 150.0),
)
WALKERS, SNAPSHOTS = 10, 4
TIMESTEP, FRICTION_TIME = 0.5, 100.0  # fs
SETTLE, APART = 5.0, 1.5  # ps


def walk(model, ensemble, number):
    """Snapshots of one walker.

    Parameters
    ----------
    model : str
        Name or path.
    ensemble : tuple
        Of `ENSEMBLES`.
    number : int

    Returns
    -------
    list of ase.Atoms
    """
    name, pressure, volume, temperature = ensemble
    rng = np.random.default_rng([SEED, [e[0] for e in ENSEMBLES].index(name), number])
    atoms = close_packed(CELL, volume, rng)
    atoms.calc = HMLP(model, threads=1)
    settled(atoms, fmax=1.0, steps=60)
    molecules = atoms.calc.molecules
    # Half of it is about to become potential energy.
    thermalize_momenta(atoms, temperature_K=2 * temperature, rng=rng)
    dynamics = Langevin(
        atoms,
        TIMESTEP * units.fs,
        temperature_K=temperature,
        friction=1.0 / (FRICTION_TIME * units.fs),
        fixcm=False,
        rng=rng,
    )
    steps = [round(1000.0 * time / TIMESTEP) for time in (SETTLE, APART)]
    frames = []
    for snapshot in range(SNAPSHOTS):
        dynamics.run(steps[0] if snapshot == 0 else steps[1])
        # Six digits, more than a label can tell apart: the file holds what was labelled.
        frame = Atoms(
            atoms.symbols,
            positions=np.round(atoms.positions, 6),
            cell=np.round(atoms.cell.array, 6),
            pbc=True,
        )
        frame.set_array("partner", partners(molecules))
        frame.calc = HMLP(model, bonds=molecules, threads=1)
        frame.info = {
            "group": "ensemble",
            "source": f"ensembles/{name}/{number}/{snapshot}",
            "ensemble": name,
            "walker": number,
            "temperature": temperature,
            "pressure": pressure,
            "sampled_energy": frame.get_potential_energy(),
            "model_sha256": model_hash(model),
        }
        frame.calc = None
        frames.append(frame)
    return frames


def sample(model, path):
    """All snapshots, from the file at `path` if it is there.

    Parameters
    ----------
    model : str
    path : pathlib.Path

    Returns
    -------
    list of ase.Atoms
        Walkers in turn, so that what is labelled first is a small whole.
    """
    if not path.exists():
        frames = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DomainWarning)
            for number in range(WALKERS):
                for ensemble in ENSEMBLES:
                    frames += walk(model, ensemble, number)
        write_whole(path, "".join(map(extxyz_text, frames)))
    return list(iterate_structures(path))


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="h2-pbe", help="what samples: name or file")
    parser.add_argument("--output", type=Path, default=Path("h2-pbe-ensembles.extxyz"))
    parser.add_argument("--workers", type=int, default=2, help="simultaneous processes")
    parser.add_argument("--pseudo-dir", type=Path, default=Path("/usr/share/espresso/pseudo"))
    parser.add_argument("--command", default="pw.x", help="how to start a serial pw.x")
    arguments = parser.parse_args()

    output = arguments.output
    frames = sample(arguments.model, output.with_suffix(".sampled.extxyz"))
    labeller = EspressoSection(
        command=arguments.command, pseudo_dir=str(arguments.pseudo_dir.resolve()), **CALCULATOR
    ).labeller()
    # As on Ctrl-C, so that the calculations in flight end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run = RunSection(workers=arguments.workers)
    label_frames(frames, output, labeller, run, retry_failed=True)
    order = {frame.info["source"]: n for n, frame in enumerate(frames)}
    labelled = sorted(iterate_structures(output), key=lambda a: order[a.info["source"]])
    packed = output.with_name(f"{output.name}.xz")
    write_packed(labelled, packed)
    print(f"{len(labelled)} of {len(frames)} frames in {packed}")


if __name__ == "__main__":
    main()
