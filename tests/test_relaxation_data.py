"""Frames of relaxations by DFT: the plan, a relaxation whose end is known, the committed file."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa
from toy_calculator import toy_model
from toy_models import toy_potential

from ase_hmlp import HMLP
from ase_hmlp.molecules import molecules_of
from ase_hmlp.training.data import generate_relaxations as generator
from ase_hmlp.training.fidelity.reference import PRESSURES
from ase_hmlp.training.frames import iterate_structures, read_frames
from ase_hmlp.training.label_calculators import PULAY

COMMITTED = Path(generator.__file__).with_name("h2-pbe-relaxations.extxyz.xz")


def test_every_phase_has_relaxations_to_fit_and_to_test():
    plan = generator.plan()
    assert len({(phase, pressure) for phase, pressure, _ in plan}) == len(plan)
    phases = {phase for phase, *_ in plan}
    assert {phase for phase, _, split in plan if split == "train"} == phases
    tests = [(phase, pressure) for phase, pressure, split in plan if split == "test"]
    assert 0.1 < len(tests) / len(plan) < 0.3
    # `hmlp compare` looks elsewhere.
    assert not {pressure for _, pressure, _ in plan} & set(PRESSURES)


class Elsewhere:
    """A laboratory whose "DFT" is another toy: what it relaxes to is known."""

    def __init__(self, model):
        self.model, self.kpts = model, []

    def label(self, atoms, kpts=None):
        frame = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        frame.calc = HMLP(self.model)
        results = {"energy": frame.get_potential_energy(), "forces": frame.get_forces()}
        frame.calc = SinglePointCalculator(frame, **results, stress=frame.get_stress())
        frame.info = {"label": "toy", "cpu_seconds": 1.0}
        self.kpts.append(kpts)
        return frame


def test_a_relaxation_goes_to_the_others_minimum():
    wide = {"volume": (0.5, 30.0), "contact": 0.3, "contact_limit": 0.2}
    model = toy_model(toy_potential(53), **wide)
    other = toy_model(toy_potential(53, environment=False), **wide)
    laboratory, lines = Elsewhere(other), []
    frames = generator.relaxation(laboratory, "P21c-8", 80.0, "train", model, lines.append)
    assert 2 <= len(frames) <= generator.STEPS + 1
    assert len(set(laboratory.kpts)) == 1  # one mesh, whatever the cell
    force = [np.abs(frame.get_forces()).max() for frame in frames]
    off = [abs(-frame.get_stress()[:3].mean() / GPa - 80.0) for frame in frames]
    # Under the model's own potential it had been at rest at 80 GPa; the other's is elsewhere.
    assert force[0] > 0.02 or off[0] > 0.5
    assert force[-1] < force[0] or off[-1] < off[0]
    for number, frame in enumerate(frames):
        assert frame.info["source"] == f"relaxations/relaxation-P21c-8-80GPa/{number}"
        assert (frame.info["group"], frame.info["split"]) == ("relaxation", "train")
        assert frame.info["pulay"] == PULAY
        bonds = [
            frame.get_distance(i, j, mic=True) for i, j in molecules_of(frame.arrays["partner"])
        ]
        assert max(bonds) < 0.9


@pytest.mark.skipif(not COMMITTED.exists(), reason="not computed yet")
def test_committed_frames_are_those_of_the_plan():
    plan = {
        f"relaxation-{phase}-{pressure:g}GPa": split for phase, pressure, split in generator.plan()
    }
    for atoms in iterate_structures(COMMITTED):
        assert atoms.info["split"] == plan[atoms.info["trajectory"]]
        assert "Quantum ESPRESSO" in atoms.info["label"] and "PBE" in atoms.info["label"]
    digests = [frame.digest for frame in read_frames(COMMITTED)]
    assert len(set(digests)) == len(digests)
