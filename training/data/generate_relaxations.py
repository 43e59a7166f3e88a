#!/usr/bin/env python3
"""Label the way down to DFT's own minimum of each ordered phase, with Quantum ESPRESSO.

A potential that looks for minima finds those that it has by mistake: dynamics and relaxations of
the model alone end where *its* energy is low, not where DFT's is. Here DFT relaxes: each phase from
where the model puts it, at pressures between those that `hmlp compare` looks at, for a few steps
with the model's second derivatives as a first guess. Every step is a frame.

Frames are of the family ``relaxation``; ``info`` has ``phase``, ``pressure`` (GPa) of the
relaxation, ``trajectory``, and ``split``: whole relaxations are ``train`` or ``test``. They keep
their space group, on k-point meshes of 0.06 1/Å, one for each relaxation.

Every calculation is kept in ``<work>/<settings>.extxyz`` as it finishes. Run the script again
after a kill, with the same model, and it goes on from there.

Example
-------
::

    nice python generate_relaxations.py --work relaxations --output h2-pbe-relaxations.extxyz.xz
"""

import argparse
import signal
from pathlib import Path

from ase.io.espresso import kspacing_to_grid

from ase_hmlp import HMLP
from ase_hmlp.errors import HMLPError, NotConvergedError
from ase_hmlp.molecules import find_molecules, partners
from ase_hmlp.simulate import structures
from ase_hmlp.simulate.relax import curvature_of, relax
from ase_hmlp.training.data.generate_dynamics import PHASES_II, pa3, pca21, volume_at, write_packed
from ase_hmlp.training.data.generate_fidelity import Kept, Laboratory, published
from ase_hmlp.training.fidelity.crystals import in_space_group
from ase_hmlp.training.label_calculators import PULAY

PRESSURES = (80.0, 125.0, 40.0, 180.0)  # GPa
KSPACING = 0.06  # 1/Å, without 2 pi
FMAX, STRESS, STEPS = 0.01, 0.5, 7  # eV/Å, GPa
# Where the model is softer than this (eV/Å²) DFT need not be: shorter steps.
SOFTEST = 0.3


class Recorded(Kept):
    """Keeps what it was asked for, in order."""

    def __init__(self, laboratory, kpts):
        super().__init__(laboratory, kpts)
        self.frames = []

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        """Fill the results."""
        super().calculate(atoms, properties, system_changes)
        self.frames.append(self.laboratory.label(self.atoms, self.kpts))


def plan():
    """Phase, pressure and split of every relaxation; one pressure after the other."""
    return [
        (phase, pressure, "test" if (i + 2 * j) % 5 == 3 else "train")
        for j, pressure in enumerate(PRESSURES)
        for i, phase in enumerate(PHASES_II)
    ]


def by_model(phase, pressure, model):
    """A phase relaxed by the model in its space group.

    Parameters
    ----------
    phase : str
    pressure : float, GPa
    model : str or Model

    Returns
    -------
    ase.Atoms, HMLP
        And the calculator it was relaxed with.
    """
    if phase in structures.NAMES:
        atoms = published(phase)
        scale = (volume_at(pressure) * len(atoms) / atoms.get_volume()) ** (1.0 / 3.0)
        pairs = find_molecules(atoms.positions, atoms.cell.array, atoms.pbc)
        model = HMLP(model, bonds=pairs)
        if abs(scale - 1.0) < 0.12:  # bonds shrink along: the relaxation restores them
            atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
    else:
        atoms = in_space_group({"Pca21": pca21, "Pa3": pa3}[phase](volume_at(pressure)))
        model = HMLP(model)
    atoms.calc = model
    relaxed = relax(atoms, pressure, 5e-3, 0.1, 1000, curvature=curvature_of(atoms, pressure))
    return relaxed.atoms, model


def relaxation(laboratory, phase, pressure, split, model, report):
    """Frames of one relaxation.

    Parameters
    ----------
    laboratory : Laboratory
    phase, split : str
    pressure : float, GPa
    model : str
    report : callable, given a line

    Returns
    -------
    list of ase.Atoms
    """
    name = f"relaxation-{phase}-{pressure:g}GPa"
    try:
        start, calculator = by_model(phase, pressure, model)
    except (HMLPError, NotConvergedError) as reason:
        report(f"{name}: the model does not relax it: {reason}")
        return []
    pairs = find_molecules(start.positions, start.cell.array, start.pbc)
    start.calc = calculator
    guess = curvature_of(start, pressure, softest=SOFTEST)
    recorded = Recorded(laboratory, tuple(kspacing_to_grid(start, KSPACING)))
    start.calc = recorded

    def progress(step, fmax, stress_error):
        report(f"{name} step {step}: {fmax:.4f} eV/Å, {stress_error:.2f} GPa")

    try:
        relax(start, pressure, FMAX, STRESS, STEPS, progress, guess)
    except NotConvergedError:
        report(f"{name}: {STEPS} steps")
    frames = []
    for number, labelled in enumerate(recorded.frames):
        frame = labelled.copy()
        frame.calc = labelled.calc
        frame.set_array("partner", partners(pairs))
        frame.info = {
            "group": "relaxation",
            "source": f"relaxations/{name}/{number}",
            "trajectory": name,
            "split": split,
            "phase": phase,
            "pressure": pressure,
            "temperature": 0.0,
            "pulay": PULAY,
            "label": labelled.info["label"],
            "cpu_seconds": labelled.info["cpu_seconds"],
        }
        frames.append(frame)
    return frames


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("relaxations"))
    parser.add_argument("--output", type=Path, default=Path("h2-pbe-relaxations.extxyz.xz"))
    parser.add_argument("--model", default="h2-pbe", help="where relaxations start from")
    parser.add_argument("--command", default="pw.x", help="how to start a serial pw.x")
    parser.add_argument("--pseudo-dir", default="/usr/share/espresso/pseudo")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    # As on Ctrl-C, so that the calculation in flight ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    laboratory = Laboratory(arguments.work, arguments.command, arguments.pseudo_dir)
    frames = []
    for phase, pressure, split in plan():
        frames += relaxation(
            laboratory,
            phase,
            pressure,
            split,
            arguments.model,
            lambda line: print(line, flush=True),
        )
        write_packed(frames, arguments.output)
    print(f"{len(frames)} frames in {arguments.output}")


if __name__ == "__main__":
    main()
